# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tunnel survives a relay that drops it, and ends with one line when it cannot. The relay here does as it is told."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import WSMessage, WSMsgType, web
from aiohttp.test_utils import TestServer
from ansible_collections.flux.burst.plugins.module_utils import _iap_tunnel
from ansible_collections.flux.burst.plugins.module_utils._iap_tunnel import (
    Target,
    Tunnel,
    TunnelError,
    data_message,
)

Part = int | Callable[["Relay", web.WebSocketResponse], Awaitable[None]]
"""What a relay does with a connection; a number is the HTTP status with which it refuses one."""


@dataclass
class Relay:
    """Plays one part for each connection, and notes what it was asked and sent."""

    parts: list[Part]
    port: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    received: bytes = b""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            (request.path, request.query.get("ack", ""), request.headers["Authorization"])
        )
        assert request.headers["Origin"] == "bot:iap-tunneler"
        part = self.parts.pop(0) if self.parts else 403
        if isinstance(part, int):
            return web.Response(status=part)
        socket = web.WebSocketResponse(protocols=("relay.tunnel.cloudproxy.app",))
        await socket.prepare(request)
        await part(self, socket)
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


async def unanswered(socket: web.WebSocketResponse) -> WSMessage:
    """Return the next message; a close gets no answer, as it would from receive()."""
    assert socket._reader is not None
    return await asyncio.wait_for(socket._reader.read(), 5)


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
        for frame in messages(then):
            await socket.send_bytes(frame)
        await socket.close(code=code)

    return part


def messages(data: bytes) -> list[bytes]:
    return [data_message(data[at : at + 16384]) for at in range(0, len(data), 16384)]


@pytest.fixture
async def relay(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Relay]:
    monkeypatch.setattr(_iap_tunnel, "BACKOFF", (0.01, 0.01))
    made = Relay([])
    app = web.Application()
    app.router.add_get("/v4/connect", made.serve)
    app.router.add_get("/v4/reconnect", made.serve)
    async with TestServer(app) as server:
        assert server.port is not None
        made.port = server.port
        yield made


class Ends:
    """The other ends of a tunnel's source and sink, which is run in a thread."""

    def __init__(self, tunnel: Tunnel) -> None:
        source, self.feed = os.pipe()
        self.taps, sink = os.pipe()
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        arguments = (tunnel, source, sink)
        threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(self, tunnel: Tunnel, source: int, sink: int) -> None:
        error = None
        try:
            tunnel.run(source, sink)
        except BaseException as caught:
            error = caught
        os.close(source)
        os.close(sink)
        self.loop.call_soon_threadsafe(self._tell, error)

    def _tell(self, error: BaseException | None) -> None:
        if self.done.cancelled():
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)

    def write(self, data: bytes, end: bool) -> None:
        """Give data to the source, in a thread of its own; a tunnel that failed takes no more."""

        def feed() -> None:
            with contextlib.suppress(OSError), os.fdopen(self.feed, "wb", 0, closefd=False) as file:
                for at in range(0, len(data), 1 << 16):
                    file.write(data[at : at + (1 << 16)])
            if end:
                os.close(self.feed)

        threading.Thread(target=feed, daemon=True).start()

    async def read(self, upto: int = -1) -> bytes:
        """Return what comes out of the sink, until its end or so many bytes."""
        with os.fdopen(self.taps, "rb", closefd=False) as file:
            return await asyncio.wait_for(asyncio.to_thread(file.read, upto), 10)


def tunnel_to(relay: Relay) -> Tunnel:
    tokens = iter(["first", "second", "third", "fourth", "fifth"])
    given: list[str] = []

    def token(rejected: str | None) -> str:
        if not given or rejected == given[-1]:
            given.append(next(tokens))
        return given[-1]

    return Tunnel(Target("p", "z", "b-001", 22, f"ws://127.0.0.1:{relay.port}"), token)


