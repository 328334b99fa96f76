# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel's bytes: nothing is lost, nothing is sent twice, and a relay that breaks the rules is refused."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.flux.burst.plugins.module_utils._iap import (
    FRAME,
    Stream,
    Target,
    TunnelError,
    data_frames,
)
from hypothesis import given
from hypothesis import strategies as st


def connected() -> Stream:
    stream = Stream()
    stream.receive(struct.pack(">HI", 1, 3) + b"sid")
    return stream


def ack(count: int, tag: int = 7) -> bytes:
    return struct.pack(">HQ", tag, count)


@given(st.binary(max_size=3 * FRAME))
def test_frames_carry_all_the_data_in_parts_that_the_relay_takes(data: bytes) -> None:
    frames = data_frames(data)
    assert b"".join(frame[6:] for frame in frames) == data
    assert all(len(frame) <= FRAME + 6 for frame in frames)


def test_the_first_message_names_the_session() -> None:
    assert connected().sid == "sid"


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=10), st.integers(0, 1000))
def test_what_was_not_acknowledged_is_kept_for_a_reconnect(parts: list[bytes], seen: int) -> None:
    stream = connected()
    for part in parts:
        stream.send(part)
    whole = b"".join(parts)
    seen = min(seen, len(whole))
    stream.receive(ack(seen, tag=2))
    assert bytes(stream.unacked) == whole[seen:]


def test_received_data_is_counted_and_owed_until_it_is_acknowledged() -> None:
    stream = connected()
    assert stream.receive(data_frames(b"hello")[0]) == b"hello"
    assert (stream.received, stream.owes) == (5, 5)
    assert stream.acknowledge() == ack(5)
    assert stream.owes == 0


@pytest.mark.parametrize(
    "message",
    [
        ack(6),
        struct.pack(">HI", 4, 9) + b"short",
        b"\x00",
        struct.pack(">H", 7),
    ],
)
def test_a_message_that_breaks_the_rules_is_refused(message: bytes) -> None:
    stream = connected()
    stream.send(b"hello")
    with pytest.raises(TunnelError, match="wanted the IAP relay's protocol"):
        stream.receive(message)


def test_an_acknowledgement_never_goes_back() -> None:
    stream = connected()
    stream.send(b"hello")
    stream.receive(ack(5))
    with pytest.raises(TunnelError, match="4 bytes acknowledged"):
        stream.receive(ack(4))


def test_data_before_the_session_is_refused() -> None:
    with pytest.raises(TunnelError, match="out of place"):
        Stream().receive(data_frames(b"x")[0])


def test_a_reconnect_says_what_came_so_far() -> None:
    target = Target("p", "us-central1-a", "n-1", 22, "wss://relay")
    url = target.reconnect_url("s/1", 42)
    assert url == "wss://relay/v4/reconnect?sid=s%2F1&ack=42&zone=us-central1-a&newWebsocket=True"
    assert "port=22" in target.connect_url()
