# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The RPCs on jobs: what waits, runs and has ended, and what a jobspec says."""

from __future__ import annotations

import errno
import json
import operator
import pwd
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from . import lists, run
from .jobs import INACTIVE, RUN, SCHED, Job
from .local import fail

if TYPE_CHECKING:
    from .broker import Leader

STATES = {
    "depend": 2,
    "priority": 4,
    "sched": SCHED,
    "run": RUN,
    "cleanup": 32,
    "inactive": INACTIVE,
    "pending": 2 | 4 | SCHED,
    "running": RUN | 32,
    "active": 2 | 4 | SCHED | RUN | 32,
}
COMPARED = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class JobMethods:
    """Answers of the job manager, job-list and job-info, and the stand-in's own for its commands."""

    def __init__(self, lead: Leader) -> None:
        self.lead = lead

    def _job(self, number: int, text: str = "") -> Job:
        if number not in self.lead.queue.jobs:
            raise fail(errno.ENOENT, text)
        return self.lead.queue.jobs[number]

    def _listed(self, job: Job, attrs: list[str]) -> dict[str, Any]:
        row = job.listed()
        if job.ranks:
            ranks = lists.idset(job.ranks)
            row["ranks"] = f"[{ranks}]" if len(job.ranks) > 1 else ranks
            row["nodelist"] = lists.fold(self.lead.members[rank].host for rank in job.ranks)
        return row if "all" in attrs else {key: row[key] for key in row if key in ("id", *attrs)}

    def _matches(self, job: Job, constraint: dict[str, Any]) -> bool:
        return all(self._match(job, name, values) for name, values in constraint.items())

    def _match(self, job: Job, name: str, values: list[Any]) -> bool:
        if name in ("and", "or", "not"):
            found = [self._matches(job, each) for each in values]
            return {"and": all(found), "or": any(found), "not": not all(found)}[name]
        row = self._listed(job, ["all"])
        if name == "states":
            unknown = [value for value in values if value not in STATES]
            if unknown:
                text = f"invalid payload: constraint object invalid: invalid states value '{unknown[0]}' specified"
                raise fail(errno.EPROTO, text)
            return any(job.state & STATES[value] for value in values)
        if name in ("userid", "name", "queue"):
            return row.get(name) in values
        if name == "hostlist":
            return bool(
                {*lists.expand(row.get("nodelist", ""))} & {*lists.expand(",".join(values))}
            )
        if name == "ranks":
            return bool({*lists.ids(row.get("ranks", ""))} & {*lists.ids(",".join(values))})
        if name.startswith("t_"):
            sign = values[0][:2] if values[0][1] == "=" else values[0][0]
            limit, when = float(values[0][len(sign) :]), row.get(name)
            return when is not None and bool(COMPARED[sign](when, limit))
        raise fail(
            errno.EPROTO,
            f"invalid payload: constraint object invalid: unknown constraint operator: {name}",
        )

    async def rpc_job_list_list(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Pending by priority, then running, then inactive, the newest first."""
        constraint, since = payload.get("constraint", {}), payload.get("since", 0.0)
        found = [job for job in self.lead.queue.jobs.values() if self._matches(job, constraint)]
        pending = [job for job in found if job.state & STATES["pending"]]
        running = [job for job in found if job.state & STATES["running"]]
        ended = [job for job in found if job.state == INACTIVE and job.ended > since]
        rows = [
            *sorted(pending, key=lambda job: (-job.urgency, job.number)),
            *sorted(running, key=lambda job: -job.started),
            *sorted(ended, key=lambda job: -job.ended),
        ]
        limit = payload.get("max_entries") or len(rows)
        return {"jobs": [self._listed(job, payload["attrs"]) for job in rows[:limit]]}

    async def rpc_job_list_list_id(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """One job."""
        return {"job": self._listed(self._job(payload["id"]), payload["attrs"])}

    async def rpc_job_list_job_stats(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """How many jobs there are in each state."""
        names = ("depend", "priority", "sched", "run", "cleanup", "inactive")
        jobs = self.lead.queue.jobs.values()
        counted = {name: sum(job.state == STATES[name] for job in jobs) for name in names}
        return {"job_states": {**counted, "total": len(jobs)}, "queues": []}

    async def rpc_job_info_lookup(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """A jobspec, for the instance's owner and the job's own user."""
        job = self._job(payload["id"])
        if uid not in (0, self.lead.owner, job.user_id):
            raise fail(errno.EPERM)
        return {"id": job.number, "jobspec": json.dumps(job.jobspec, separators=(",", ":"))}

    async def rpc_job_manager_events_journal(
        self, payload: dict[str, Any], uid: int
    ) -> AsyncIterator[dict[str, Any]]:
        """Every active job with its jobspec, then an entry of no job."""
        self.lead.owner_only(uid)
        return self._journal()

    async def _journal(self) -> AsyncIterator[dict[str, Any]]:
        for job in [*self.lead.queue.jobs.values()]:
            if job.state != INACTIVE:
                context = {"userid": job.user_id, "urgency": job.urgency, "flags": 0, "version": 1}
                event = {"timestamp": job.submitted, "name": "submit", "context": context}
                yield {"id": job.number, "events": [event], "jobspec": job.jobspec}
        yield {"id": -1, "events": []}
        await self.lead.ending.wait()

    async def rpc_job_manager_queue_status(
        self, payload: dict[str, Any], uid: int
    ) -> dict[str, Any]:
        """There are no named queues, and the one is always open."""
        if payload.get("name"):
            raise fail(errno.EINVAL, f"'{payload['name']}' is not a valid queue")
        return {"enable": True, "start": True}

    async def rpc_job_manager_memo(self, payload: dict[str, Any], uid: int) -> None:
        """Put a note on a job that has not ended, for all to see; null takes it away."""
        job = self._job(payload["id"], "unknown job id")
        if job.state == INACTIVE:
            raise fail(errno.ENOENT, "job is inactive")
        if uid not in (0, self.lead.owner, job.user_id):
            raise fail(errno.EPERM, "guests can only add a memo to their own jobs")
        notes = {**job.memo, **payload["memo"]}
        job.memo = {key: value for key, value in notes.items() if value is not None}

    async def rpc_standin_submit(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Take a job in."""
        guest = uid not in (0, self.lead.owner)
        credential = ""
        if guest:
            try:
                credential = await run.munge(payload["jobspec"])
            except OSError as error:
                raise fail(errno.EINVAL, str(error.strerror)) from None
        user = uid if guest else self.lead.owner
        queue = self.lead.queue
        job = queue.submit(user, payload["urgency"], payload["jobspec"], credential)
        plugins = self.lead.config.get("ingest", {}).get("validator", {}).get("plugins", [])
        why = self.lead.resources.infeasible(job) if "feasibility" in plugins else ""
        if why:
            del queue.jobs[job.number]
            raise fail(errno.EOVERFLOW, why)
        self.lead.changed.set()
        return {"id": job.number}

    async def rpc_standin_job(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """What the commands show of a job."""
        job = self._job(payload["id"])
        hosts = lists.fold(self.lead.members[rank].host for rank in job.ranks)
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

    async def rpc_standin_cancel(self, payload: dict[str, Any], uid: int) -> None:
        """End a job that waits."""
        job = self._job(payload["id"])
        if uid not in (0, self.lead.owner, job.user_id):
            raise fail(errno.EPERM)
        if job.state == SCHED:
            job.state, job.ended, job.status = INACTIVE, time.time(), 1
            job.output.append("exception: cancel\n")
            self.lead.changed.set()
