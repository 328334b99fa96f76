# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An HTTP proxy that leads every CONNECT to one port, wherever it wanted to go."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """A running proxy. user is the user and password that it wants, if any; asked is what it was asked for."""

    port: int
    there: int
    user: str = ""
    asked: list[str] = field(default_factory=list)

    def serve(self, client: socket.socket) -> None:
        """Answer one client."""
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(1 << 12)
            first, *lines = head.decode().split("\r\n")
            self.asked.append(first)
            wanted = f"Proxy-Authorization: Basic {base64.b64encode(self.user.encode()).decode()}"
            if self.user and wanted not in lines:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self.there)) as there:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                threading.Thread(target=copy, args=(client, there), daemon=True).start()
                copy(there, client)


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the end."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def accepting(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give each client of a port on this machine to a thread of its own; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client = server.accept()[0]
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxying(there: str, user: str = "") -> Iterator[Proxy]:
    """Run a proxy to the port that a URL ends with."""
    proxy = Proxy(0, int(there.rpartition(":")[2]), user)
    with accepting(proxy.serve) as proxy.port:
        yield proxy
