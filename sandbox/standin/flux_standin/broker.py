# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The broker: rank 0 leads, every other rank joins it and runs what it is given."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pwd
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import zmq

from . import VERSION, config, lists, local, overlay, run
from .jobs import INACTIVE, RUN, SCHED, Job, Queue, Resources

PASS = 0.1


def say(text: str) -> None:
    """Log a line, to the journal under systemd."""
    print(text, file=sys.stderr, flush=True)


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

    async def answer(self, topic: str, payload: dict[str, Any], uid: int) -> dict[str, Any] | None:
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
                "config.path": str(self.folder),
                "local-uri": self.uri,
            }
            if payload.get("name") not in attributes:
                raise local.fail(errno.ENOENT)
            return {"value": attributes[payload["name"]], "flags": 1}
        raise local.fail(errno.ENOSYS)


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

    async def _run(self, message: dict[str, Any]) -> None:
        code, output = await run.task(message)
        await self.link.send({"type": "ended", "id": message["id"], "code": code, "output": output})


class Leader(Broker):
    """Rank 0: knows who is there, and gives out the jobs."""

    def __init__(self, folder: Path, options: dict[str, str]) -> None:
        super().__init__(folder, options)
        nodes = config.nodes(self.config, self.members)
        ranks = {node.host: node.rank for node in nodes}
        excluded = lists.expand(self.config.get("resource", {}).get("exclude", ""))
        self.resources = Resources(nodes, {ranks[host] for host in excluded if host in ranks})
        self.queue = Queue()
        self.taken: dict[int, dict[int, int]] = {}
        self.changed = asyncio.Event()

    async def main(self) -> None:
        """Lead until SIGTERM. Raises BrokerError."""
        await self.begin()
        self.link = overlay.Lead(self.keys)
        if len(self.members) > 1:
            try:
                self.link.bind(self.members[0].bind)
            except zmq.ZMQError as error:
                raise config.BrokerError(f"error binding {self.members[0].bind}: {error}") from None
        self.resources.online.add(0)
        notify(f"READY=1\nSTATUS=Running as leader of {len(self.members)} node Flux instance")
        tasks = [asyncio.create_task(work) for work in (self._hear(), self._watch(), self._serve())]
        ending = asyncio.create_task(self.ending.wait())
        done, _unused = await asyncio.wait({*tasks, ending}, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
        for each in tasks:
            each.cancel()
        self.link.close()

    async def _hear(self) -> None:
        while True:
            peer, message = await self.link.receive()
            if message["type"] == "hello":
                await self._hello(peer, message)
                continue
            rank = next((rank for rank, known in self.link.peers.items() if known == peer), None)
            if rank is None:
                continue
            self.link.heard[rank] = time.monotonic()
            if message["type"] == "beat":
                await self.link.reply(peer, {"type": "beat"})
            elif message["type"] == "bye":
                self._gone(rank, "administrative shutdown")
            elif message["type"] == "ended":
                self._ended(message["id"], rank, message["code"], message["output"])

    async def _hello(self, peer: bytes, message: dict[str, Any]) -> None:
        rank, host, version = message["rank"], message["host"], message["version"]
        if not 0 < rank < len(self.members) or self.members[rank].host != host:
            known = self.members[rank].host if rank < len(self.members) else "nobody"
            say(
                f"rejecting connection from {host} (rank {rank}): {known} is configured as rank {rank}: "
                "mismatched config?"
            )
            await self.link.reply(
                peer, {"type": "reject", "reason": "overlay.hello: Invalid argument"}
            )
            return
        if version.split(".")[:2] != VERSION.split(".")[:2]:
            reason = f"client ({version}) version mismatched with server ({VERSION})"
            await self.link.reply(peer, {"type": "reject", "reason": reason})
            return
        if rank in self.resources.online:
            say(f"{host} (rank {rank}) reconnected after crash, dropping old connection state")
        self.link.peers[rank] = peer
        self.link.heard[rank] = time.monotonic()
        self.resources.online.add(rank)
        if message["hostname"] != host:
            reason = f"rank {rank} got hostname '{message['hostname']}', expected '{host}'"
            self.resources.drained[rank] = {"timestamp": time.time(), "reason": reason}
        await self.link.reply(
            peer, {"type": "welcome", "resource": self.config.get("resource", {})}
        )
        self.changed.set()

    def _gone(self, rank: int, why: str) -> None:
        say(f"{self.members[rank].host} (rank {rank}) offline {why}")
        self.resources.online.discard(rank)
        self.link.peers.pop(rank, None)
        self.link.heard.pop(rank, None)
        for job in list(self.queue.jobs.values()):
            if job.state == RUN and rank in job.waiting:
                note = f"exception: node-failure on {self.members[rank].host}\n"
                self._ended(job.number, rank, 1, note)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PASS)
            for rank in self.link.lost():
                self._gone(rank, "lost connection")

    async def _serve(self) -> None:
        """Start jobs in order; the first that does not fit keeps those behind it waiting."""
        while True:
            self.changed.clear()
            for job in self.queue.pending():
                cores = self.resources.fit(job) if job.urgency else None
                if cores is None:
                    if job.urgency:
                        break
                    continue
                await self._start(job, cores)
            await self.changed.wait()

    async def _start(self, job: Job, cores: dict[int, int]) -> None:
        self.resources.take(cores)
        self.taken[job.number] = cores
        job.state, job.started = RUN, time.time()
        job.ranks, job.waiting = sorted(cores), set(cores)
        system = job.jobspec["attributes"]["system"]
        task = {
            "type": "task",
            "id": job.number,
            "user_id": job.user_id,
            "credential": job.credential,
            "command": job.jobspec["tasks"][0]["command"],
            "cwd": system.get("cwd", "/tmp"),
        }
        for rank in job.ranks:
            if rank == 0:
                asyncio.create_task(self._run_here(task)).add_done_callback(
                    lambda done: done.result()
                )
            else:
                await self.link.send(rank, task)

    async def _run_here(self, task: dict[str, Any]) -> None:
        code, output = await run.task(task)
        self._ended(task["id"], 0, code, output)

    def _ended(self, number: int, rank: int, code: int, output: str) -> None:
        job = self.queue.jobs[number]
        if rank not in job.waiting:
            return
        job.waiting.discard(rank)
        job.output.append(output)
        job.status = max(job.status, code)
        if not job.waiting:
            job.state, job.ended = INACTIVE, time.time()
            self.resources.release(self.taken.pop(number))
            self.changed.set()

    async def answer(self, topic: str, payload: dict[str, Any], uid: int) -> dict[str, Any] | None:
        """Answer an RPC of ours or of the CLI's. Raises OSError."""
        method = getattr(self, f"_rpc_{topic.replace('.', '_').replace('-', '_')}", None)
        if method is None:
            return await super().answer(topic, payload, uid)
        if not self.permitted(uid):
            raise local.fail(errno.EPERM)
        found: dict[str, Any] | None = await method(payload, uid)
        return found

    def _job(self, number: int) -> Job:
        if number not in self.queue.jobs:
            raise local.fail(errno.ENOENT)
        return self.queue.jobs[number]

    def _owner_only(self, uid: int) -> None:
        if uid not in (0, self.owner):
            raise local.fail(errno.EPERM)

    async def _rpc_resource_status(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        return self.resources.status()

    async def _rpc_sched_resource_status(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        every = set(self.resources.nodes)
        return {
            "all": self.resources.as_r(every),
            "allocated": self.resources.as_r(self.resources.allocated, nodelist=False),
            "down": self.resources.as_r(every - self.resources.online, nodelist=False),
        }

    def _targets(self, text: str) -> list[int]:
        if text.replace("-", "").replace(",", "").strip("[]").isdigit():
            ranks = lists.ids(text)
        else:
            hosts = [member.host for member in self.members]
            unknown = [name for name in lists.expand(text) if name not in hosts]
            if unknown:
                raise local.fail(errno.EINVAL, f"invalid targets: {unknown[0]}")
            ranks = [hosts.index(name) for name in lists.expand(text)]
        if any(rank not in self.resources.nodes for rank in ranks):
            raise local.fail(errno.EINVAL, "idset is out of range")
        return ranks

    async def _rpc_resource_drain(self, payload: dict[str, Any], uid: int) -> None:
        self._owner_only(uid)
        ranks = self._targets(payload["targets"])
        already = [rank for rank in ranks if rank in self.resources.drained]
        if already:
            raise local.fail(errno.EEXIST, f"ranks {lists.idset(already)} already drained")
        for rank in ranks:
            self.resources.drained[rank] = {
                "timestamp": time.time(),
                "reason": payload.get("reason", ""),
            }

    async def _rpc_resource_undrain(self, payload: dict[str, Any], uid: int) -> None:
        self._owner_only(uid)
        ranks = self._targets(payload["targets"])
        missing = [rank for rank in ranks if rank not in self.resources.drained]
        if missing:
            raise local.fail(errno.EEXIST, f"ranks {lists.idset(missing)} not drained")
        for rank in ranks:
            del self.resources.drained[rank]
        self.changed.set()

    async def _rpc_job_list_list(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        states = payload.get("constraint", {}).get("states", [])
        wanted = {SCHED} if states == ["pending"] else {SCHED, RUN, INACTIVE}
        jobs = [job.listed() for job in self.queue.jobs.values() if job.state in wanted]
        return {"jobs": sorted(jobs, key=lambda row: (-row["priority"], row["id"]))}

    async def _rpc_job_info_lookup(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        job = self._job(payload["id"])
        if uid not in (0, self.owner, job.user_id):
            raise local.fail(errno.EPERM)
        return {"id": job.number, "jobspec": json.dumps(job.jobspec, separators=(",", ":"))}

    async def _rpc_standin_submit(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        guest = uid not in (0, self.owner)
        credential = ""
        if guest:
            try:
                credential = await run.munge(payload["jobspec"])
            except OSError as error:
                raise local.fail(errno.EINVAL, str(error.strerror)) from None
        user = uid if guest else self.owner
        job = self.queue.submit(user, payload["urgency"], payload["jobspec"], credential)
        plugins = self.config.get("ingest", {}).get("validator", {}).get("plugins", [])
        why = self.resources.infeasible(job) if "feasibility" in plugins else ""
        if why:
            del self.queue.jobs[job.number]
            raise local.fail(errno.EOVERFLOW, why)
        self.changed.set()
        return {"id": job.number}

    async def _rpc_standin_job(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        job = self._job(payload["id"])
        hosts = lists.fold(self.members[rank].host for rank in job.ranks)
        try:
            user = pwd.getpwuid(job.user_id).pw_name
        except KeyError:
            user = str(job.user_id)
        return {
            **job.listed(),
            "user": user,
            "status": job.status,
            "output": "".join(job.output),
            "hosts": hosts,
            "seconds": (job.ended or time.time()) - job.started if job.started else 0.0,
        }

    async def _rpc_standin_cancel(self, payload: dict[str, Any], uid: int) -> None:
        job = self._job(payload["id"])
        if uid not in (0, self.owner, job.user_id):
            raise local.fail(errno.EPERM)
        if job.state == SCHED:
            job.state, job.ended, job.status = INACTIVE, time.time(), 1
            job.output.append("exception: cancel\n")
            self.changed.set()


def main(folder: Path, options: dict[str, str]) -> int:
    """Be a broker until SIGTERM; return the exit code."""

    async def whole() -> None:
        members = config.members(config.load(folder))
        rank = config.rank_of(options.get("hostname", socket.gethostname()), members)
        broker: Leader | Follower = (Follower if rank else Leader)(folder, options)
        await broker.main()

    try:
        asyncio.run(whole())
    except config.BrokerError as error:
        say(str(error))
        return error.code
    return 0
