# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlay: JSON over ZeroMQ with CURVE, where only the instance's own certificate is let in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

BEAT = 0.5
LOST = 5.0

Message = dict[str, Any]


class _OneKey:
    """A credentials provider that knows one key."""

    def __init__(self, public: bytes) -> None:
        self.public = public

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether a client's key, in Z85, is the instance's."""
        return key == self.public


class Lead:
    """Rank 0's side: members by rank, each with when it was heard last."""

    def __init__(self, keys: tuple[bytes, bytes]) -> None:
        self.context = zmq.asyncio.Context()
        self.auth = AsyncioAuthenticator(self.context)
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.curve_publickey, self.socket.curve_secretkey = keys
        self.socket.curve_server = True
        self.socket.linger = 200
        self.peers: dict[int, bytes] = {}
        self.heard: dict[int, float] = {}
        self._public = keys[0]

    def bind(self, uri: str) -> None:
        """Listen. Raises zmq.ZMQError."""
        self.auth.start()
        self.auth.configure_curve_callback(domain="*", credentials_provider=_OneKey(self._public))
        self.socket.bind(uri)

    async def send(self, rank: int, message: Message) -> None:
        """Send to a member."""
        await self.reply(self.peers[rank], message)

    async def reply(self, peer: bytes, message: Message) -> None:
        """Send to whoever sent."""
        await self.socket.send_multipart([peer, json.dumps(message).encode()])

    async def receive(self) -> tuple[bytes, Message]:
        """Return the next message and who sent it."""
        peer, text = await self.socket.recv_multipart()
        return peer, json.loads(text)

    def lost(self) -> list[int]:
        """Return the members that were not heard for LOST seconds."""
        limit = time.monotonic() - LOST
        return [rank for rank, when in self.heard.items() if when < limit]

    def close(self) -> None:
        """End."""
        self.auth.stop()
        self.socket.close()


class Member:
    """Another rank's side: it says hello until it is welcomed, for ever."""

    def __init__(self, keys: tuple[bytes, bytes], uri: str, hello: Message) -> None:
        self.context = zmq.asyncio.Context()
        self.keys, self.uri, self.hello = keys, uri, hello
        self.joined = False
        self.heard = 0.0
        self.socket = self._connect()

    def _connect(self) -> Any:
        socket = self.context.socket(zmq.DEALER)
        socket.curve_publickey, socket.curve_secretkey = self.keys
        socket.curve_serverkey = self.keys[0]
        socket.linger = 500
        socket.reconnect_ivl, socket.reconnect_ivl_max = 100, 500
        socket.connect(self.uri)
        return socket

    async def send(self, message: Message) -> None:
        """Send to the lead."""
        await self.socket.send(json.dumps(message).encode())

    async def run(self, handle: Callable[[Message], Awaitable[None]]) -> None:
        """Say hello, then beat; hand every message on. A lead that falls silent is joined again."""
        while True:
            if self.joined and time.monotonic() - self.heard > LOST:
                self.joined = False
                self.socket.close(linger=0)
                self.socket = self._connect()
            await self.send({"type": "beat"} if self.joined else self.hello)
            until = time.monotonic() + BEAT
            while (left := until - time.monotonic()) > 0:
                if not await self.socket.poll(int(left * 1000) + 1):
                    break
                message = json.loads(await self.socket.recv())
                self.heard = time.monotonic()
                if message["type"] == "welcome":
                    self.joined = True
                await handle(message)

    async def close(self) -> None:
        """Say good-bye, which the lead sees at once."""
        if self.joined:
            await self.send({"type": "bye"})
        self.socket.close()
        await asyncio.sleep(0.05)
