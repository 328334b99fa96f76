# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's relay in front of a machine that echoes what it gets, or does something else, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
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

MACHINE = MachineSpec("sandbox-site", "echo-0", "site", "10.77.0.10", 24, "10.77.0.1")
REFUSING_MACHINE = MachineSpec("sandbox-site", "deaf-0", "site", "10.77.0.11", 24, "10.77.0.1")


class EchoBackend(RecordsBackend):
    """Connects to a thread that serves one end of a pair."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        super().__init__()
        self.serve = serve

    def connect(self, project: str, name: str, port: int) -> socket.socket:
        """Return the other end."""
        if name != MACHINE.name:
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
    serve: Callable[[socket.socket], None] = echo,
    relay_of: Callable[[Cloud, Tokens], Relay] = Relay,
) -> Iterator[EchoRelay]:
    """Run a relay with its files in a directory; what serves the machine's ports may be given."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, EchoRelay]:
        cloud, tokens = Cloud(EchoBackend(serve)), Tokens("http://127.0.0.1/token")
        tokens.write(state)
        site_project.register(cloud, [MACHINE, REFUSING_MACHINE])
        runner = web.AppRunner(relay_of(cloud, tokens).application(), shutdown_timeout=0.1)
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
