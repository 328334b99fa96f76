# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel survives a relay that drops it, and ends with one line when it cannot. The relay here does as it is told."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import WSMessage, web
from aiohttp.test_utils import TestServer
from ansible_collections.flux.burst.plugins.module_utils import _iap
from ansible_collections.flux.burst.plugins.module_utils._iap import (
    Target,
    Tunnel,
    TunnelError,
    data_frames,
)

Part = Callable[["Relay", web.WebSocketResponse], Awaitable[None]]


@dataclass
class Relay:
    """Plays one part for each connection, and notes what it was asked and sent."""

    parts: list[Part]
    port: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    received: bytes = b""

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        self.asked.append(
            (request.path, request.query.get("ack", ""), request.headers["Authorization"])
        )
        assert request.headers["Origin"] == "bot:iap-tunneler"
        if not self.parts:
            raise web.HTTPForbidden
        socket = web.WebSocketResponse(protocols=("relay.tunnel.cloudproxy.app",))
        await socket.prepare(request)
        await self.parts.pop(0)(self, socket)
        return socket

    async def hear(self, socket: web.WebSocketResponse, count: int) -> None:
        """Take messages in until so many bytes of data have come."""
        while len(self.received) < count:
            message: WSMessage = await socket.receive(5)
            assert isinstance(message.data, bytes), message
            if message.data[:2] == b"\x00\x04":
                self.received += message.data[6:]