async def carry(relay: Relay, *parts: Part, data: bytes = b"hello", end: bool = False) -> bytes:
    """Send data through a relay that plays the given parts; return what came back. As ssh, end when the target ends."""
    relay.parts = list(parts)
    ends = Ends(tunnel_to(relay))
    ends.write(data, end)
    got = await ends.read()
    if not end:
        os.close(ends.feed)
    await asyncio.wait_for(ends.done, 10)
    os.close(ends.taps)
    return got


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
        await socket.send_bytes(messages(b"12345")[0])
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
    monkeypatch.setattr(_iap_tunnel, "ACK_IDLE", 100.0)
    acks: list[int] = []

    async def pour(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        for frame in messages(bytes(100_000)):
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
    monkeypatch.setattr(_iap_tunnel, "ACK_IDLE", 0.05)
    heard: list[bytes] = []

    async def speak(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await relay.hear(socket, 5)
        await socket.send_bytes(messages(b"abc")[0])
        heard.append((await socket.receive(5)).data)
        await socket.close()

    assert await carry(relay, speak) == b"abc"
    assert heard == [struct.pack(">HQ", 7, 3)]


async def test_what_came_with_the_handshake_is_not_lost(relay: Relay) -> None:
    """A relay need not wait: its first messages may come in the packet of its answer."""
    key = asyncio.get_running_loop().create_future()

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key.set_result(re.search(r"Sec-WebSocket-Key: (\S+)", head)[1])  # type: ignore[index]
        digest = hashlib.sha1(f"{key.result()}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode())
        accept = base64.b64encode(digest.digest()).decode()
        sid, data = struct.pack(">HI", 1, 3) + b"sid", data_message(b"at once")
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            + b"".join(bytes((0x82, len(it))) + it for it in (sid, data))
            + b"\x88\x02\x03\xe8"
        )
        await reader.read()
        writer.close()

    async with await asyncio.start_server(eager, "127.0.0.1", 0) as server:
        relay.port = server.sockets[0].getsockname()[1]
        assert await carry(relay) == b"at once"


async def test_a_peer_that_writes_and_does_not_read_is_read_on(relay: Relay) -> None:
    """An acknowledgement that waits behind data for such a peer would end in two that wait for each other."""
    much = bytes(8_000_000)

    async def pour(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        assert socket._req is not None and socket._req.transport is not None
        socket._req.transport.pause_reading()  # type: ignore[attr-defined]
        for message in messages(much):
            await asyncio.wait_for(socket.send_bytes(message), 5)
        socket._req.transport.resume_reading()  # type: ignore[attr-defined]
        await relay.hear(socket, 400_000)
        await socket.close()

    assert await carry(relay, pour, data=much) == much


async def test_a_reader_that_waits_holds_the_relay_back_and_takes_little_memory(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap_tunnel, "ACK_IDLE", 0.01)
    window, much = 1_000_000, bytes(3_000_000)
    told, most = 0, 0

    async def pour(relay: Relay, socket: web.WebSocketResponse) -> None:
        nonlocal told, most
        await greet(socket)
        sent = 0
        while sent < len(much):
            if sent + 16384 - told > window:
                message = (await socket.receive(5)).data
                if message[:2] == b"\x00\x07":
                    told = int.from_bytes(message[2:], "big")
                    reading.set()
                continue
            part = much[sent : sent + 16384]
            await socket.send_bytes(data_message(part))
            sent += len(part)
            if sent + 16384 - told > window and not reading.is_set():
                await asyncio.sleep(0.2)
                most = len(tunnel.stream.unacked) + tunnel.stream.received - tunnel.stream.delivered
                stalled.set()
        await socket.close()

    reading, stalled = asyncio.Event(), asyncio.Event()
    relay.parts = [pour]
    tunnel = tunnel_to(relay)
    ends = Ends(tunnel)
    await asyncio.wait_for(stalled.wait(), 5)
    here = tunnel.stream.received - tunnel.stream.delivered
    assert here > window - _iap_tunnel.PIPE - 100_000, "it is all here"
    assert told <= _iap_tunnel.PIPE, "and what the reader did not take is not acknowledged"
    assert await ends.read() == much
    os.close(ends.feed)
    await asyncio.wait_for(ends.done, 5)
    assert most <= window


async def test_a_relay_that_sends_more_than_is_taken_is_not_read(relay: Relay) -> None:
    sent = 0

    async def flood(relay: Relay, socket: web.WebSocketResponse) -> None:
        nonlocal sent
        await greet(socket)
        while True:
            await socket.send_bytes(data_message(bytes(16384)))
            sent += 16384

    relay.parts = [flood]
    tunnel = tunnel_to(relay)
    ends = Ends(tunnel)
    assert await ends.read(1)
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.2)
    assert (
        tunnel.stream.received - tunnel.stream.delivered
        <= _iap_tunnel.HOLD + 2 * _iap_tunnel.AT_ONCE
    )
    os.close(ends.taps)
    os.close(ends.feed)
    await asyncio.wait_for(ends.done, 5)


async def test_a_target_that_takes_nothing_stops_the_source(relay: Relay) -> None:
    async def deaf(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        assert socket._req is not None and socket._req.transport is not None
        socket._req.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()
        socket._req.transport.resume_reading()  # type: ignore[attr-defined]

    over = asyncio.Event()
    relay.parts = [deaf]
    tunnel = tunnel_to(relay)
    ends = Ends(tunnel)
    ends.write(bytes(50_000_000), False)
    before = -1
    while before != len(tunnel.stream.unacked):
        before = len(tunnel.stream.unacked)
        await asyncio.sleep(0.2)
    assert 0 < before <= _iap_tunnel.KEEP + _iap_tunnel.AT_ONCE
    over.set()
    assert await ends.read() == b""
    os.close(ends.feed)


async def test_a_target_that_said_all_is_still_told_all(relay: Relay) -> None:
    """Half a connection: the relay closes in order at its backend's end, and reads until we close, too."""
    heard = b""

    async def half(relay: Relay, socket: web.WebSocketResponse) -> None:
        nonlocal heard
        await greet(socket)
        await socket.send_bytes(data_message(b"all"))
        assert socket._writer is not None
        await socket._writer.close(1000)
        while True:
            message = await unanswered(socket)
            if message.type == WSMsgType.CLOSE:
                over.set()
                return
            heard += message.data[6:]

    over = asyncio.Event()
    relay.parts = [half]
    ends = Ends(tunnel_to(relay))
    assert await ends.read() == b"all", "the reader sees the end"
    ends.write(b"x" * 3_000_000, True)
    await asyncio.wait_for(ends.done, 5)
    await asyncio.wait_for(over.wait(), 5)
    assert heard == b"x" * 3_000_000


async def test_what_comes_after_our_close_is_delivered_until_the_relay_closes(relay: Relay) -> None:
    async def late(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        assert socket._writer is not None
        while (await unanswered(socket)).type != WSMsgType.CLOSE:
            pass
        await asyncio.sleep(0.1)
        await socket.send_bytes(data_message(b"answer"))
        await socket._writer.close(1000)

    assert await carry(relay, late, end=True) == b"answer"


async def test_a_drop_after_our_close_resends_what_was_not_acknowledged(relay: Relay) -> None:
    assert await carry(relay, drop_after(5), resume(2, b""), data=b"hello", end=True) == b""
    assert relay.received == b"hello"


async def test_a_relay_that_forgot_us_after_our_close_has_all(relay: Relay) -> None:

    async def drop_after_close(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        while (await unanswered(socket)).type != WSMsgType.CLOSE:
            pass
        assert socket._req is not None and socket._req.transport is not None
        socket._req.transport.abort()  # type: ignore[attr-defined]

    assert await carry(relay, drop_after_close, close(4001, first=False), end=True) == b""


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        (
            4003,
            3,
            r"port 22 of b-001 \(project p, zone z\), found the relay's close code 4003: the mac",
        ),
        (4001, 5, "does not know the connection any more"),
        (4010, 3, "does not send data any more"),
        (4033, 4, r"iap.tunnelInstances.accessViaIAP \(in roles/iap.tunnelResourceAccessor\)"),
        (4047, 3, "no such machine"),
        (4999, 6, "close code 4999"),
    ],
)
async def test_a_close_code_is_one_line_that_says_what_to_do(
    relay: Relay, code: int, exit_code: int, said: str
) -> None:
    for first in (True, False):
        with pytest.raises(TunnelError, match=said) as caught:
            await carry(relay, close(code, first=first))
        assert caught.value.code == exit_code
        assert "\n" not in str(caught.value)


async def test_a_relay_that_closes_before_it_connects_is_told(relay: Relay) -> None:
    with pytest.raises(TunnelError, match="closing with code 1011 before it connected"):
        await carry(relay, close(1011, first=False))


@pytest.mark.parametrize(
    ("status", "exit_code", "said"),
    [
        (403, 4, "found HTTP 403: the credentials need iap.tunnelInstances.accessViaIAP"),
        (401, 4, "found HTTP 401: Google does not take the access token: get new credentials"),
        (404, 6, "found HTTP 404: check the endpoint"),
        (503, 5, "found HTTP 503: check the endpoint and the network"),
    ],
)
async def test_a_relay_that_refuses_is_told(
    relay: Relay, status: int, exit_code: int, said: str
) -> None:
    for begin in ([], [drop_after(0)]):
        with pytest.raises(TunnelError, match=said) as caught:
            await carry(relay, *begin, *[status] * 4)
        assert caught.value.code == exit_code


async def test_a_token_that_is_refused_is_fetched_anew_once(relay: Relay) -> None:
    """Both where a connection begins and where one is resumed."""
    assert await carry(relay, 401, drop_after(5), 401, resume(0, b"fine")) == b"fine"
    assert [token for _path, _ack, token in relay.asked] == [
        f"Bearer {name}" for name in ("first", "second", "second", "third")
    ]


async def test_a_relay_that_is_busy_is_asked_again(relay: Relay) -> None:
    assert await carry(relay, 503, 429, drop_after(5), 502, resume(0, b"fine")) == b"fine"
    assert {token for _path, _ack, token in relay.asked} == {"Bearer first"}


async def test_a_relay_that_only_drops_is_given_up(relay: Relay) -> None:
    parts = [drop_after(0), *[close(1011, first=False)] * 3]
    with pytest.raises(
        TunnelError, match=r"wanted .* resumed, found it dropped 3 times in a row"
    ) as caught:
        await carry(relay, *parts)
    assert caught.value.code == 5


async def test_a_relay_that_does_not_answer_is_given_up(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap_tunnel, "OPEN_TIMEOUT", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        relay.port = server.sockets[0].getsockname()[1]
        with pytest.raises(TunnelError, match=r"found no answer within 0.1 s: check the endpoint"):
            await carry(relay)


async def test_a_tunnel_lives_longer_than_it_may_take_to_open(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap_tunnel, "OPEN_TIMEOUT", 0.2)

    async def slow(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await asyncio.sleep(0.5)
        await socket.send_bytes(messages(b"late")[0])
        await socket.close()

    assert await carry(relay, slow) == b"late"
    assert len(relay.asked) == 1


async def test_nothing_is_resumed_for_a_reader_that_is_gone(relay: Relay) -> None:
    async def pour(relay: Relay, socket: web.WebSocketResponse) -> None:
        await greet(socket)
        await socket.send_bytes(messages(b"much")[0])
        await socket.receive()

    relay.parts = [pour]
    ends = Ends(tunnel_to(relay))
    os.close(ends.taps)
    await asyncio.wait_for(ends.done, 5)
    assert [path for path, _unused, _unused in relay.asked] == ["/v4/connect"]


async def test_a_relay_that_breaks_the_rules_is_told(relay: Relay) -> None:
    async def early(relay: Relay, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(messages(b"early")[0])
        await socket.receive()

    with pytest.raises(TunnelError, match="out of place") as caught:
        await carry(relay, early)
    assert caught.value.code == 6


async def test_no_relay_is_told(relay: Relay) -> None:
    relay.port = 9
    with pytest.raises(
        TunnelError, match=r"through ws://127.0.0.1:9, found .*check the endpoint"
    ) as caught:
        await carry(relay)
    assert caught.value.code == 5


def test_a_missing_authority_is_told() -> None:
    target = Target("p", "z", "b-001", 22, "wss://127.0.0.1:9", "/nonexistent/ca.pem")
    with pytest.raises(TunnelError, match=r"CA certificates in /nonexistent/ca.pem") as caught:
        target.context()
    assert caught.value.code == 2
