# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lead's port is told from one that is closed, silent, or another program's."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq
from ansible_collections.flux.burst.plugins.module_utils._zmtp import problem

LIMIT = 0.5


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A port that accepts one connection and answers, or with None stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            link, _unused = server.accept()
            with link:
                if answer is None:
                    done.wait(5)
                else:
                    link.sendall(answer)

        done = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        done.set()
        thread.join(5)


@contextmanager
def broker(curve: bool) -> Iterator[int]:
    """A ZeroMQ peer as a broker is one."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    if curve:
        router.curve_publickey, router.curve_secretkey = zmq.curve_keypair()
        router.curve_server = True
    try:
        yield router.bind_to_random_port("tcp://127.0.0.1")
    finally:
        context.destroy(linger=0)


def test_a_broker_greets_with_curve() -> None:
    with broker(curve=True) as port:
        assert problem("127.0.0.1", port, LIMIT) == ""


def test_a_peer_without_curve_is_no_lead() -> None:
    with broker(curve=False) as port:
        assert problem("127.0.0.1", port, LIMIT) == "something that is not a Flux broker"


def test_a_closed_port_is_told_from_a_firewall() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "refused" in problem("127.0.0.1", closed.getsockname()[1], LIMIT)


def test_a_silent_port_is_not_waited_for_beyond_the_limit() -> None:
    with listener(None) as port:
        assert "no answer within 0.5 s" in problem("127.0.0.1", port, LIMIT)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n" + bytes(80), b"", b"\xff"])
def test_another_program_is_no_lead(answer: bytes) -> None:
    with listener(answer) as port:
        assert problem("127.0.0.1", port, LIMIT) == "something that is not a Flux broker"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.EACCES])
def test_a_firewall_that_rejects_is_told_as_one(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rejected(*_unused: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "create_connection", rejected)
    said = problem("127.0.0.1", 8050, LIMIT)
    assert said == f"'{os.strerror(number)}': a firewall rejects it, or no route leads there"


def test_a_name_that_does_not_resolve_is_said() -> None:
    assert "no address for that name" in problem("lead.invalid", 8050, LIMIT)