async def greet(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(struct.pack(">HI", 1, 3) + b"sid")


def close(code: int, *, first: bool = True) -> Part:
    async def part(relay: Relay, socket: web.WebSocketResponse) -> None:
        if first:
            await greet(socket)
        await socket.close(code=code)

    return part


def drop_after(count: int) -> Part:
    """Greet, take so many bytes, acknowledge none and vanish."""

    async def part(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await relay.hear(socket, count)
        assert socket._req is not None and socket._req.transport is not None
        socket._req.transport.abort()  # type: ignore[attr-defined]

    return part


def resume(known: int, then: bytes, *, code: int = 1000) -> Part:
    """Say how many bytes had come, take what is sent again, answer and close."""

    async def part(relay: Relay, socket: web.WebSocketResponse) -> None:
        relay.received = relay.received[:known]
        await socket.send_bytes(struct.pack(">HQ", 2, known))
        await relay.hear(socket, known + 1)
        for frame in data_frames(then):
            await socket.send_bytes(frame)
        await socket.close(code=code)

    return part


class Sink:
    """What came out of the tunnel."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        await asyncio.sleep(0)


@pytest.fixture
async def relay(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    monkeypatch.setattr(_iap, "BACKOFF", (0.01, 0.01))
    made = Relay([])
    app = web.Application()
    app.router.add_get("/v4/connect", made.serve)
    app.router.add_get("/v4/reconnect", made.serve)
    async with TestServer(app) as server:
        assert server.port is not None
        made.port = server.port
        yield made


async def carry(relay: Relay, *parts: Part, data: bytes = b"hello", end: bool = False) -> bytes:
    """Send data through a relay that plays the given parts; return what came back."""
    relay.parts = list(parts)
    tokens = iter(["first", "second", "third", "fourth", "fifth"])

    async def token() -> str:
        return next(tokens)

    reader, sink = asyncio.StreamReader(), Sink()
    reader.feed_data(data)
    if end:
        reader.feed_eof()
    endpoint = f"ws://127.0.0.1:{relay.port}"
    tunnel = Tunnel(Target("p", "z", "b-001", 22, endpoint), token)
    await asyncio.wait_for(tunnel.run(reader, sink), 10)
    return sink.data


async def test_a_dropped_tunnel_goes_on_with_what_was_not_acknowledged(relay: Relay) -> None:
    data = bytes(range(256)) * 200
    assert await carry(relay, drop_after(len(data)), resume(40_000, b"fine"), data=data) == b"fine"
    assert relay.received[:40_001] == data[:40_001]
    assert [path for path, _unused, _unused in relay.asked] == ["/v4/connect", "/v4/reconnect"]


async def test_a_relay_that_wants_a_new_token_gets_one(relay: Relay) -> None:
    assert await carry(relay, close(4004), resume(0, b"fine")) == b"fine"
    assert relay.asked == [
        ("/v4/connect", "", "Bearer first"),
        ("/v4/reconnect", "0", "Bearer second"),
    ]


async def test_what_came_before_a_drop_is_not_asked_for_again(relay: Relay) -> None:
    async def some(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await socket.send_bytes(data_frames(b"12345")[0])
        await socket.close(code=1011)

    assert await carry(relay, some, resume(0, b"678")) == b"12345678"
    assert relay.asked[1][:2] == ("/v4/reconnect", "5")


async def test_the_end_of_the_input_closes_after_all_was_sent(relay: Relay) -> None:
    async def listen(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await relay.hear(socket, 50_000)
        await socket.receive()
        assert socket.close_code == 1000

    data = bytes(50_000)
    await carry(relay, listen, data=data, end=True)
    assert relay.received == data


async def test_much_data_is_acknowledged_without_a_pause(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap, "ACK_IDLE", 100.0)
    acks: list[int] = []

    async def pour(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        for frame in data_frames(bytes(100_000)):
            await socket.send_bytes(frame)
        while not acks or acks[-1] < 60_000:
            message = await socket.receive(5)
            tag, count = message.data[:2], message.data[2:]
            if tag == b"\x00\x07":
                acks.append(int.from_bytes(count, "big"))
        await socket.close()

    assert len(await carry(relay, pour)) == 100_000
    assert acks == sorted(set(acks))


async def test_little_data_is_acknowledged_when_it_is_quiet(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap, "ACK_IDLE", 0.05)
    heard: list[bytes] = []

    async def speak(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await relay.hear(socket, 5)
        await socket.send_bytes(data_frames(b"abc")[0])
        heard.append((await socket.receive(5)).data)
        await socket.close()

    assert await carry(relay, speak) == b"abc"
    assert heard == [struct.pack(">HQ", 7, 3)]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            4003,
            r"port 22 of b-001 \(project p, zone z\), found the relay's close code 4003: the mac",
        ),
        (4010, "does not send data any more"),
        (4033, "iap.tunnelResourceAccessor"),
        (4047, "no such machine"),
        (4999, "close code 4999"),
    ],
)
async def test_a_close_code_is_one_line_that_says_what_to_do(
    relay: Relay, code: int, said: str
) -> None:
    for first in (True, False):
        with pytest.raises(TunnelError, match=said):
            await carry(relay, close(code, first=first))


async def test_a_relay_that_closes_before_it_connects_is_told(relay: Relay) -> None:
    with pytest.raises(TunnelError, match="closing with code 1011 before it connected"):
        await carry(relay, close(1011, first=False))


async def test_a_relay_that_refuses_is_told(relay: Relay) -> None:
    with pytest.raises(
        TunnelError, match=r"found HTTP 403: the credentials need iap.tunnelInstances.accessViaIAP"
    ):
        await carry(relay)


async def test_a_relay_that_only_drops_is_given_up(relay: Relay) -> None:
    parts = [drop_after(0), *[close(1011, first=False)] * 2]
    with pytest.raises(TunnelError, match=r"wanted .* resumed, found it dropped 3 times in a row"):
        await carry(relay, *parts)


async def test_a_relay_that_does_not_answer_is_given_up(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap, "OPEN_TIMEOUT", 0.1)

    async def token() -> str:
        return "t"

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tunnel = Tunnel(Target("p", "z", "b-001", 22, f"ws://127.0.0.1:{port}"), token)
        with pytest.raises(TunnelError, match=r"found no answer within 0.1 s: check the endpoint"):
            await asyncio.wait_for(tunnel.run(asyncio.StreamReader(), Sink()), 5)


async def test_a_tunnel_lives_longer_than_it_may_take_to_open(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap, "OPEN_TIMEOUT", 0.2)

    async def slow(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await asyncio.sleep(0.5)
        await socket.send_bytes(data_frames(b"late")[0])
        await socket.close()

    assert await carry(relay, slow) == b"late"
    assert len(relay.asked) == 1


async def test_nothing_is_resumed_for_a_reader_that_is_gone(relay: Relay) -> None:
    class Gone(Sink):
        async def drain(self) -> None:
            raise ConnectionResetError

    async def token() -> str:
        return "t"

    async def pour(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await socket.send_bytes(data_frames(b"much")[0])
        await socket.receive()

    relay.parts = [pour]
    tunnel = Tunnel(Target("p", "z", "b-001", 22, f"ws://127.0.0.1:{relay.port}"), token)
    await asyncio.wait_for(tunnel.run(asyncio.StreamReader(), Gone()), 5)
    assert [path for path, _unused, _unused in relay.asked] == ["/v4/connect"]


async def test_a_relay_that_breaks_the_rules_is_told(relay: Relay) -> None:
    async def early(relay: Relay, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(data_frames(b"early")[0])
        await socket.receive()

    with pytest.raises(TunnelError, match="out of place"):
        await carry(relay, early)


async def test_no_relay_is_told() -> None:
    async def token() -> str:
        return "t"

    tunnel = Tunnel(Target("p", "z", "b-001", 22, "ws://127.0.0.1:9"), token)
    with pytest.raises(TunnelError, match=r"through ws://127.0.0.1:9, found .*check the endpoint"):
        await tunnel.run(asyncio.StreamReader(), Sink())


async def test_a_missing_authority_is_told(relay: Relay) -> None:
    async def token() -> str:
        return "t"

    target = Target("p", "z", "b-001", 22, "wss://127.0.0.1:9", "/nonexistent/ca.pem")
    with pytest.raises(TunnelError, match=r"CA certificates in /nonexistent/ca.pem"):
        await Tunnel(target, token).run(asyncio.StreamReader(), Sink())
