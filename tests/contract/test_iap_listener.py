# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel as a local port, for programs that cannot run a command: each connection is a tunnel of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from echo_relay import EchoRelay
from tunnel_program import command, environment, options, running


@contextmanager
def listening(relay: EchoRelay, where: str = "0", **changes: str) -> Iterator[tuple[int, int]]:
    """Run a listener; yield its port and its process id."""
    with running(relay, listen=where, **changes) as process:
        assert process.stdout and process.stderr
        port = int(process.stdout.readline())
        yield port, process.pid
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def receive(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes."""
    got = bytearray()
    while len(got) < count and (some := connection.recv(1 << 16)):
        got += some
    return bytes(got)


def test_many_connections_are_served_side_by_side(echo_relay: EchoRelay) -> None:
    data = [os.urandom(100_000) for _unused in range(10)]
    with listening(echo_relay) as (port, _pid):
        connections = [socket.create_connection(("127.0.0.1", port), 10) for _each in data]
        for connection, some in zip(connections, data, strict=True):
            threading.Thread(target=connection.sendall, args=(some,), daemon=True).start()
        got = [receive(connection, len(data[0])) for connection in connections]
        for connection in connections:
            connection.close()
    assert got == data


def test_the_target_s_end_and_ours_pass_through(echo_relay: EchoRelay) -> None:
    with listening(echo_relay) as (port, _pid):
        one = socket.create_connection(("127.0.0.1", port), 10)
        with one:
            one.sendall(b"and quit")
            assert receive(one, 100) == b"and quit", "and then the end"


@pytest.mark.parametrize(("where", "address"), [("0", "127.0.0.1"), ("127.0.0.3:0", "127.0.0.3")])
def test_nobody_else_reaches_it(echo_relay: EchoRelay, where: str, address: str) -> None:
    with listening(echo_relay, where) as (port, _pid):
        socket.create_connection((address, port), 10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), 10)


def test_a_connection_that_fails_is_told_and_the_next_is_served(echo_relay: EchoRelay) -> None:
    with running(echo_relay, listen="0", instance="deaf-0") as process:
        assert process.stdout and process.stderr
        port = int(process.stdout.readline())
        for _each in range(2):
            with socket.create_connection(("127.0.0.1", port), 10) as one:
                assert receive(one, 1) == b""
            assert b"close code 4003" in process.stderr.readline()


def test_a_closed_connection_leaves_nothing_open(echo_relay: EchoRelay) -> None:
    with listening(echo_relay) as (port, pid):
        before = -1
        for _each in range(3):
            with socket.create_connection(("127.0.0.1", port), 10) as one:
                one.sendall(b"quit")
                assert receive(one, 5) == b"quit"
            after = settled(pid)
            assert before in (-1, after)
            before = after


def settled(pid: int) -> int:
    """Return how many descriptors a process has once it neither opens nor closes any for a while."""
    counts = [0]
    while len(counts) < 50 and (len(counts) < 10 or len(set(counts[-5:])) > 1):
        time.sleep(0.05)
        counts.append(len(os.listdir(f"/proc/{pid}/fd")))
    return counts[-1]


@pytest.mark.parametrize("where", ["70000", "here", "192.0.2.1:0"])
def test_a_port_that_cannot_be_had_is_told(echo_relay: EchoRelay, where: str) -> None:
    done = subprocess.run(
        command(options(echo_relay, listen=where)),
        env=environment("token"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"iap: wanted to listen at {where}, found '")
    assert done.stderr.count("\n") == 1
