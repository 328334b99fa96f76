# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The broker of rank 0, which leads."""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import time
from pathlib import Path
from typing import Any

import zmq

from . import VERSION, config, lists, local, overlay, run
from .jobs import INACTIVE, RUN, Job, Queue, Resources
from .journal import DEBUG, Journal, say
from .member import Broker, Follower, notify
from .rpc_jobs import JobMethods
from .rpc_resources import ResourceMethods
from .store import Store

PASS = 0.1
# Their payload may be empty, but has to be there.
OBJECTS = ("job-manager.queue-status", "job-manager.events-journal")


class Leader(Broker):
    """Rank 0: knows who is there, and gives out the jobs."""

    def __init__(self, folder: Path, options: dict[str, str]) -> None:
        super().__init__(folder, options)
        nodes = config.nodes(self.config, self.members)
        ranks = {node.host: node.rank for node in nodes}
        excluded = lists.expand(self.config.get("resource", {}).get("exclude", ""))
        self.resources = Resources(nodes, {ranks[host] for host in excluded if host in ranks})
        self.queue = Queue()
        self.store = Store()
        self.journal = Journal()
        # Status, error and since when, of the members that were ever there.
        self.peers: dict[int, tuple[str, str, float]] = {}
        self.job_methods, self.resource_methods = JobMethods(self), ResourceMethods(self)
        self._executing: dict[int, tuple[int, asyncio.Future[run.Said]]] = {}
        self._numbers = itertools.count(1)
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
        every = lists.idset(self.resources.nodes)
        names = lists.fold(member.host for member in self.members)
        self.journal.note("restart", ranks=every, online="", nodelist=names)
        self.journal.note(
            "resource-define",
            self.resources.as_r(set(self.resources.nodes)),
            method="configuration",
        )
        self.resources.online.add(0)
        self.journal.note("online", idset="0")
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
                self.gone(rank, "administrative shutdown")
            elif message["type"] == "ended":
                self._ended(message["id"], rank, message["code"], message["output"])
            elif message["type"] == "executed":
                self._said(message["id"], message["said"])

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
            self.peers[rank] = ("offline", reason, time.time())
            await self.link.reply(peer, {"type": "reject", "reason": reason})
            return
        say(f"accepting connection from {host} (rank {rank}) status full", DEBUG)
        if rank in self.resources.online:
            say(f"{host} (rank {rank}) reconnected after crash, dropping old connection state")
        self.link.peers[rank] = peer
        self.link.heard[rank] = time.monotonic()
        self.resources.online.add(rank)
        self.peers[rank] = ("full", "", time.time())
        self.journal.note("online", idset=str(rank))
        if message["hostname"] != host:
            reason = f"rank {rank} got hostname '{message['hostname']}', expected '{host}'"
            self.resources.drained[rank] = {"timestamp": time.time(), "reason": reason}
            self.journal.note("drain", idset=str(rank), nodelist=host, reason=reason, overwrite=0)
        await self.link.reply(
            peer, {"type": "welcome", "resource": self.config.get("resource", {})}
        )
        self.changed.set()

    def gone(self, rank: int, why: str, status: str = "offline", said: str = "") -> None:
        """See a member leave; its jobs fail. `said` is what the log says of one that is lost."""
        if said:
            say(f"{self.members[rank].host} (rank {rank}) {said}")
            say(f"dead to Flux: {self.members[rank].host} (rank {rank})")
        self.resources.online.discard(rank)
        self.peers[rank] = (status, why, time.time())
        self.journal.note("offline", idset=str(rank))
        self.link.peers.pop(rank, None)
        self.link.heard.pop(rank, None)
        for job in list(self.queue.jobs.values()):
            if job.state == RUN and rank in job.waiting:
                note = f"exception: node-failure on {self.members[rank].host}\n"
                self._ended(job.number, rank, 1, note)
        for number, (where, _unused) in list(self._executing.items()):
            if where == rank:
                self._said(number, run.Said(errno.EHOSTUNREACH))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PASS)
            for rank in self.link.lost():
                self.gone(rank, "lost connection", "lost", "failed")

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
        job.held_cores = sum(cores.values())
        self.job_methods.note(job, "alloc")
        self.job_methods.note(job, "start")
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
            self.job_methods.note(job, "finish", status=job.status << 8)
            for name in ("release", "free", "clean"):
                self.job_methods.note(job, name)
            self.resources.release(self.taken.pop(number))
            self.changed.set()

    async def execute(self, rank: int, command: list[str], given: str) -> run.Said:
        """Run a command on a rank."""
        if rank not in self.resources.online:
            return run.Said(errno.EHOSTUNREACH)
        if rank == 0:
            return await run.command(command, given)
        number = next(self._numbers)
        answer: asyncio.Future[run.Said] = asyncio.get_running_loop().create_future()
        self._executing[number] = rank, answer
        question = {"type": "exec", "id": number, "command": command, "given": given}
        await self.link.send(rank, question)
        return await answer

    def _said(self, number: int, said: run.Said) -> None:
        """Take what a command on a member came to; who asked may be gone."""
        known = self._executing.pop(number, None)
        if known and not known[1].done():
            known[1].set_result(run.Said(*said))

    async def answer(self, topic: str, payload: dict[str, Any] | None, uid: int) -> local.Answer:
        """Answer an RPC of ours or of the CLI's. Raises OSError."""
        name = f"rpc_{topic.replace('.', '_').replace('-', '_')}"
        parts = (self.job_methods, self.resource_methods)
        method = next((getattr(part, name) for part in parts if hasattr(part, name)), None)
        if method is None:
            return await super().answer(topic, payload, uid)
        if not self.permitted(uid):
            raise local.fail(errno.EPERM)
        if payload is None and topic in OBJECTS:
            raise local.fail(errno.EPROTO)
        found: local.Answer = await method(payload or {}, uid)
        return found

    def owner_only(self, uid: int) -> None:
        """Raise OSError for a guest."""
        if uid not in (0, self.owner):
            raise local.fail(errno.EPERM, "Request requires owner credentials")


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
