# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The RPCs on jobs: what waits, runs and has ended, and what a jobspec says."""

from __future__ import annotations

import errno
import json
import pwd
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from . import constraints, lists, run
from .constraints import STATES
from .jobs import COUNTED, INACTIVE, SCHED, Job
from .journal import Followers
from .local import fail

if TYPE_CHECKING:
    from .broker import Leader

ATTRIBUTES = {
    *("all", "userid", "urgency", "priority", "state", "name", "cwd", "queue", "project", "bank"),
    *("t_submit", "t_depend", "t_priority", "t_sched", "t_run", "t_cleanup", "t_inactive"),
    *("ntasks", "ncores", "duration", "nnodes", "ranks", "nodelist", "expiration", "waitstatus"),
    *("success", "exception_occurred", "exception_severity", "exception_type", "exception_note"),
    *("result", "annotations", "dependencies"),
}
DECODE, CURRENT = 1, 2


class JobMethods:
    """Answers of the job manager, job-list and job-info, and the stand-in's own for its commands."""

    def __init__(self, lead: Leader) -> None:
        self.lead = lead
        self.followers: Followers[dict[str, Any]] = Followers()

    def _job(self, number: int, text: str = "") -> Job:
        if number not in self.lead.queue.jobs:
            raise fail(errno.ENOENT, text)
        return self.lead.queue.jobs[number]

    def _row(self, job: Job) -> dict[str, Any]:
        row = job.listed()
        if job.ranks:
            ranks = lists.idset(job.ranks)
            row["ranks"] = f"[{ranks}]" if len(job.ranks) > 1 else ranks
            row["nodelist"] = lists.fold(self.lead.members[rank].host for rank in job.ranks)
        return row

    def _listed(self, job: Job, attrs: list[str]) -> dict[str, Any]:
        row = self._row(job)
        return row if "all" in attrs else {key: row[key] for key in row if key in ("id", *attrs)}

    async def rpc_job_list_list(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Pending by priority, then running, then inactive, the newest first."""
        limit, attrs = _needed(payload, "max_entries"), _attributes(payload)
        if limit < 0:
            raise fail(errno.EPROTO, "invalid payload: max_entries < 0 not allowed")
        meant, since = constraints.compiled(payload.get("constraint", {})), payload.get("since", 0)
        found = [job for job in self.lead.queue.jobs.values() if meant(self._row(job))]
        pending = [job for job in found if job.state & STATES["pending"]]
        running = [job for job in found if job.state & STATES["running"]]
        ended = [job for job in found if job.state == INACTIVE and job.ended > since]
        rows = [
            *sorted(pending, key=lambda job: (-job.urgency, job.number)),
            *sorted(running, key=lambda job: -job.started),
            *sorted(ended, key=lambda job: -job.ended),
        ]
        return {"jobs": [self._listed(job, attrs) for job in rows[: limit or len(rows)]]}

    async def rpc_job_list_list_id(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """One job."""
        attrs = _attributes(payload)
        return {"job": self._listed(self._job(payload["id"]), attrs)}

    async def rpc_job_list_job_stats(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """How many jobs there are in each state."""
        names = ("depend", "priority", "sched", "run", "cleanup", "inactive")
        jobs = self.lead.queue.jobs.values()
        counted = {name: sum(job.state == STATES[name] for job in jobs) for name in names}
        ended = [job.result for job in jobs if job.state == INACTIVE]
        return {
            "job_states": {**counted, "total": len(jobs)},
            **{name: ended.count(result) for result, name in COUNTED.items()},
            **{"timeout": 0, "inactive_purged": 0, "queues": []},
        }

    async def rpc_job_info_lookup(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """A jobspec or the eventlog, for the instance's owner and the job's own user."""
        if payload["flags"] & ~(DECODE | CURRENT):
            raise fail(errno.EPROTO, "lookup request rejected with invalid flag")
        job = self._job(payload["id"], "invalid job id")
        if uid not in (0, self.lead.owner, job.user_id):
            raise fail(errno.EPERM, "access is restricted to job/instance owner")
        answer: dict[str, Any] = {"id": job.number}
        for key in payload["keys"]:
            if key == "jobspec":
                text = json.dumps(job.jobspec, separators=(",", ":"))
                answer[key] = job.jobspec if payload["flags"] & DECODE else text
            elif key == "eventlog":
                rows = [json.dumps(event, separators=(",", ":")) + "\n" for event in job.events]
                answer[key] = "".join(rows)
            else:
                raise fail(errno.ENOENT, f"{key}: key not found")
        return answer

    async def rpc_job_manager_events_journal(
        self, payload: dict[str, Any], uid: int
    ) -> AsyncIterator[dict[str, Any]]:
        """Every active job's events with its jobspec, an entry of no job, and then each new event."""
        self.lead.owner_only(uid)
        return self._journal(payload)

    async def _journal(self, payload: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        allowed, denied = payload.get("allow"), payload.get("deny", {})

        def wanted(event: dict[str, Any]) -> bool:
            return (allowed is None or event["name"] in allowed) and event["name"] not in denied

        backlog: list[dict[str, Any]] = [
            {"id": job.number, "events": [*job.events], "jobspec": job.jobspec}
            for job in self.lead.queue.jobs.values()
            if payload.get("full") or job.state != INACTIVE
        ]
        sentinel: dict[str, Any] = {"id": -1, "events": []}
        left = len(backlog) + 1
        async for entry in self.followers.after([*backlog, sentinel]):
            events = [event for event in entry["events"] if wanted(event)]
            left -= 1
            if events or left >= 0:
                yield {**entry, "events": events}

    def note(self, job: Job, name: str, **context: Any) -> None:
        """Add an event to a job's log, and tell who follows."""
        self.tell(job, job.note(name, **context))

    def tell(self, job: Job, event: dict[str, Any]) -> None:
        """Tell who follows of an event that is in the log; the first comes with the jobspec."""
        more = {"jobspec": job.jobspec} if event["name"] == "submit" else {}
        self.followers.tell({"id": job.number, "events": [event], **more})

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
        if not isinstance(payload["memo"], dict):
            raise fail(errno.EINVAL)
        job.memo = _merged(job.memo, payload["memo"])
        self.note(job, "memo", **payload["memo"])

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
        self.tell(job, job.events[0])
        for name in ("validate", "depend"):
            self.note(job, name)
        self.note(job, "priority", priority=job.urgency)
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
            **self._row(job),
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
            job.state, job.ended, job.status, job.canceled = INACTIVE, time.time(), 1, True
            self.note(job, "exception", type="cancel", severity=0, note="", userid=uid)
            self.note(job, "clean")
            job.output.append("exception: cancel\n")
            self.lead.changed.set()


def _needed(payload: dict[str, Any], key: str) -> Any:
    if key not in payload:
        raise fail(errno.EPROTO, f"invalid payload: Object item not found: {key}")
    return payload[key]


def _attributes(payload: dict[str, Any]) -> list[str]:
    attrs: list[str] = _needed(payload, "attrs")
    unknown = [name for name in attrs if name not in ATTRIBUTES]
    if unknown:
        raise fail(errno.EINVAL, f"{unknown[0]} is not a valid attribute")
    return attrs


def _merged(notes: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return notes with others laid over them at every depth; null takes one away, and so does an empty object."""
    made = {**notes}
    for key, value in more.items():
        old = made.get(key)
        inner = old if isinstance(old, dict) else {}
        made[key] = _merged(inner, value) if isinstance(value, dict) else value
    return {key: value for key, value in made.items() if value is not None and value != {}}
