# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the selected jobs among all that wait, with as few questions to the broker as can be."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _flux,
    _flux_claim,
    _flux_queue,
    _flux_resource,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError

# More unknown jobs than this are cheaper to take from the job manager's journal, which streams every active job.
FEW = 400
FORMAT = 1
CURRENT = 2
MOST_KEPT = 500_000


class Cache:
    """What is known of jobs by id, and cannot change: None for a job that is not selected.

    A file of the reader's own; one that is missing, of another instance or not as it should be is the same as none.
    """

    def __init__(self, folder: str, identity: str) -> None:
        name = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = Path(folder) / f"queue-{name}.json" if folder else None
        self.known: dict[int, dict[str, Any] | None] = {}
        try:
            self._load()
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self.known = {}

    def _load(self) -> None:
        if self.path is None:
            return
        with open(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW), encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return
            content = json.load(file)
        if content["format"] == FORMAT:
            self.known = dict.fromkeys(content["others"], None)
            self.known.update({int(number): row for number, row in content["selected"].items()})

    def keep(self, known: dict[int, dict[str, Any] | None]) -> None:
        """Write what is known for the next reader; a place that cannot be written is done without."""
        if self.path is None or known == self.known:
            return
        content = {
            "format": FORMAT,
            "others": [number for number, row in known.items() if row is None],
            "selected": {number: row for number, row in known.items() if row is not None},
        }
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self.path.parent)
            with open(handle, "w", encoding="utf-8") as file:
                # json.dump() would write piece by piece, in Python: ten times slower.
                file.write(json.dumps(content))
            os.replace(draft, self.path)
        except OSError:
            pass


def read(
    client: _flux.FluxClient, selection: _flux_queue.Selection, cache_dir: str = ""
) -> tuple[list[dict[str, Any]], int]:
    """Return the selected jobs in the scheduler's order, and how many wait at all. Raises FluxError."""
    listed = client.rpc(
        "job-list.list",
        {"max_entries": 0, "attrs": [], "constraint": selection.constraint(time.time())},
    )["jobs"]
    waiting = [entry["id"] for entry in listed]
    stats = client.rpc("job-list.job-stats")["job_states"]
    pending = sum(stats[state] for state in _flux_queue.STATES.values())
    started = client.attribute("broker.starttime")
    cache = Cache(cache_dir, f"{client.uri} {started} {selection.attribute} {selection.value}")
    known = {number: cache.known[number] for number in waiting if number in cache.known}
    fresh = _ask(client, [number for number in waiting if number not in known], selection)
    known.update(fresh)
    entries = _entries(client, [number for number, asked in known.items() if asked is not None])
    # Of what a job asks only its constraints can change, and only with its queue.
    moved = [
        number
        for number, entry in entries.items()
        if number not in fresh and (known[number] or {})["in_queue"] != entry.get("queue", "")
    ]
    known.update(_ask(client, moved, selection))
    jobs = []
    for number, entry in entries.items():
        asked = known[number]
        if asked is not None:
            asked["in_queue"] = entry.get("queue", "")
            jobs.append(_flux_queue.waiting_job(entry, asked))
    # A selection by queue, user, name or age sees a part only: what is known of the others stays.
    stays = cache.known if len(waiting) < pending and len(cache.known) < MOST_KEPT else {}
    cache.keep({**stays, **known})
    jobs.sort(key=lambda job: (-job["priority"], job["submitted"], job["id"]))
    if jobs:
        _tell_why(client, jobs)
        _tell_claims(client, jobs)
    return jobs, pending


def _ask(
    client: _flux.FluxClient, numbers: list[int], selection: _flux_queue.Selection
) -> dict[int, dict[str, Any] | None]:
    """Return what these jobs ask for; None for those that are not selected. A job that is gone is left out."""
    if len(numbers) > FEW:
        return _journal(client, set(numbers), selection)
    questions = [{"id": number, "keys": ["jobspec"], "flags": CURRENT} for number in numbers]
    answers = zip(numbers, client.rpc_each("job-info.lookup", questions), strict=True)
    return {
        number: _flux_queue.asked_of(answer["jobspec"], selection)
        for number, answer in answers
        if answer is not None
    }


def _journal(
    client: _flux.FluxClient, numbers: set[int], selection: _flux_queue.Selection
) -> dict[int, dict[str, Any] | None]:
    found: dict[int, dict[str, Any] | None] = dict.fromkeys(numbers)
    stream = client.stream("job-manager.events-journal", {"allow": {"submit": 1}})
    while (text := stream.next()) is not None:
        if selection.may_take(text):
            response = client.read(stream.topic, text)
            if response["id"] in numbers and "jobspec" in response:
                found[response["id"]] = _flux_queue.asked_of(response["jobspec"], selection)
        # The end of the backlog is an entry without events, of no job.
        if len(text) < 64 and not client.read(stream.topic, text)["events"]:
            return found
    raise FluxError(
        f"wanted every active job from job-manager.events-journal of {client.uri}, found the stream ended "
        "before its backlog did: run again; see flux dmesg on that machine."
    )


def _entries(client: _flux.FluxClient, numbers: list[int]) -> dict[int, dict[str, Any]]:
    """Return job-list's entries of these jobs, without those that wait no more."""
    if len(numbers) > FEW:
        listed: Iterable[dict[str, Any]] = client.rpc(
            "job-list.list",
            {
                "max_entries": 0,
                "attrs": _flux_queue.LISTED,
                "constraint": {"states": ["pending"]},
            },
        )["jobs"]
    else:
        questions = [{"id": number, "attrs": _flux_queue.LISTED} for number in numbers]
        answers = client.rpc_each("job-list.list-id", questions)
        listed = [answer["job"] for answer in answers if answer is not None]
    wanted = set(numbers)
    return {
        entry["id"]: entry
        for entry in listed
        if entry["id"] in wanted and entry["state"] in _flux_queue.PENDING
    }


def _tell_why(client: _flux.FluxClient, jobs: list[dict[str, Any]]) -> None:
    stopped = {}
    for name in {job["queue"] for job in jobs}:
        try:
            status = client.rpc("job-manager.queue-status", {"name": name} if name else {})
        except FluxError:
            # A queue that is configured no more has no status, and its jobs wait for what they ask.
            continue
        if not status.get("start", True):
            stopped[name] = f"queue {name} is stopped" if name else "the queue is stopped"
    ranks = _flux_resource.read(client)
    for job in jobs:
        if job["waits_for"] == "resources" and job["queue"] in stopped:
            job["waits_for"] = stopped[job["queue"]]
        elif job["waits_for"] == "resources" and _flux_queue.fits_now(job, ranks):
            job["waits_for"] = "turn"


def _tell_claims(client: _flux.FluxClient, jobs: list[dict[str, Any]]) -> None:
    claims = _flux_claim.Claims(client).read(job["id"] for job in jobs)
    now = time.time()
    for job in jobs:
        claim = claims.get(job["id"])
        if claim is not None and claim.until > now:
            job["claim"] = {"burst": claim.burst, "until": claim.until, "by": claim.by}
