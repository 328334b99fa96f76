# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our tunnel and the sandbox's relay understand each other, also when the line between them breaks."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _iap
from ansible_collections.flux.burst.plugins.module_utils._iap import Target, Tunnel, TunnelError
from compute_server import ComputeServer
from echo_relay import EchoRelay

SIZE, WINDOW = 3_000_000, 200_000


def target(relay: EchoRelay, instance: str = "echo-0", port: int = 22) -> Target:
    """Return a machine behind the relay."""
    ca_file = str(relay.ca_file)
    return Target("sandbox-site", "us-central1-a", instance, port, relay.iap_endpoint, ca_file)


class Conversation:
    """Gives data to a tunnel's reader, and is its writer.

    Like ssh, it has no more than a window on the way: an echo takes no more once nobody takes what it returns.
    """

    def __init__(self, data: bytes) -> None:
        self.said, self.given, self.heard = data, 0, bytearray()
        self.reader = asyncio.StreamReader()
        self._give()

    def _give(self) -> None:
        upto = min(len(self.heard) + WINDOW, len(self.said))
        self.reader.feed_data(self.said[self.given : upto])
        self.given = upto
        if len(self.heard) >= len(self.said):
            self.reader.feed_eof()

    def write(self, data: bytes) -> None:
        self.heard += data
        self._give()

    async def drain(self) -> None:
        await asyncio.sleep(0)


class Breaking(Tunnel):
    """A tunnel whose connections break, each after a time of its own."""

    broken = 0

    async def _open(self, session: Any) -> Any:
        socket = await super()._open(session)
        if self.broken < 5:
            loop = asyncio.get_running_loop()
            loop.call_later(random.uniform(0.001, 0.03), self._break, socket)
        return socket

    def _break(self, socket: Any) -> None:
        if not socket.closed and socket._response.connection is not None:
            self.broken += 1
            socket._response.connection.transport.abort()


async def through(tunnel: Tunnel, data: bytes) -> bytes:
    """Send data to the machine that echoes and return what comes back."""
    talk = Conversation(data)
    await asyncio.wait_for(tunnel.run(talk.reader, talk), 30)
    return bytes(talk.heard)


async def test_data_comes_back_whole(echo_relay: EchoRelay) -> None:
    async def token() -> str:
        return echo_relay.access_token

    data = os.urandom(SIZE)
    assert await through(Tunnel(target(echo_relay), token), data) == data


async def test_data_comes_back_whole_over_a_line_that_breaks(
    echo_relay: EchoRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_iap, "BACKOFF", (0.01,) * 5)

    async def token() -> str:
        return echo_relay.access_token

    data, tunnel = os.urandom(SIZE), Breaking(target(echo_relay), token)
    assert await through(tunnel, data) == data
    assert tunnel.broken > 0


@pytest.mark.parametrize(
    ("instance", "port", "said"),
    [
        ("deaf-0", 22, "4003: the machine does not listen there"),
        ("echo-0", 80, "4003: the machine does not listen there"),
        ("nobody", 22, "4047: there is no such machine"),
    ],
)
async def test_what_cannot_be_reached_is_told(
    echo_relay: EchoRelay, instance: str, port: int, said: str
) -> None:
    async def token() -> str:
        return echo_relay.access_token

    with pytest.raises(TunnelError, match=said):
        await through(Tunnel(target(echo_relay, instance, port), token), b"hello")


async def test_a_token_that_is_not_good_is_told(echo_relay: EchoRelay) -> None:
    async def token() -> str:
        return "ya29.made-up"

    with pytest.raises(TunnelError, match="HTTP 401"):
        await through(Tunnel(target(echo_relay), token), b"hello")


def proxy(
    server: ComputeServer, tmp_path: Path, **options: str
) -> subprocess.CompletedProcess[str]:
    """Run the program that ssh runs, to a machine that does not exist."""
    given = {
        "project": server.project,
        "zone": "us-central1-a",
        "instance": "nobody",
        "endpoint": server.iap_endpoint,
        "ca-file": str(server.ca_file),
        "credentials-file": str(server.credentials_file),
        "error-file": str(tmp_path / "error"),
        **options,
    }
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    return subprocess.run(
        [sys.executable, "-P", _iap.__file__, *words],
        input="SSH-2.0-test\r\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "close code 4047"),
        ({"endpoint": "wss://127.0.0.1:9"}, "through wss://127.0.0.1:9"),
        ({"ca-file": "/nonexistent.pem"}, "burst_iap_ca_file"),
        ({"credentials-file": "/nonexistent.json"}, "burst_credentials_file"),
    ],
)
def test_the_program_fails_with_one_line_there_and_in_its_error_file(
    compute_server: ComputeServer, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    done = proxy(compute_server, tmp_path, **options)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.startswith("iap: wanted ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "error").read_text() == done.stderr


def test_the_token_comes_from_the_credentials(compute_server: ComputeServer) -> None:
    token = asyncio.run(_iap.google_token(str(compute_server.credentials_file))())
    assert token.startswith("ya29.sandbox-")
