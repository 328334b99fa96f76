# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tunnel_ends.py ends | relay STATE NAME=PORT...: what tunnels are measured with, each a process of its own.

`ends` serves two ports and prints them: a sink, that answers "k" to a size, and "d" once so many bytes have come; and a
source, that sends as many as it is asked for. `relay` is the sandbox's relay, whose machines are ports of this one; it
prints its endpoint. Both run until their standard input ends.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / part) for part in ("", "tests/contract")]

CHUNK = 1 << 18
SIZE = struct.Struct(">Q")


def sink(end: socket.socket) -> None:
    """Take what comes."""
    (left,) = SIZE.unpack(end.recv(SIZE.size, socket.MSG_WAITALL))
    end.sendall(b"k")
    room = bytearray(CHUNK)
    while left > 0:
        count = end.recv_into(room)
        if not count:
            return
        left -= count
    end.sendall(b"d")
    end.recv(1)


def source(end: socket.socket) -> None:
    """Send what is wanted."""
    (left,) = SIZE.unpack(end.recv(SIZE.size, socket.MSG_WAITALL))
    data = bytes(CHUNK)
    while left > 0:
        end.sendall(data[:left])
        left -= len(data)
    end.recv(1)


def serve(what: Callable[[socket.socket], None]) -> int:
    """Serve a port in threads; return it."""
    server = socket.create_server(("127.0.0.1", 0))

    def one(end: socket.socket) -> None:
        with end, suppress(OSError, struct.error):
            what(end)

    def accept() -> None:
        while True:
            threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(server.getsockname()[1])


def told(*words: object) -> None:
    """Print some words, and wait for the end of the input."""
    print(*words, flush=True)
    sys.stdin.read()


def main(role: str, *words: str) -> None:
    """Play a role."""
    if role == "ends":
        told(serve(sink), serve(source))
        return
    from echo_relay import echoing

    from sandbox.machines.records import RecordsBackend

    state, *pairs = words
    ports = {name: int(port) for name, _is, port in (pair.partition("=") for pair in pairs)}

    class Ports(RecordsBackend):
        """Connects to the ports of this machine."""

        def connect(self, project: str, name: str, port: int) -> socket.socket:
            """Return a connection to a machine's port."""
            return socket.create_connection(("127.0.0.1", ports[name]))

    with echoing(Path(state), Ports(), names=list(ports)) as relay:
        told(relay.iap_endpoint)


if __name__ == "__main__":
    main(*sys.argv[1:])
