# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs and who gets which node: first come, first served, as far as a burst needs it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from . import lists
from .config import Node

SCHED, RUN, INACTIVE = 8, 16, 64
COMPLETED, FAILED, CANCELED = 1, 2, 4
# What came of a job by what it is counted as in job-list.job-stats.
COUNTED = {COMPLETED: "successful", FAILED: "failed", CANCELED: "canceled"}


@dataclass
class Job:
    """One job. `ranks` are those that it was given, `waiting` those of them that have not ended."""

    number: int
    user_id: int
    urgency: int
    jobspec: dict[str, Any]
    credential: str
    submitted: float
    state: int = SCHED
    started: float = 0.0
    ended: float = 0.0
    ranks: list[int] = field(default_factory=list)
    waiting: set[int] = field(default_factory=set)
    output: list[str] = field(default_factory=list)
    status: int = 0
    memo: dict[str, Any] = field(default_factory=dict)
    canceled: bool = False
    held_cores: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, name: str, **context: Any) -> dict[str, Any]:
        """Add an event to its log (RFC 21), and return it."""
        event: dict[str, Any] = {"timestamp": time.time(), "name": name}
        self.events.append({**event, "context": context} if context else event)
        return self.events[-1]

    @property
    def result(self) -> int:
        """What came of it."""
        return CANCELED if self.canceled else FAILED if self.status else COMPLETED

    @property
    def nodes(self) -> int:
        """How many whole nodes it asks for, 0 where it asks for slots."""
        top = self.jobspec["resources"][0]
        return int(top["count"]) if top["type"] == "node" else 0

    @property
    def cores(self) -> int:
        """How many cores it asks for, where it asks for slots."""
        top = self.jobspec["resources"][0]
        return 0 if self.nodes else int(top["count"]) * int(top["with"][0]["count"])

    @property
    def tasks(self) -> int:
        """How many tasks it runs."""
        return self.nodes or int(self.jobspec["resources"][0]["count"])

    @property
    def name(self) -> str:
        """Its name, or else its command's first word."""
        named = self.jobspec["attributes"]["system"].get("job", {}).get("name")
        return str(named) if named else self._command()

    def _command(self) -> str:
        return str(self.jobspec["tasks"][0]["command"][0]).rpartition("/")[2]

    def listed(self) -> dict[str, Any]:
        """Return its entry of job-list.list; like Flux, with nnodes or with ncores."""
        size = {"nnodes": self.nodes} if self.nodes else {"ncores": self.cores}
        return {
            "id": self.number,
            "userid": self.user_id,
            "urgency": self.urgency,
            "priority": self.urgency,
            "t_submit": self.submitted,
            "state": self.state,
            "name": self.name,
            "ntasks": self.tasks,
            "duration": 0.0,
            "cwd": self.jobspec["attributes"]["system"].get("cwd", ""),
            **size,
            **({"annotations": {"user": self.memo}} if self.memo else {}),
            **dict.fromkeys(("t_depend", "t_priority", "t_sched"), self.submitted),
            **(self._place() if self.started else {}),
            **(self._end() if self.ended else {}),
        }

    def _place(self) -> dict[str, Any]:
        return {
            "t_run": self.started,
            "expiration": 0.0,
            "nnodes": len(self.ranks),
            "ncores": self.held_cores,
        }

    def _end(self) -> dict[str, Any]:
        return {
            "t_cleanup": self.ended,
            "t_inactive": self.ended,
            "success": self.result == COMPLETED,
            "exception_occurred": self.canceled,
            "result": self.result,
            **({} if self.canceled else {"waitstatus": self.status << 8}),
        }


