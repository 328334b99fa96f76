# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's relay in front of a machine that echoes what it gets, or does something else, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from sandbox.machines import MachineSpec
from sandbox.machines.records import RecordsBackend
from sandbox.server import site_project, tls
from sandbox.server.oauth import Tokens
from sandbox.server.relay import Relay
from sandbox.server.state import Cloud

NAMES = ("echo-0", "deaf-0")
"""The machine that is served, and one that refuses."""


class EchoBackend(RecordsBackend):
    """Connects to a thread that serves one end of a pair."""

    def __init__(self, serve: Callable[[socket.socket], None] | None = None) -> None:
        super().__init__()
        self.serve = serve or echo

    def connect(self, project: str, name: str, port: int) -> socket.socket:
        """Return the other end."""
        if name != NAMES[0]:
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        threading.Thread(target=self.serve, args=(theirs,), daemon=True).start()
        return ours


def echo(end: socket.socket) -> None:
    """Send back what comes until the other side closes, or says quit."""
    with end, contextlib.suppress(OSError):
        while data := end.recv(1 << 16):
            end.sendall(data)
            if data.endswith(b"quit"):
                return


@dataclass
class EchoRelay:
    """A running relay: its endpoint, the authority of its certificate, a token, and the machines."""

    iap_endpoint: str
    ca_file: Path
    access_token: str
    credentials_file: Path
    query: str = "project=sandbox-site&zone=us-central1-a&instance=echo-0&interface=nic0&port=22"


@contextmanager
def echoing(
    state: Path,
    backend: RecordsBackend | None = None,
    relay_of: Callable[[Cloud, Tokens], Relay] = Relay,
    names: Sequence[str] = NAMES,
) -> Iterator[EchoRelay]:
    """Run a relay with its files in a directory; what connects to the machines, and their names, may be given."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, EchoRelay]:
        cloud, tokens = Cloud(backend or EchoBackend()), Tokens("http://127.0.0.1/token")
        tokens.write(state)
        where = ("10.77.0.10", 24, "10.77.0.1")
        site_project.register(
            cloud, [MachineSpec("sandbox-site", it, "site", *where) for it in names]
        )
        made = relay_of(cloud, tokens)
        application = made.application()

        async def stop(_application: web.Application) -> None:
            made.stop()

        application.on_cleanup.append(stop)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.make(state))
        await site.start()
        port = runner.addresses[0][1]
        token = (state / "access_token").read_text()
        files = state / "ca.pem", token, state / "credentials.json"
        return runner, EchoRelay(f"wss://127.0.0.1:{port}", *files)

    runner, relay = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield relay
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
