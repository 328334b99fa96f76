# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a relay sends that does not keep to its protocol, or to WebSocket's, or to HTTP's."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _iap_tunnel
from ansible_collections.flux.burst.plugins.module_utils._iap_tunnel import (
    Stream,
    Target,
    Tunnel,
    TunnelError,
)
from ansible_collections.flux.burst.plugins.module_utils._websocket import (
    ACCEPT,
    Frames,
    WebSocketError,
    dial,
)
from fuzzing import fuzzed, survives
from hypothesis import strategies as st

SIZES = st.sampled_from([0, 1, 125, 126, 127, 2**15, 2**15 + 1, 2**16, 2**31, 2**63, 2**64 - 1])
SID = struct.pack(">HI", 1, 3) + b"sid"


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message of the relay's, or nearly one."""
    data = draw(st.binary(max_size=40))
    tag = draw(st.sampled_from([1, 2, 4, 7, 7, 4, 4, 0, 3, 65535]))
    kind = draw(st.sampled_from(["sized", "sized", "counted", "lying", "short", "first"]))
    if kind == "first":
        return SID
    if kind == "sized":
        return struct.pack(">HI", tag, len(data)) + data
    if kind == "counted":
        return struct.pack(">HQ", tag, draw(SIZES | st.integers(0, 200)))
    if kind == "lying":
        return struct.pack(">HI", tag, draw(SIZES) & 0xFFFFFFFF) + data
    return struct.pack(">HI", tag, 3)[: draw(st.integers(0, 6))]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A server's frame, or nearly one."""
    payload = draw(messages() | st.binary(max_size=130))
    first = draw(
        st.sampled_from([0x82, 0x82, 0x82, 0x02, 0x00, 0x80, 0x81, 0x88, 0x89, 0x8A, 0x08])
    )
    if draw(st.integers(0, 15)) == 0:
        first = draw(st.integers(0, 255))
    size, mask = len(payload), draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0x80]))
    if draw(st.integers(0, 9)) == 0:
        size = draw(SIZES)
    if size < 126:
        length = bytes((size | mask,))
    elif size < 1 << 16:
        length = bytes((126 | mask,)) + size.to_bytes(2, "big")
    else:
        length = bytes((127 | mask,)) + size.to_bytes(8, "big")
    whole = bytes((first,)) + length + payload
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 15)) == 0 else whole


def fed(data: bytes, cuts: Sequence[int]) -> None:
    """Give bytes to a tunnel's two layers in pieces, as a connection would."""
    taken, stream = Frames(), Stream()
    stream.unacked += b"x" * 100
    stream.sent = 100
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        piece = data[start:end]
        with taken.room() as room:
            room[: len(piece)] = piece
        taken.end += len(piece)
        for message in taken.messages():
            stream.receive(message)
            assert 0 <= stream.acked <= stream.sent
    assert taken.end - taken.begin <= len(data)


@fuzzed(0.16, parts=st.lists(frames(), max_size=12), cuts=st.lists(st.integers(0, 999), max_size=5))
def test_frames(parts: list[bytes], cuts: list[int]) -> None:
    survives(lambda: fed(b"".join(parts), cuts), WebSocketError, TunnelError)


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Answer every request with a handshake, where one is asked for by KEY, and what follows; then hang up."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)

    def serve() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                asked = b""
                while b"\r\n\r\n" not in asked:
                    more = connection.recv(65536)
                    if not more:
                        break
                    asked += more
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", asked)
                accept = hashlib.sha1((key[1] if key else b"") + ACCEPT, usedforsecurity=False)
                connection.sendall(answer.replace(b"KEY", base64.b64encode(accept.digest())))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: relay.tunnel.cloudproxy.app\r\n\r\n"
)
WORDS = st.sampled_from(
    [
        *(
            b"101",
            b"200",
            b"\xb2\xb2\xb2",
            b"",
            b"-01",
            b"403",
            b"HTTP/1.1",
            b"HTTP/2",
            b"\r\n",
            b":",
        ),
        *(b"Sec-WebSocket-Extensions: x\r\n", b"\x1b[2J", b"\xff\xfe", b"KEY", b"\r\n\r\n", b"\0"),
    ]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """An answer to the handshake, with a piece of it changed."""
    start = draw(st.integers(0, len(HEAD)))
    end = min(start + draw(st.integers(0, 30)), len(HEAD))
    return HEAD[:start] + draw(WORDS | st.binary(max_size=8)) + HEAD[end:]


@fuzzed(0.02, head=heads())
def test_answers_to_a_handshake(head: bytes) -> None:
    with server(head) as port:
        url = f"ws://127.0.0.1:{port}/v4/connect"
        link = survives(lambda: dial(url, {}, _iap_tunnel.SUBPROTOCOL, None, 10), WebSocketError)
        if link:
            link.drop()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no tunnel wait before it tries again, nor for what does not come."""
    monkeypatch.setattr(_iap_tunnel, "BACKOFF", (0.0, 0.0))
    monkeypatch.setattr(_iap_tunnel, "CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr(_iap_tunnel, "OPEN_TIMEOUT", 5.0)


@fuzzed(0.02, parts=st.lists(frames(), max_size=8), sent=st.binary(max_size=50))
def test_tunnels(parts: list[bytes], sent: bytes) -> None:
    near, far = socket.socketpair()
    with near, far, server(HEAD + b"".join(parts)) as port:
        far.sendall(sent)
        far.shutdown(socket.SHUT_WR)
        target = Target("p", "z", "i", 22, f"ws://127.0.0.1:{port}")

        def carry() -> Any:
            return Tunnel(target, lambda _rejected: "token").run(near.fileno(), near.fileno())

        survives(carry, TunnelError)
