# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metadata server as one machine sees it: whether it is being preempted, and nothing else yet."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from aiohttp import web

FLAVOR = {"Metadata-Flavor": "Google"}
PREEMPTED = "/computeMetadata/v1/instance/preempted"


class Metadata:
    """Serves one machine on a socket that listens in its network."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self._preempted = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve."""
        app = web.Application()
        app.router.add_get(PREEMPTED, self.preempted)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, self._bound).start()

    async def stop(self) -> None:
        """Serve no more."""
        if self._runner:
            await self._runner.cleanup()
        self._bound.close()

    def preempt(self) -> None:
        """Tell the machine that it is going to be taken away."""
        self._preempted.set()

    @property
    def _etag(self) -> str:
        return "1" if self._preempted.is_set() else "0"

    async def preempted(self, request: web.Request) -> web.Response:
        """Answer TRUE or FALSE, with wait_for_change when it is another than last_etag says, or than it was."""
        if request.headers.get("Metadata-Flavor") != "Google":
            return web.Response(status=403, text="Missing Metadata-Flavor:Google header.\n")
        query = request.query
        known = query.get("last_etag", self._etag)
        if query.get("wait_for_change", "").lower() == "true" and known == self._etag:
            limit = float(query.get("timeout_sec", 0)) or None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._preempted.wait(), limit)
        text = "TRUE" if self._preempted.is_set() else "FALSE"
        return web.Response(text=text, headers={**FLAVOR, "ETag": self._etag})