class Resources:
    """Which ranks are there, and which cores of them are taken."""

    def __init__(self, nodes: list[Node], excluded: set[int]) -> None:
        self.nodes = {node.rank: node for node in nodes}
        self.excluded = excluded
        self.online: set[int] = set()
        self.drained: dict[int, dict[str, Any]] = {}
        self.used: dict[int, int] = {}

    @property
    def allocated(self) -> set[int]:
        """Ranks with jobs."""
        return {rank for rank, cores in self.used.items() if cores}

    def usable(self) -> list[Node]:
        """Nodes that a job may be given now."""
        return [
            node
            for rank, node in self.nodes.items()
            if rank in self.online and rank not in self.excluded and rank not in self.drained
        ]

    def fit(self, job: Job) -> dict[int, int] | None:
        """Return the cores of each rank that the job gets; None where it has to wait."""
        taken: dict[int, int] = {}
        wanted = job.nodes or job.cores
        for node in self.usable():
            free = node.cores - self.used.get(node.rank, 0)
            if wanted <= 0:
                break
            if job.nodes and free == node.cores:
                taken[node.rank] = node.cores
                wanted -= 1
            elif not job.nodes and free:
                taken[node.rank] = min(free, wanted)
                wanted -= taken[node.rank]
        return taken if wanted <= 0 else None

    def infeasible(self, job: Job) -> str:
        """Return why a job could never run, "" where it could; nodes that are down may come."""
        eligible = [node for rank, node in self.nodes.items() if rank not in self.excluded]
        if job.nodes > len(eligible):
            return f"unsatisfiable request: need {job.nodes} exclusive node(s), only {len(eligible)} eligible"
        cores = sum(node.cores for node in eligible)
        if job.cores > cores:
            return f"unsatisfiable request: need {job.cores} core(s), only {cores} eligible"
        return ""

    def take(self, cores: dict[int, int]) -> None:
        """Mark cores as taken."""
        for rank, count in cores.items():
            self.used[rank] = self.used.get(rank, 0) + count

    def release(self, cores: dict[int, int]) -> None:
        """Give cores back."""
        for rank, count in cores.items():
            self.used[rank] = max(self.used.get(rank, 0) - count, 0)

    def as_r(self, ranks: set[int], nodelist: bool = True, used: bool = False) -> dict[str, Any]:
        """Return an R (RFC 20) of these ranks, of all their cores or of those that jobs have."""
        chosen = [self.nodes[rank] for rank in sorted(ranks & set(self.nodes))]
        by_cores: dict[int, list[int]] = {}
        for node in chosen:
            cores = self.used[node.rank] if used else node.cores
            by_cores.setdefault(cores, []).append(node.rank)
        execution: dict[str, Any] = {
            "R_lite": [
                {"rank": lists.idset(members), "children": {"core": lists.idset(range(cores))}}
                for cores, members in by_cores.items()
            ],
            "starttime": 0.0,
            "expiration": 0.0,
        }
        if nodelist:
            execution["nodelist"] = [lists.fold(node.host for node in chosen)]
            names = sorted({name for node in chosen for name in node.properties})
            if names:
                execution["properties"] = {
                    name: lists.idset(node.rank for node in chosen if name in node.properties)
                    for name in names
                }
        return {"version": 1, "execution": execution}

    def status(self) -> dict[str, Any]:
        """Return the answer to resource.status."""
        every = set(self.nodes)
        return {
            "R": self.as_r(every),
            "drain": self._drains(),
            "online": lists.idset(self.online),
            "offline": lists.idset(every - self.online),
            "exclude": lists.idset(self.excluded),
            "torpid": "",
        }

    def _drains(self) -> dict[str, dict[str, Any]]:
        """Return the drains, those of one time and reason together."""
        made: dict[tuple[float, str], list[int]] = {}
        for rank, drain in self.drained.items():
            made.setdefault((drain["timestamp"], drain["reason"]), []).append(rank)
        return {
            lists.idset(ranks): {"timestamp": when, "reason": reason}
            for (when, reason), ranks in made.items()
        }


class Queue:
    """Every job of the instance."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._began = time.time()

    def submit(self, user_id: int, urgency: int, jobspec: str, credential: str) -> Job:
        """Take a job in."""
        now = time.time()
        number = (int((now - self._began) * 1000) << 24) + len(self.jobs) + 1
        job = Job(number, user_id, urgency, json.loads(jobspec), credential, now)
        job.note("submit", userid=user_id, urgency=urgency, flags=0, version=1)
        self.jobs[number] = job
        return job

    def pending(self) -> list[Job]:
        """Return the jobs that wait, in the order in which they are served."""
        waiting = [job for job in self.jobs.values() if job.state == SCHED]
        return sorted(waiting, key=lambda job: (-job.urgency, job.number))
