# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's relay with a line to the client that fails: cut, closed for many reasons, slow, or busy."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from aiohttp import WSMessage, web

from sandbox.server.oauth import Tokens
from sandbox.server.relay import Relay
from sandbox.server.state import Cloud

KINDS = ("cut", "cut late", "close", "busy", "delay", "delay")
CODES = (4004, 4004, 1001, 1011, 1012)
LONGEST = 0.03
"""Seconds of a delay at most."""


class FaultRelay(Relay):
    """Lets something happen each time that so many bytes, on average, have gone over the line, until enough has."""

    def __init__(
        self, cloud: Cloud, tokens: Tokens, chance: random.Random, every: int, enough: int
    ) -> None:
        super().__init__(cloud, tokens)
        self.chance, self.every, self.enough = chance, every, enough
        self.happened: list[str] = []
        self.left = 0
        self.busy = 0
        self.next()

    def next(self) -> None:
        """Choose when the next fault comes."""
        self.left = self.chance.randrange(2 * self.every)

    def fault(self, count: int) -> str:
        """Return what happens after so many more bytes, "" for nothing."""
        self.left -= count
        if self.left > 0 or len(self.happened) >= self.enough:
            return ""
        self.next()
        self.happened.append(self.chance.choice(KINDS))
        return self.happened[-1]

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        if self.busy:
            self.busy -= 1
            raise web.HTTPServiceUnavailable
        return await super()._accept(request)

    async def _serve(
        self, request: web.Request, socket: web.WebSocketResponse, *session: Any
    ) -> None:
        faulty: Any = FaultySocket(self, request, socket)
        await super()._serve(request, faulty, *session)


class FaultySocket:
    """A relay's WebSocket to its client, as far as the relay uses it."""

    def __init__(
        self, relay: FaultRelay, request: web.Request, socket: web.WebSocketResponse
    ) -> None:
        self._relay, self._request, self._socket = relay, request, socket

    @property
    def close_code(self) -> int | None:
        """The code with which the client closed."""
        return self._socket.close_code

    async def close(self, **options: Any) -> bool:
        """Close in order."""
        return await self._socket.close(**options)

    async def send_bytes(self, data: bytes) -> None:
        """Send a message, if it gets that far."""
        if await self._late(len(data)):
            await self._socket.send_bytes(data)
            self._cut()
        await self._socket.send_bytes(data)

    def __aiter__(self) -> FaultySocket:
        return self

    async def __anext__(self) -> WSMessage:
        message = await self._socket.__anext__()
        if await self._late(len(message.data)):
            # It is taken, and the client does not learn that.
            asyncio.get_running_loop().call_soon(self._abort)
        return message

    async def _late(self, count: int) -> bool:
        """Let happen what happens; return whether the line breaks after this message."""
        happens = self._relay.fault(count)
        if happens == "delay":
            await asyncio.sleep(self._relay.chance.uniform(0, LONGEST))
        elif happens == "close":
            await self._socket.close(code=self._relay.chance.choice(CODES))
            raise ConnectionResetError
        elif happens in ("cut", "busy"):
            self._relay.busy += happens == "busy"
            self._cut()
        return happens == "cut late"

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()  # type: ignore[attr-defined]

    def _cut(self) -> None:
        self._abort()
        raise ConnectionResetError
