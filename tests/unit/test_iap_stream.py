# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel's bookkeeping: nothing is lost or sent twice, and a relay that breaks the rules is told."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _iap_tunnel
from ansible_collections.flux.burst.plugins.module_utils._iap_tunnel import (
    Stream,
    Target,
    TunnelError,
    data_message,
)
from hypothesis import given
from hypothesis import strategies as st

SID = struct.pack(">HI", 1, 3) + b"sid"


def connected() -> Stream:
    stream = Stream()
    assert stream.receive(SID) == b""
    return stream


def ack(count: int) -> bytes:
    return struct.pack(">HQ", 7, count)


def test_the_first_message_names_the_session() -> None:
    assert connected().sid == "sid"


def reconnected(count: int) -> bytes:
    return struct.pack(">HQ", 2, count)


def sent(stream: Stream) -> bytes:
    """Send all that waits; return the data of its messages, which have to be in order."""
    data = b""
    while stream.unsent:
        for message in stream.messages():
            tag, size = struct.unpack_from(">HI", message)
            assert (tag, size) == (4, len(message) - 6)
            assert 0 < size <= 16384
            data += message[6:]
    return data


@given(st.binary(max_size=200_000))
def test_data_is_cut_into_messages_of_at_most_16384_bytes(data: bytes) -> None:
    stream = connected()
    stream.unacked += data
    assert sent(stream) == data
    assert stream.messages() == []


def test_an_acknowledgement_never_waits_behind_more_than_eight_messages() -> None:
    stream = connected()
    stream.unacked += bytes(1_000_000)
    assert len(stream.messages()) == 8


@given(st.lists(st.binary(min_size=1, max_size=50)), st.data())
def test_what_is_kept_is_exactly_what_was_not_acknowledged(
    pieces: list[bytes], data: st.DataObject
) -> None:
    stream, given_, known = connected(), b"", 0
    for piece in pieces:
        stream.unacked += piece
        given_ += sent(stream)
        known = data.draw(st.integers(known, len(given_)))
        stream.receive(ack(known))
        assert bytes(stream.unacked) == given_[known:]
        assert stream.acked == known


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=20))
def test_what_is_delivered_is_owed_until_it_is_acknowledged(pieces: list[bytes]) -> None:
    stream = connected()
    got = b"".join(stream.receive(data_message(piece)) for piece in pieces)
    assert got == b"".join(pieces)
    assert stream.received == len(got)
    assert stream.owes == 0, "a slow reader holds the relay back"
    stream.delivered = len(got)
    assert stream.owes == len(got)
    assert stream.acknowledge() == ack(len(got))
    assert stream.owes == 0


@given(st.binary(min_size=1, max_size=100_000), st.data())
def test_a_resumed_connection_sends_just_what_has_not_arrived(
    data: bytes, draw: st.DataObject
) -> None:
    stream = connected()
    stream.unacked += data
    stream.messages()
    arrived = draw.draw(st.integers(0, stream.sent))
    stream.resume()
    assert not stream.open, "nothing may be sent before the relay says what has arrived"
    stream.receive(reconnected(arrived))
    assert stream.open
    assert sent(stream) == data[arrived:]


def test_an_acknowledgement_never_goes_back_to_less_than_a_reconnect_told() -> None:
    stream = connected()
    stream.receive(data_message(b"12345"))
    stream.delivered = 2
    assert stream.resume() == 5, "what is here is not asked for again, delivered or not"
    assert stream.owes == 0
    stream.delivered = 5
    assert stream.owes == 0


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00", id="half a tag"),
        pytest.param(struct.pack(">HI", 4, 3) + b"ab", id="less data than it says"),
        pytest.param(struct.pack(">HI", 4, 1) + b"ab", id="more data than it says"),
        pytest.param(struct.pack(">HI", 4, 16385) + bytes(16385), id="more data than allowed"),
        pytest.param(struct.pack(">HI", 7, 0), id="half an acknowledgement"),
        pytest.param(ack(7), id="more acknowledged than sent"),
        pytest.param(ack(1), id="an acknowledgement that goes back"),
        pytest.param(struct.pack(">HI", 1, 9) + b"sid", id="a sid cut short"),
        pytest.param(SID, id="a second sid"),
    ],
)
def test_a_relay_that_breaks_the_rules_is_told(message: bytes) -> None:
    stream = connected()
    stream.unacked += b"abcdef"
    stream.messages()
    stream.receive(ack(3))
    with pytest.raises(TunnelError, match="wanted the IAP relay's protocol, found") as caught:
        stream.receive(message)
    assert caught.value.code == 6


def test_data_before_the_session_is_told() -> None:
    with pytest.raises(TunnelError, match="out of place"):
        Stream().receive(data_message(b"early"))


@pytest.mark.parametrize("rest", [b"\x00\x00\x00\x02\xff\xff", b"\x00\x00\x00\x00"])
def test_a_session_id_that_is_none_is_told(rest: bytes) -> None:
    with pytest.raises(TunnelError, match=r"found a (message cut short|session id)"):
        Stream().receive(b"\x00\x01" + rest)


def test_an_unknown_message_is_ignored() -> None:
    assert connected().receive(struct.pack(">HI", 99, 0)) == b""


def test_the_addresses_are_those_of_the_protocol() -> None:
    target = Target("my-project", "us-central1-a", "b-001", 22, "wss://relay")
    assert target.connect_url() == (
        "wss://relay/v4/connect?project=my-project&zone=us-central1-a&instance=b-001&interface=nic0&port=22"
        "&newWebsocket=True"
    )
    assert target.reconnect_url("s/d+", 5) == (
        "wss://relay/v4/reconnect?sid=s%2Fd%2B&ack=5&zone=us-central1-a&newWebsocket=True"
    )


def test_no_close_code_of_the_relay_means_that_all_is_well() -> None:
    assert not {_iap_tunnel.NORMAL, _iap_tunnel.REAUTHENTICATE} & _iap_tunnel.CLOSED.keys()
