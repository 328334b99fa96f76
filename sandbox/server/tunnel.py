# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One TCP connection through the relay: it outlives the WebSocket that carries it for a while.

The messages are binary and big-endian: a tag of 16 bits, then what the tag says.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Callable

from aiohttp import WSMsgType, web

CONNECTED, RECONNECTED, DATA, ACK = 0x0001, 0x0002, 0x0004, 0x0007

NORMAL, NO_STATUS = 1000, 1005
UNKNOWN_SESSION = 4001
NO_BACKEND = 4003
BAD_ACK = 4005
INVALID_ACK = 4006
INVALID_OPCODE = 4007
INVALID_TAG = 4008
WRITE_FAILED = 4009
READ_FAILED = 4010
INVALID_DATA = 4013
NOT_AUTHORIZED = 4033
LOOKUP_FAILED = 4047

MAX_DATA = 16384
"""Bytes of data in one message at most."""
ACK_AFTER = 32768
"""Received bytes that are acknowledged at once when there are more of them."""
IDLE = 2.0
"""Seconds after which fewer are acknowledged too."""
BUFFER = 1 << 20
"""Bytes kept for the client that it has not acknowledged; then the backend is not read."""


class Fatal(Exception):
    """What ends the session: close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


def data_message(data: bytes) -> bytes:
    """Return a data message."""
    return struct.pack(">HI", DATA, len(data)) + data


def number_message(tag: int, number: int) -> bytes:
    """Return an ACK or RECONNECTED message: a number of bytes received so far."""
    return struct.pack(">HQ", tag, number)


class Tunnel:
    """A session. alive says whether its machine is still there."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        alive: Callable[[], bool],
    ) -> None:
        self.sid = secrets.token_urlsafe(48).encode()
        self.alive = alive
        self.ended = False
        self.using = asyncio.Lock()
        self.transport: asyncio.BaseTransport | None = None
        self._reader, self._writer = reader, writer
        self._unacked = bytearray()
        self._base = self._sent = 0  # offsets in what the backend sends: acknowledged, sent
        self._received = self._acked = 0  # offsets in what the client sends
        self._eof = False
        self._wake, self._space = asyncio.Event(), asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    def connected(self) -> bytes:
        """Return the first message of a new session."""
        return struct.pack(">HI", CONNECTED, len(self.sid)) + self.sid

    def resumed(self, ack: int) -> bytes:
        """Go back to what the client has, and return the first message. Raises Fatal."""
        self._acknowledge(ack)
        self._sent = ack
        self._acked = self._received
        return number_message(RECONNECTED, self._received)

    def end(self) -> None:
        """Close the connection to the machine."""
        self.ended = True
        self._reading.cancel()
        self._writer.close()

    async def carry(self, socket: web.WebSocketResponse) -> None:
        """Carry data over a WebSocket until it is gone; ended says whether the session is, too."""
        self._wake.set()
        tasks = [asyncio.ensure_future(part(socket)) for part in (self._send, self._receive)]
        try:
            done, _unused = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            for task in done:
                task.result()
        except Fatal as fatal:
            # Nothing else receives now: this sends the close and reads on until the client closes.
            self.ended = True
            await socket.close(code=fatal.code, message=fatal.reason.encode())
        except ConnectionError:
            return
        # A client that closes in order is done; one that vanishes may come back.
        if socket.close_code in (NORMAL, NO_STATUS):
            self.ended = True

    async def _read(self) -> None:
        while not self._eof:
            while len(self._unacked) >= BUFFER:
                self._space.clear()
                await self._space.wait()
            try:
                data = await self._reader.read(1 << 16)
            except OSError:
                data = b""
            self._eof = not data
            self._unacked += data
            self._wake.set()

    async def _send(self, socket: web.WebSocketResponse) -> None:
        while True:
            await self._send_what_is_there(socket)
            try:
                await asyncio.wait_for(self._wake.wait(), IDLE)
            except TimeoutError:
                await self._acknowledge_received(socket, 0)
                if not self.alive():
                    raise Fatal(READ_FAILED, "the instance is gone") from None

    async def _send_what_is_there(self, socket: web.WebSocketResponse) -> None:
        self._wake.clear()
        while self._sent < self._base + len(self._unacked):
            start = self._sent - self._base
            data = bytes(self._unacked[start : start + MAX_DATA])
            self._sent += len(data)
            await socket.send_bytes(data_message(data))
        if self._eof:
            raise Fatal(NORMAL, "")

    async def _receive(self, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            if message.type != WSMsgType.BINARY:
                raise Fatal(INVALID_OPCODE, "wanted binary messages")
            tag, rest = int.from_bytes(message.data[:2], "big"), message.data[2:]
            if tag == DATA:
                await self._deliver(rest)
                await self._acknowledge_received(socket, ACK_AFTER)
            elif tag == ACK and len(rest) == 8:
                self._acknowledge(int.from_bytes(rest, "big"))
            else:
                raise Fatal(INVALID_TAG, f"tag {tag:#06x} with {len(rest)} bytes is no message")

    async def _deliver(self, rest: bytes) -> None:
        length, data = int.from_bytes(rest[:4], "big"), rest[4:]
        if len(rest) < 4 or length != len(data) or length > MAX_DATA:
            raise Fatal(INVALID_DATA, f"a data message says {length} bytes and has {len(data)}")
        try:
            self._writer.write(data)
            # A connection that breaks while the instance is slow must not make the client send it again.
            self._received += length
            await self._writer.drain()
        except OSError:
            raise Fatal(WRITE_FAILED, "the instance does not take data any more") from None

    async def _acknowledge_received(self, socket: web.WebSocketResponse, over: int) -> None:
        if self._received - self._acked > over:
            self._acked = self._received
            await socket.send_bytes(number_message(ACK, self._acked))

    def _acknowledge(self, ack: int) -> None:
        if ack < self._base:
            raise Fatal(BAD_ACK, f"ack {ack} after {self._base}")
        if ack > self._sent:
            raise Fatal(INVALID_ACK, f"ack {ack}, but {self._sent} bytes were sent")
        del self._unacked[: ack - self._base]
        self._base = ack
        self._space.set()
