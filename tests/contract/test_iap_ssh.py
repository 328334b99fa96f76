# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh to a real sshd goes through the tunnel, also where the line breaks, and what the tunnel says is not lost."""

from __future__ import annotations

import os
import random
import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from connect_proxy import copy
from echo_relay import EchoBackend, EchoRelay, echoing
from fault_relay import FaultRelay
from real_sshd import Sshd, serving_ssh
from tunnel_program import command, environment, options

from tools.peers import PeersError

pytestmark = pytest.mark.slow
SIZE = 4_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd."""
    try:
        with serving_ssh(tmp_path_factory.mktemp("sshd")) as made:
            yield made
    except PeersError as error:
        if error.absent:
            pytest.skip(str(error))
        raise


def leading_to(server: Sshd) -> EchoBackend:
    """Return what splices the relay's connections to sshd."""

    def serve(end: socket.socket) -> None:
        with end, socket.create_connection(("127.0.0.1", server.port)) as there:
            threading.Thread(target=copy, args=(end, there), daemon=True).start()
            copy(there, end)

    return EchoBackend(serve)


def ssh(
    server: Sshd, relay: EchoRelay, *words: str, given: bytes = b"", **changes: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command over ssh through a tunnel."""
    proxy = shlex.join(command(options(relay, **changes)))
    return subprocess.run(
        [*server.ssh("-o", f"ProxyCommand={proxy}", *words[:-1]), words[-1]],
        env=environment(relay.access_token),
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_ssh_goes_through_the_tunnel(server: Sshd, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    with echoing(tmp_path, leading_to(server)) as relay:
        done = ssh(server, relay, "cat; exit 7", given=data)
    assert (done.returncode, done.stderr) == (7, b"")
    assert done.stdout == data


def test_ssh_does_not_notice_that_the_line_breaks(server: Sshd, tmp_path: Path) -> None:
    relays: list[FaultRelay] = []

    def relay_of(*parts: object) -> FaultRelay:
        relays.append(FaultRelay(*parts, random.Random(7), SIZE // 10, 12))  # type: ignore[arg-type]
        return relays[-1]

    data = os.urandom(SIZE)
    with echoing(tmp_path, leading_to(server), relay_of) as relay:
        done = ssh(server, relay, "cat", given=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data
    assert len(relays[0].happened) > 6


def test_what_the_tunnel_says_is_in_its_file_where_ssh_swallows_it(
    server: Sshd, tmp_path: Path
) -> None:
    error = tmp_path / "error"
    master = ["-o", "ControlMaster=auto", "-o", "ControlPersist=5", "-S", str(tmp_path / "s")]
    with echoing(tmp_path, leading_to(server)) as relay:
        done = ssh(server, relay, *master, "true", instance="deaf-0", error_file=str(error))
    assert done.returncode == 255
    assert b"4003" not in done.stderr
    assert "close code 4003: the machine does not listen there" in error.read_text()
