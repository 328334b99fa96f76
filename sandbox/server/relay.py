# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Identity-Aware Proxy: TCP to an instance's port over a WebSocket with TLS."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import web

from sandbox.machines import IAP_ADDRESS
from sandbox.server import permissions, tunnel
from sandbox.server.firewalls import lets_in
from sandbox.server.oauth import Tokens
from sandbox.server.state import Cloud, Key, Resource
from sandbox.server.tunnel import Fatal, Tunnel

log = logging.getLogger("sandbox.relay")

SUBPROTOCOL = "relay.tunnel.cloudproxy.app"
RESUMABLE = 30.0
"""Seconds that a session waits for its client to come back."""
REFUSAL_SECONDS = 0.2
"""How long the relay tries a port that a firewall closes; a real one takes about 10 s."""


class Relay:
    """Serves /v4/connect and /v4/reconnect."""

    def __init__(self, cloud: Cloud, tokens: Tokens) -> None:
        self.cloud, self.tokens = cloud, tokens
        self._tunnels: dict[str, Tunnel] = {}
        self._expiry: dict[str, asyncio.TimerHandle] = {}

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application()
        app.router.add_get("/v4/connect", self.connect)
        app.router.add_get("/v4/reconnect", self.reconnect)
        return app

    async def _accept(self, request: web.Request) -> web.WebSocketResponse:
        if not self.tokens.good(request.headers.get("Authorization")):
            raise web.HTTPUnauthorized(text="wanted a token of this sandbox's token endpoint\n")
        if SUBPROTOCOL not in request.headers.get("Sec-WebSocket-Protocol", ""):
            raise web.HTTPBadRequest(text=f"wanted the subprotocol {SUBPROTOCOL}\n")
        if not request.headers.get("Origin"):
            raise web.HTTPForbidden(text="wanted an Origin, such as bot:iap-tunneler\n")
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,), compress=False, timeout=5.0, max_msg_size=1 << 17
        )
        await socket.prepare(request)
        return socket

    async def connect(self, request: web.Request) -> web.WebSocketResponse:
        """Begin a session with an instance's port."""
        socket = await self._accept(request)
        began = time.monotonic()
        try:
            made = await self._dial(request)
        except Fatal as fatal:
            log.info("connect %s: %d %s", request.query_string, fatal.code, fatal.reason)
            await socket.close(code=fatal.code, message=fatal.reason.encode()[:120])
            return socket
        log.info("connect %s: %.3f s", request.query_string, time.monotonic() - began)
        self._tunnels[made.sid.decode()] = made
        await self._serve(request, socket, made, made.connected)
        return socket

    async def reconnect(self, request: web.Request) -> web.WebSocketResponse:
        """Go on with a session whose WebSocket broke."""
        socket = await self._accept(request)
        sid, ack = request.query.get("sid", ""), request.query.get("ack", "")
        found = self._tunnels.get(sid)
        if found is None or found.ended:
            await socket.close(code=tunnel.UNKNOWN_SESSION, message=b"there is no such session")
            return socket
        if not ack.isdigit():
            await socket.close(code=tunnel.BAD_ACK, message=b"wanted ack=BYTES")
            return socket
        if found.transport is not None:
            # The client knows better than we whether its old connection still lives.
            found.transport.abort()  # type: ignore[attr-defined]
        await self._serve(request, socket, found, lambda: found.resumed(int(ack)))
        return socket

    async def _serve(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        session: Tunnel,
        first: Callable[[], bytes],
    ) -> None:
        sid = session.sid.decode()
        async with session.using:
            if sid in self._expiry:
                self._expiry.pop(sid).cancel()
            session.transport = request.transport
            try:
                await socket.send_bytes(first())
                await session.carry(socket)
            except Fatal as fatal:
                session.ended = True
                await socket.close(code=fatal.code, message=fatal.reason.encode())
            except ConnectionError:
                pass
            finally:
                session.transport = None
                self._leave(sid, session)

    def _leave(self, sid: str, session: Tunnel) -> None:
        if session.ended:
            self._tunnels.pop(sid, None)
            session.end()
            return

        def expire() -> None:
            session.ended = True
            self._leave(sid, session)

        self._expiry[sid] = asyncio.get_running_loop().call_later(RESUMABLE, expire)

    async def _dial(self, request: web.Request) -> Tunnel:
        query = request.query
        key = Key(
            query.get("project", ""),
            f"zones/{query.get('zone', '')}",
            "instances",
            query.get("instance", ""),
        )
        if not permissions.granted(self.cloud, permissions.TUNNEL):
            raise Fatal(tunnel.NOT_AUTHORIZED, "not authorized")
        instance = self.cloud.find(key)
        if instance is None:
            raise Fatal(tunnel.LOOKUP_FAILED, "instance not found")
        if query.get("interface", "nic0") != "nic0" or not query.get("port", "").isdigit():
            raise Fatal(tunnel.LOOKUP_FAILED, "wanted interface nic0 and a port")
        return await self._open(key, instance, int(query["port"]))

    async def _open(self, key: Key, instance: Resource, port: int) -> Tunnel:
        if not lets_in(self.cloud, instance, IAP_ADDRESS, port):
            # What a firewall drops is not refused: it is tried for a while.
            await asyncio.sleep(REFUSAL_SECONDS)
            raise Fatal(tunnel.NO_BACKEND, "failed to connect to backend")
        try:
            backend = self.cloud.backend
            socket = await self.cloud.thread(backend.connect, key.project, key.name, port)
            socket.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=socket)
        except OSError as error:
            log.info("%s port %d: %s", key.path, port, error)
            raise Fatal(tunnel.NO_BACKEND, "failed to connect to backend") from None
        return Tunnel(reader, writer, lambda: self.cloud.find(key) is instance)

    def stop(self) -> None:
        """End all sessions."""
        for session in list(self._tunnels.values()):
            session.end()
        for handle in self._expiry.values():
            handle.cancel()
