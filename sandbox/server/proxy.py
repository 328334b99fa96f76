# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTPS proxy for clients whose endpoint cannot be chosen: Google's names lead here, others nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket

log = logging.getLogger("sandbox.proxy")

LOOPBACK = "127.0.0.1"
COMPUTE_NAME, RELAY_NAME = re.compile(r"(\w+\.)?googleapis\.com"), "tunnel.cloudproxy.app"
HEAD_LIMIT = 1 << 14
HEAD_SECONDS = 10.0
CHUNK = 1 << 16


def target(head: str, compute_port: int, relay_port: int) -> int | None:
    """Return the port that a request's head asks for; None where it is not ours to answer."""
    method, _unused, rest = head.partition(" ")
    host, _unused, port = rest.partition(" ")[0].rpartition(":")
    if method != "CONNECT" or port != "443":
        return None
    if COMPUTE_NAME.fullmatch(host):
        return compute_port
    return relay_port if host == RELAY_NAME else None


class Proxy:
    """Splices CONNECT requests to the ports where TLS is served; nothing ever leaves this machine."""

    def __init__(self, compute_port: int, relay_port: int) -> None:
        self._ports = compute_port, relay_port
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, bound: socket.socket) -> None:
        """Serve on a socket."""
        self._server = await asyncio.start_server(self._accept, sock=bound, limit=HEAD_LIMIT)

    async def stop(self) -> None:
        """End the server and every connection."""
        if self._server:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
                return
            line = head.split(b"\r\n", 1)[0].decode("latin-1")
            port = target(line, *self._ports)
            if port is None:
                log.info("refused: %s", line)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            there = await asyncio.open_connection(LOOPBACK, port)
            with contextlib.closing(there[1]):
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
