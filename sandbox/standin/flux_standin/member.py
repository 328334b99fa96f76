# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every rank's broker has, and the broker of every rank but 0: it joins the lead and runs what it is given."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from . import VERSION, config, lists, local, overlay, run


def notify(text: str) -> None:
    """Tell systemd our state, see sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path.replace("@", "\0", 1) if path.startswith("@") else path)
            sender.sendall(text.encode())


class Broker:
    """What every rank has. Raises BrokerError when it cannot begin."""

    def __init__(self, folder: Path, options: dict[str, str]) -> None:
        self.folder, self.options = folder, options
        self.config = config.load(folder)
        self.members = config.members(self.config)
        self.rank = config.rank_of(options.get("hostname", socket.gethostname()), self.members)
        self.keys = config.certificate(self.config, len(self.members))
        self.owner = os.getuid()
        self.started = time.time()
        self.ending = asyncio.Event()

    @property
    def uri(self) -> str:
        """Where the local socket is."""
        return self.options.get("local-uri", local.DEFAULT)

    async def begin(self) -> None:
        """Serve the local socket and heed SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ending.set)
        await local.serve(self.uri.removeprefix("local://"), self.answer)

    def permitted(self, uid: int) -> bool:
        """Return whether this user may ask."""
        access = self.config.get("access", {})
        if uid == 0 and access.get("allow-root-owner"):
            return True
        return uid == self.owner or bool(access.get("allow-guest-user"))

    async def answer(self, topic: str, payload: dict[str, Any] | None, uid: int) -> local.Answer:
        """Answer an RPC; rank 0 knows more of them. Raises OSError."""
        if not self.permitted(uid):
            raise local.fail(errno.EPERM)
        if topic == "config.get":
            return self.config
        if topic == "attr.get":
            attributes = {
                "rank": str(self.rank),
                "size": str(len(self.members)),
                "hostlist": lists.fold(member.host for member in self.members),
                "version": VERSION,
                "security.owner": str(self.owner),
                "rundir": self.options.get("rundir", "/run/flux"),
                "broker.pid": str(os.getpid()),
                "broker.starttime": f"{self.started:.2f}",
                "config.path": str(self.folder),
                "local-uri": self.uri,
            }
            name = (payload or {})["name"]
            if name not in attributes:
                raise local.fail(errno.ENOENT)
            return {"value": attributes[name], "flags": 1}
        raise local.fail(errno.ENOSYS, f"No service matching {topic} is registered")


class Follower(Broker):
    """Every rank but 0."""

    async def main(self) -> None:
        """Join, run tasks, leave at SIGTERM. Raises BrokerError."""
        await self.begin()
        target = self.members[0].connect
        hello = {
            "type": "hello",
            "rank": self.rank,
            "host": self.members[self.rank].host,
            "hostname": socket.gethostname(),
            "version": VERSION,
        }
        self.link = overlay.Member(self.keys, target, hello)
        joining = f"Joining Flux instance via {target}"
        notify(f"READY=1\nSTATUS={joining}")
        carrying = asyncio.create_task(self.link.run(self.handle))
        ending = asyncio.create_task(self.ending.wait())
        await asyncio.wait({carrying, ending}, return_when=asyncio.FIRST_COMPLETED)
        if carrying.done():
            carrying.result()
        carrying.cancel()
        await self.link.close()

    async def handle(self, message: dict[str, Any]) -> None:
        """Take a message of the lead."""
        if message["type"] == "reject":
            raise config.BrokerError(message["reason"])
        if message["type"] == "welcome":
            own = self.config.get("resource")
            if own is not None and own != message["resource"]:
                raise config.BrokerError(
                    "error reranking R: [resource] differs from rank 0's", config.NO_RESTART
                )
            notify(f"STATUS=Running as member of {len(self.members)} node Flux instance")
        if message["type"] == "task":
            self._task = asyncio.create_task(self._run(message))
        if message["type"] == "exec":
            said = await run.command(message["command"], message["given"])
            await self.link.send({"type": "executed", "id": message["id"], "said": said})

    async def _run(self, message: dict[str, Any]) -> None:
        code, output = await run.task(message)
        await self.link.send({"type": "ended", "id": message["id"], "code": code, "output": output})
