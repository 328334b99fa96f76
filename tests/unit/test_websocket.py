# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The WebSocket client keeps to RFC 6455, and holds the server to it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import socket
import threading

import pytest
from ansible_collections.flux.burst.plugins.module_utils._websocket import (
    Frames,
    NetworkError,
    ProtocolError,
    Refused,
    WebSocket,
    add_frame,
    dial,
    mask,
    proxy_of,
)
from hypothesis import given
from hypothesis import strategies as st


def masked(data: bytes, key: bytes) -> bytes:
    """Return data under a key, or what was under it."""
    made = bytearray(data)
    mask(made, 0, key)
    return bytes(made)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4), st.binary(max_size=9))
def test_a_mask_is_the_key_over_and_over(data: bytes, key: bytes, before: bytes) -> None:
    made = bytearray(before + data)
    mask(made, len(before), key)
    wanted = bytes(byte ^ other for byte, other in zip(data, itertools.cycle(key), strict=False))
    assert made == before + wanted


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x80"),
        (125, b"\x82\xfd"),
        (126, b"\x82\xfe\x00\x7e"),
        (65535, b"\x82\xfe\xff\xff"),
        (65536, b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_frame_says_its_size_in_the_shortest_way_and_is_masked(size: int, head: bytes) -> None:
    data = bytes(size)
    made = bytearray(b"before")
    add_frame(made, 2, data)
    made = made.removeprefix(b"before")
    assert made.startswith(head)
    key, rest = made[len(head) : len(head) + 4], made[len(head) + 4 :]
    assert masked(rest, key) == data
    assert len(rest) == size


def server_frame(opcode: int, data: bytes, final: bool = True) -> bytes:
    """Return a frame as a server sends it."""
    size = len(data)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes((opcode | (0x80 if final else 0),)) + length + data


def fed(frames: Frames, data: bytes) -> list[bytes]:
    """Return the messages that are whole after some more bytes."""
    got = []
    while data:
        with frames.room() as room:
            count = min(len(room), len(data))
            room[:count] = data[:count]
        frames.end += count
        data = data[count:]
        got += [bytes(message) for message in frames.messages()]
    return got


@given(st.lists(st.binary(max_size=200), max_size=20), st.data())
def test_messages_come_whole_however_the_bytes_are_cut(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(server_frame(2, message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    frames, got = Frames(), []
    for start, end in itertools.pairwise([0, *cuts, len(stream)]):
        got += fed(frames, stream[start:end])
    assert got == messages


def test_more_than_the_buffer_holds_goes_through_it() -> None:
    messages = [bytes((number % 256,)) * 16390 for number in range(100)]
    assert fed(Frames(), b"".join(server_frame(2, it) for it in messages)) == messages


def test_a_message_in_parts_is_one_though_a_ping_comes_between() -> None:
    frames = Frames()
    parts = [
        server_frame(2, b"one ", False),
        server_frame(9, b"?"),
        server_frame(0, b"two ", False),
    ]
    assert fed(frames, b"".join(parts)) == []
    assert frames.ping == b"?"
    assert fed(frames, server_frame(0, b"three") + server_frame(2, b"!")) == [
        b"one two three",
        b"!",
    ]


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1005), (b"\x03\xe8", 1000), (b"\x0f\xa3why not", 4003)]
)
def test_nothing_counts_after_a_close(payload: bytes, code: int) -> None:
    frames = Frames()
    rest = server_frame(8, payload) + server_frame(2, b"late")
    assert fed(frames, server_frame(2, b"before") + rest) == [b"before"]
    assert frames.close_code == code


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(b"\xc2\x00", id="a reserved bit"),
        pytest.param(b"\x83\x00", id="an unknown type"),
        pytest.param(b"\x82\x81", id="masked"),
        pytest.param(b"\x81\x01a", id="text"),
        pytest.param(b"\x80\x01a", id="a part of nothing"),
        pytest.param(server_frame(2, b"a", False) + server_frame(2, b"b"), id="two at once"),
        pytest.param(b"\x89\x7e\x00\x7e", id="a long ping"),
        pytest.param(b"\x09\x00", id="a ping in parts"),
        pytest.param(b"\x88\x01\x03", id="half a close code"),
        pytest.param(b"\x82\x7e\x80\x01", id="too large"),
        pytest.param(b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00", id="far too large"),
        pytest.param(server_frame(2, bytes(20000), False) * 2, id="too large in parts, no second"),
        pytest.param(
            server_frame(2, bytes(20000), False) + server_frame(0, bytes(20000)),
            id="too large in parts",
        ),
    ],
)
def test_a_server_that_breaks_the_rules_is_told(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        fed(Frames(), wrong)


@pytest.fixture
def pair() -> tuple[WebSocket, socket.socket]:
    """A WebSocket and the server's end of its connection."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    return WebSocket(ours), theirs


def test_only_the_last_ping_is_answered(pair: tuple[WebSocket, socket.socket]) -> None:
    link, theirs = pair
    theirs.sendall(server_frame(9, b"one") + server_frame(9, b"two"))
    assert link.read()
    assert list(link.messages()) == []
    assert link.flush()
    answer = theirs.recv(100)
    assert answer[:2] == b"\x8a\x83"
    assert masked(answer[6:], answer[2:6]) == b"two"
    assert not link.read()


def test_what_a_connection_does_not_take_is_sent_later(
    pair: tuple[WebSocket, socket.socket],
) -> None:
    link, theirs = pair
    message = bytes(range(256)) * 60
    sent = 0
    while not link.blocked:
        link.send(message)
        sent += 1
    got = bytearray()
    while len(got) < sent * (len(message) + 8):
        got += theirs.recv(1 << 16)
        link.flush()
    for at in range(0, len(got), len(message) + 8):
        assert got[at : at + 4] == b"\x82\xfe" + len(message).to_bytes(2, "big")
        assert (
            masked(bytes(got[at + 8 : at + 8 + len(message)]), bytes(got[at + 4 : at + 8]))
            == message
        )


def test_a_dropped_connection_is_told(pair: tuple[WebSocket, socket.socket]) -> None:
    link, theirs = pair
    theirs.close()
    with pytest.raises(NetworkError, match="the connection dropped"):
        link.read()


def answering(answer: str, repeat: int = 1) -> str:
    """Give one client an answer, in which ACCEPT is what its key asks for; return the URL."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _address = server.accept()
        # A client that was told enough hangs up.
        with server, client, contextlib.suppress(ConnectionError):
            head = client.recv(1 << 16).decode()
            key = head.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
            digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
            told = answer.replace("ACCEPT", base64.b64encode(digest).decode())
            for _unused in range(repeat):
                client.sendall(told.encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass

    threading.Thread(target=serve, daemon=True).start()
    return f"ws://127.0.0.1:{server.getsockname()[1]}/path?query"


SWITCHING = (
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    "sec-websocket-accept: ACCEPT\r\n"
)


def test_a_server_that_answers_our_key_is_accepted() -> None:
    link = dial(answering(f"{SWITCHING}\r\n"), {}, "relay", None, 5)
    link.drop()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (
            SWITCHING.replace("ACCEPT", "c29tZXRoaW5nIGVsc2U="),
            "an answer that is not to our handsh",
        ),
        (SWITCHING + "Sec-WebSocket-Protocol: other\r\n", "subprotocol 'other'"),
        (SWITCHING + "Sec-WebSocket-Extensions: permessage-deflate\r\n", "an extension that was"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "an answer that is not HTTP/1.1"),
    ],
)
def test_another_answer_is_told(answer: str, found: str) -> None:
    with pytest.raises(ProtocolError, match=found):
        dial(answering(f"{answer}\r\n"), {}, "relay", None, 5)


