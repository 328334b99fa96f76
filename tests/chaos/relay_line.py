# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The line between a controller and the sandbox's relay: it can be cut, and be down for a while."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from connect_proxy import accepting, copy


@dataclass
class Line:
    """A running line: its own port, the relay's, and the connections that go through it."""

    port: int
    there: int
    until: float = 0.0
    open: list[socket.socket] = field(default_factory=list)

    def carry(self, client: socket.socket) -> None:
        """Carry one connection to its end."""
        with client, contextlib.suppress(OSError):
            if time.monotonic() < self.until:
                return
            with socket.create_connection(("127.0.0.1", self.there)) as relay:
                self.open += [client, relay]
                threading.Thread(target=copy, args=(client, relay), daemon=True).start()
                copy(relay, client)

    def cut(self, seconds: float = 0.0) -> None:
        """End all connections, and let no new one through for so long."""
        self.until = time.monotonic() + seconds
        ended, self.open = self.open, []
        for each in ended:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def carrying(there: int) -> Iterator[Line]:
    """Run a line to a port on this machine."""
    line = Line(0, there)
    with accepting(line.carry) as line.port:
        try:
            yield line
        finally:
            line.cut()
