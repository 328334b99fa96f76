# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of bench_queue that runs inside a Flux instance: it fills the queue and reads it both ways."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import flux
import flux.job
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_queue, _flux_queue_read

BATCH = 500


def fill(handle: Any, jobs: int, marked: int) -> None:
    """Submit jobs that wait, `marked` of them burstable and spread evenly."""
    handle.rpc("resource.drain", {"targets": "0", "reason": "bench"}).get()
    plain = flux.job.JobspecV1.from_command(["true"])
    plain.cwd = "/tmp"
    plain.environment = {f"VARIABLE_{number}": "x" * 40 for number in range(40)}
    texts = [plain.dumps()]
    plain.setattr("burstable", 1)
    texts.append(plain.dumps())
    futures = []
    for number in range(jobs):
        burstable = (number + 1) * marked // jobs > number * marked // jobs
        futures.append(flux.job.submit_async(handle, texts[burstable]))
        if len(futures) == BATCH or number == jobs - 1:
            for future in futures:
                future.get_id()
            futures = []


def seed_way(handle: Any) -> int:
    """Find the marked jobs as flux-burst does: a list-id call and a KVS lookup for each job, one after the other."""
    listed = handle.rpc(
        "job-list.list", {"max_entries": 0, "attrs": ["all"], "constraint": PENDING}
    )
    found = 0
    for job in listed.get()["jobs"]:
        handle.rpc("job-list.list-id", {"id": job["id"], "attrs": ["all"]}).get()
        jobspec = flux.job.job_kvs(handle, job["id"]).get("jobspec")
        jobspec = json.loads(jobspec) if isinstance(jobspec, str) else jobspec
        found += "burstable" in jobspec["attributes"]["system"]
    return found


PENDING = {"states": ["pending"]}


def cpu(client: _flux.FluxClient) -> float:
    """Return how many CPU seconds the broker and its modules have used."""
    usage = client.rpc("broker.rusage", {"who": "self"})
    return float(usage["utime"]) + float(usage["stime"])


def measure(
    client: _flux.FluxClient, runs: dict[str, list[float]], name: str, what: Callable[[], int]
) -> int:
    """Note how long something takes, and how much CPU the broker uses for it; return its result."""
    before, start = cpu(client), time.perf_counter()
    found = what()
    runs.setdefault(name, []).append(time.perf_counter() - start)
    runs.setdefault(f"{name}_cpu", []).append(cpu(client) - before)
    return found


def queue(jobs: int, marked: int, rounds: int) -> dict[str, list[float]]:
    """Read the queue both ways in turn."""
    handle = flux.Flux()
    fill(handle, jobs, marked)
    client = _flux.FluxClient(handle.attr_get("local-uri"), 60)
    selection = _flux_queue.Selection()
    runs: dict[str, list[float]] = {}

    def ours(folder: str) -> int:
        found, pending = _flux_queue_read.read(client, selection, folder)
        assert pending == jobs
        return len(found)

    while len(listed(handle)) < jobs:
        time.sleep(0.1)
    for _unused in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found = [
                measure(client, runs, "cold", lambda: ours(folder)),
                measure(client, runs, "warm", lambda: ours(folder)),
                measure(client, runs, "seed", lambda: seed_way(handle)),
            ]
        assert found == [marked] * 3, found
    return runs


def listed(handle: Any) -> list[Any]:
    """Return the pending jobs that job-list knows of; it follows the job manager with a delay."""
    question = {"max_entries": 0, "attrs": [], "constraint": PENDING}
    jobs: list[Any] = handle.rpc("job-list.list", question).get()["jobs"]
    return jobs


if __name__ == "__main__":
    sizes = [int(text) for text in sys.argv[2:]]
    sys.stdout.write(
        json.dumps(queue(sizes[0], sizes[1], sizes[2] if len(sizes) > 2 else 3)) + "\n"
    )