def test_a_status_is_told() -> None:
    with pytest.raises(Refused) as caught:
        dial(answering("HTTP/1.1 403 Forbidden\r\n\r\n"), {}, "relay", None, 5)
    assert caught.value.status == 403


def test_an_answer_without_end_is_not_kept() -> None:
    with pytest.raises(ProtocolError, match="an answer of more than 65536 bytes"):
        dial(answering("HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 100, 200), {}, "relay", None, 5)


def test_a_server_that_hangs_up_is_told() -> None:
    with pytest.raises(NetworkError, match="a connection that dropped before an answer"):
        dial(answering("HTTP/1.1 101"), {}, "relay", None, 5)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        ({"https_proxy": "p:3128", "HTTPS_PROXY": "http://q"}, "http://p:3128"),
        ({"HTTP_PROXY": "http://p"}, ""),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}, ""),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "example, relay.cloud.example"}, ""),
        ({"HTTPS_PROXY": "http://p", "no_proxy": ".cloud.example"}, ""),
        ({"HTTPS_PROXY": "http://p", "no_proxy": "*.cloud.example"}, ""),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "cloud.example:443"}, ""),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "cloud.example:8443"}, "http://p"),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "oud.example,"}, "http://p"),
        ({"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, "http://p"),
    ],
)
def test_the_environment_names_the_proxy(environment: dict[str, str], proxy: str) -> None:
    assert proxy_of(True, "relay.cloud.example", 443, environment) == proxy


@pytest.mark.parametrize(("host", "proxy"), [("10.1.2.3", ""), ("11.1.2.3", "http://p")])
def test_networks_can_be_without_proxy(host: str, proxy: str) -> None:
    environment = {"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}
    assert proxy_of(True, host, 443, environment) == proxy


def test_a_proxy_of_another_kind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://p:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(NetworkError, match=r"a proxy of type socks5, and only http:// can be used"):
        dial("wss://relay", {}, "relay", None, 5)
