# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""flux jobs."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from . import lists
from .local import Client

STATES = {8: "SCHED", 16: "RUN", 64: "INACTIVE"}
RESULTS = {1: "COMPLETED", 2: "FAILED", 4: "CANCELED"}
SHORT = {"SCHED": "S", "RUN": "R", "COMPLETED": "CD", "FAILED": "F", "CANCELED": "CA"}
HEADERS = {"id": "JOBID", "status_abbrev": "ST", "urgency": "URG", "username": "USER"}
FIELDS = {
    *("id", "userid", "username", "name", "queue", "status", "status_abbrev", "state", "result"),
    *("returncode", "urgency", "priority", "ntasks", "ncores", "nnodes", "nodelist", "ranks"),
    *("t_submit", "t_run", "t_inactive", "duration", "cwd"),
}
FIELD = re.compile(r"{([^}:!]*)[^}]*}")
FORMAT_ERROR = "flux-jobs: ERROR: Error in user format: Unknown format field: {}"


def listed(client: Client) -> list[dict[str, Any]]:
    """Return every job as job-list has it."""
    question = {"max_entries": 0, "attrs": ["all"]}
    rows: list[dict[str, Any]] = (client.ask("job-list.list", question) or {})["jobs"]
    return rows


def _status(row: dict[str, Any]) -> str:
    return RESULTS[row["result"]] if "result" in row else STATES[row["state"]]


def jobs(options: argparse.Namespace) -> int:
    """Print jobs, as a table or by a format such as {id} {status} {user.burst.name}."""
    client = Client()
    if options.format:
        return _formatted(client, options)
    if not options.no_header:
        titles = f"ST {'NTASKS':>6} {'NNODES':>6} {'TIME':>8} INFO"
        print(f"{'JOBID':>12} {'USER':<8} {'NAME':<10} {titles}")
    for row in listed(client):
        if not options.a and row["state"] == 64:
            continue
        job = client.ask("standin.job", {"id": row["id"]}) or {}
        state = SHORT[_status(row)]
        seconds = f"{job['seconds']:.3f}s" if job["seconds"] else "-"
        print(
            f"{lists.f58(row['id']):>12} {job['user']:<8} {job['name']:<10} {state:>2} {job['ntasks']:>6} "
            f"{job.get('nnodes', ''):>6} {seconds:>8} {job['hosts']}"
        )
    return 0


def _formatted(client: Client, options: argparse.Namespace) -> int:
    """What a job has not is empty."""
    unknown = [
        name
        for name in FIELD.findall(options.format)
        if name not in FIELDS and name.partition(".")[0] not in ("user", "annotations")
    ]
    if unknown:
        print(FORMAT_ERROR.format(unknown[0]), file=sys.stderr)
        return 1
    if not options.no_header:
        print(FIELD.sub(lambda found: HEADERS.get(found[1], found[1].upper()), options.format))
    for row in listed(client):
        if options.a or row["state"] != 64:
            print(_filled(options.format, _values(client, row)))
    return 0


def _values(client: Client, row: dict[str, Any]) -> dict[str, Any]:
    job = client.ask("standin.job", {"id": row["id"]}) or {}
    result = row.get("result")
    # As Flux has it: a job that was canceled before it ran has an exit code below 0.
    code = "" if result is None else -128 if result == 4 else job["status"]
    return {
        **row,
        "id": "\u0192" + lists.f58(row["id"])[1:],
        "username": job["user"],
        "status": _status(row),
        "status_abbrev": SHORT[_status(row)],
        "state": STATES[row["state"]],
        "result": RESULTS.get(result or 0, ""),
        "returncode": code,
        "user": row.get("annotations", {}).get("user", {}),
    }


def _filled(text: str, job: dict[str, Any]) -> str:
    def value(found: re.Match[str]) -> str:
        inner: Any = job
        for key in found[1].split("."):
            inner = inner.get(key, "") if isinstance(inner, dict) else ""
        return str(inner)

    return FIELD.sub(value, text)
