# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One running sandbox server: its parts put together, from start to shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
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
from sandbox.server.container import Container
from sandbox.server.oauth import Tokens
from sandbox.server.operations import Operations
from sandbox.server.pod_machines import PodMachines
from sandbox.server.proxy import Proxy
from sandbox.server.relay import Relay
from sandbox.server.requestlog import RequestLog
from sandbox.server.state import Cloud
from sandbox.site import FLUX, POLICIES

log = logging.getLogger("sandbox.server")

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    name: str
    state: Path
    compute_port: int
    relay_port: int
    proxy_port: int
    backend: str
    latency: str
    flux: str
    machines: str = "plain"


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
        self.cloud = Cloud(backend)
        if settings.machines == "prepared":
            self.cloud.accounts, self.cloud.files = (FLUX,), POLICIES
        self.operations = Operations(self.cloud, settings.latency == "real")
        self.tokens = Tokens(f"http://{LOOPBACK}:{settings.compute_port}/token")
        self.relay = Relay(self.cloud, self.tokens)
        self._runners: list[web.AppRunner] = []
        self._proxy: Proxy | None = None
        self._container: Container | None = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve; call ready when everything answers. Raises MachineError and OSError at the start."""
        settings, stop = self.settings, asyncio.Event()
        # Whoever has the ports owns the state directory and the machines: nothing is touched before.
        with (
            _bind(settings.compute_port) as compute,
            _bind(settings.relay_port) as relay,
            _bind(settings.proxy_port) as proxy,
            _bind(0) as secure,
        ):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            requests = RequestLog(settings.state / "requests.jsonl")
            try:
                self.tokens.write(settings.state)
                context = tls.make(settings.state)
                pods = PodMachines(self.cloud, lambda: ssh_public_key(settings.state))
                self._container = Container(
                    self.cloud,
                    self.tokens,
                    context,
                    settings.state / "ca.pem",
                    pods,
                    settings.latency == "real",
                )
                frontend = self._frontend(requests, stop, self._container)
                await self._serve(frontend.application(), compute, None)
                await self._serve(frontend.application(), secure, context)
                await self._serve(self.relay.application(), relay, context)
                self._proxy = Proxy(secure.getsockname()[1], relay.getsockname()[1])
                await self._proxy.start(proxy)
                await self._open_machines()
                ready()
                await stop.wait()
            finally:
                await self._close()
                requests.close()

    def _frontend(
        self, requests: RequestLog, stop: asyncio.Event, container: Container
    ) -> Frontend:
        settings = self.settings
        about = {
            "name": settings.name,
            "backend": settings.backend,
            "flux": settings.flux,
            "latency": settings.latency,
        }
        api = Api(self.cloud, self.operations, validate.load())
        return Frontend(api, container, self.tokens, requests, about, stop)

    async def _serve(
        self, app: web.Application, bound: socket.socket, context: ssl.SSLContext | None
    ) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await web.SockSite(runner, bound, ssl_context=context).start()

    async def _open_machines(self) -> None:
        await self.cloud.thread(self.backend.open)
        key = ssh_public_key(self.settings.state)
        specs = await self.cloud.thread(self.site, key)
        site_project.register(self.cloud, specs)
        # A NodePort answers its own cluster too; nothing else is there for it outside.
        for segment, gateway in sorted({(spec.segment, spec.gateway) for spec in specs}):
            await self.cloud.thread(self.backend.set_nat, segment, gateway)
        await asyncio.gather(*(self.cloud.thread(self.backend.create, spec) for spec in specs))
        site_project.running(self.cloud)

    async def _close(self) -> None:
        log.info("stopping")
        await self.operations.stop()
        self.relay.stop()
        if self._container:
            await self._container.stop()
        if self._proxy:
            await self._proxy.stop()
        for runner in self._runners:
            await runner.cleanup()
        for metadata in self.cloud.metadata.values():
            await metadata.stop()
        # What boots now has to be there before it can be taken away.
        await self.cloud.finish_threads()
        await asyncio.to_thread(self.backend.close)


def _bind(port: int) -> socket.socket:
    return socket.create_server((LOOPBACK, port), backlog=1024)
