# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One running sandbox server: its parts put together, from start to shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sandbox.machines import Backend, MachineSpec
from sandbox.server import site_project, tls, validate
from sandbox.server.api import Api
from sandbox.server.app import Frontend
from sandbox.server.oauth import Tokens
from sandbox.server.operations import Operations
from sandbox.server.relay import Relay
from sandbox.server.requestlog import RequestLog
from sandbox.server.state import Cloud

log = logging.getLogger("sandbox.server")

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    name: str
    state: Path
    compute_port: int
    relay_port: int
    backend: str
    latency: str
    flux: str


def ssh_public_key(state: Path) -> str:
    """Return the public key of the sandbox's user burst, made where it is missing."""
    key = state / "ssh_key"
    if not key.exists():
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "burst", "-f", str(key)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return Path(f"{key}.pub").read_text().strip()


class Service:
    """Serves until it is told to stop. site returns the machines that are there beforehand."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        site: Callable[[str], list[MachineSpec]],
    ) -> None:
        self.settings, self.backend, self.site = settings, backend, site
        state = settings.state
        self.cloud = Cloud(backend)
        self.operations = Operations(self.cloud, settings.latency == "real")
        self.tokens = Tokens(f"http://{LOOPBACK}:{settings.compute_port}/token")
        self.log = RequestLog(state / "requests.jsonl")
        about = {
            "name": settings.name,
            "backend": settings.backend,
            "flux": settings.flux,
            "latency": settings.latency,
        }
        api = Api(self.cloud, self.operations, validate.load())
        self.frontend = Frontend(api, self.tokens, self.log, about)
        self.relay = Relay(self.cloud, self.tokens)
        self._runners: list[web.AppRunner] = []

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve; call ready when everything answers. Raises MachineError and OSError at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.frontend.shutdown.set)
        settings = self.settings
        try:
            self.tokens.write(settings.state)
            await self._listen(self.frontend.application(), settings.compute_port, None)
            context = tls.make(settings.state)
            await self._listen(self.relay.application(), settings.relay_port, context)
            await self._open_machines()
            ready()
            await self.frontend.shutdown.wait()
        finally:
            await self._close()

    async def _listen(
        self, app: web.Application, port: int, context: ssl.SSLContext | None
    ) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, LOOPBACK, port, ssl_context=context, backlog=1024).start()

    async def _open_machines(self) -> None:
        await self.cloud.thread(self.backend.open)
        key = ssh_public_key(self.settings.state)
        specs = await self.cloud.thread(self.site, key)
        site_project.register(self.cloud, specs)
        await asyncio.gather(*(self.cloud.thread(self.backend.create, spec) for spec in specs))
        site_project.running(self.cloud)

    async def _close(self) -> None:
        log.info("stopping")
        await self.operations.stop()
        self.relay.stop()
        for runner in self._runners:
            await runner.cleanup()
        await self.cloud.thread(self.backend.close)
        self.log.close()
