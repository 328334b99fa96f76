# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting jobs as plain data: from what job-list (Flux RFC 43) and a jobspec (RFC 14, RFC 25) say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import printable

STATES = {2: "depend", 4: "priority", 8: "sched"}
PENDING = frozenset(STATES)
LISTED = [
    "userid",
    "urgency",
    "priority",
    "t_submit",
    "state",
    "name",
    "queue",
    "ntasks",
    "duration",
    "dependencies",
]
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# The draft of RFC 14 that Fluxion takes beside V1 calls itself 9999.
VERSIONS = (1, 9999)
# A job's owner writes what he likes: no path is longer, and what has more levels, or counts more, is no request.
LONGEST, DEEPEST, MOST = 4096, 20, 10**9
MEGABYTES = {"": 1, "MB": 1, "MiB": 1, "GB": 1024, "GiB": 1024, "TB": 1024**2, "TiB": 1024**2}


def f58(number: int) -> str:
    """Return a job id in the form that a shell takes anywhere: f and base 58 (RFC 19)."""
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return f"f{digits or BASE58[0]}"


def job_number(text: str) -> int:
    """Return the number of a job id in base 58 (f... or \u0192...) or in decimal. Raises ValueError."""
    if text[:1] in ("f", "\u0192") and len(text) > 1:
        number = 0
        for digit in text[1:]:
            number = number * 58 + BASE58.index(digit)
        return number
    return int(text)


@dataclass(frozen=True)
class Selection:
    """Which of the waiting jobs are meant. What is empty selects nothing away; min_age is in seconds."""

    attribute: str = "burstable"
    value: str = ""
    queues: tuple[str, ...] = ()
    user_ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    min_age: float = 0.0

    def constraint(self, now: float) -> dict[str, Any]:
        """Return what the broker itself can select by, as a constraint of RFC 43."""
        parts: list[dict[str, Any]] = [{"states": ["pending"]}]
        if self.queues:
            parts.append({"queue": list(self.queues)})
        if self.user_ids:
            parts.append({"userid": list(self.user_ids)})
        if self.names:
            parts.append({"name": list(self.names)})
        if self.min_age:
            parts.append({"t_submit": [f"<={now - self.min_age:.6f}"]})
        return {"and": parts}

    def may_take(self, jobspec: str) -> bool:
        """Return whether a jobspec's text can hold the attribute; spares parsing the many that do not."""
        return not self.attribute or json.dumps(self.attribute) in jobspec

    def takes(self, jobspec: Mapping[str, Any]) -> tuple[bool, Any]:
        """Return whether the jobspec's system attributes are as wanted, and the attribute's value."""
        system = jobspec.get("attributes", {}).get("system", {})
        value = system.get(self.attribute)
        if self.attribute and self.attribute not in system:
            return False, None
        return not self.value or self.value in (value, json.dumps(value)), value


def shape(jobspec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one job asks for.

    nodes (0 = slots on any number of nodes), slots (of each node where it asks for nodes, else in total), cores,
    gpus and memory (MB) of a slot, exclusive, constraints (RFC 31), and `problem`, "" for a jobspec that can be read.
    """
    asked: dict[str, Any] = {
        "nodes": 0,
        "slots": 1,
        "cores_per_slot": 0,
        "gpus_per_slot": 0,
        "memory_mb_per_slot": 0,
        "exclusive": False,
        "constraints": None,
        "problem": "",
    }
    try:
        if jobspec["version"] not in VERSIONS:
            raise ValueError(
                f"its jobspec has version {jobspec['version']}, version 1 is understood"
            )
        _walk(jobspec["resources"], asked, in_slot=False)
        system = jobspec.get("attributes", {}).get("system", {})
        asked["constraints"] = _small(system.get("constraints"), "constraints")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        known = isinstance(error, ValueError) and str(error).startswith("its ")
        asked["problem"] = printable(str(error)) if known else "its jobspec cannot be read"
    return asked


def _small(value: Any, what: str) -> Any:
    """Return what a user wrote into a jobspec. Raises ValueError for what only wants to be laborious."""
    if len(json.dumps(value)) > LONGEST or _depth(value) > DEEPEST:
        raise ValueError(
            f"its {what} has more than {LONGEST} characters, or more than {DEEPEST} levels"
        )
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _walk(resources: Iterable[Mapping[str, Any]], asked: dict[str, Any], in_slot: bool) -> None:
    for resource in resources:
        kind, count = resource["type"], least(resource.get("count", 1))
        inner = in_slot
        asked["exclusive"] = asked["exclusive"] or bool(resource.get("exclusive"))
        if kind == "node":
            # Slots of whole nodes: so many nodes, and one slot on each.
            asked["nodes"] = count * (asked["slots"] if in_slot else 1)
            asked["slots"] = 1
        elif kind == "slot":
            if in_slot:
                raise ValueError("its jobspec has slots in slots, which cannot be placed")
            asked["slots"] = count
            inner = True
        elif kind in ("core", "gpu"):
            asked[f"{kind}s_per_slot"] += count
        elif kind == "memory":
            asked["memory_mb_per_slot"] += count * MEGABYTES[resource.get("unit", "")]
        _walk(resource.get("with", []), asked, inner)


def least(count: Any) -> int:
    """Return the smallest number that a jobspec count allows: 4, {"min": 2, ...}, "2-8" or "2+"."""
    if isinstance(count, Mapping):
        count = count["min"]
    number = int(str(count).partition("-")[0].partition(":")[0].rstrip("+"))
    if not 0 <= number <= MOST:
        raise ValueError(f"its jobspec has a count of {number}")
    return number


def read_jobspec(text: str) -> dict[str, Any]:
    """Return a jobspec; an unreadable one becomes an empty object, of which `shape` says that it cannot be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def asked_of(jobspec: str | dict[str, Any], selection: Selection) -> dict[str, Any] | None:
    """Return what never changes of a job that is selected, None for one that is not; a jobspec may be its text."""
    if isinstance(jobspec, str):
        if not selection.may_take(jobspec):
            return None
        jobspec = read_jobspec(jobspec)
    try:
        taken, value = selection.takes(jobspec)
        cwd = jobspec.get("attributes", {}).get("system", {}).get("cwd", "")
    except (AttributeError, RecursionError):
        return None
    if not taken:
        return None
    asked = shape(jobspec)
    try:
        value = _small(value, f"attribute {selection.attribute}")
    except (ValueError, RecursionError) as error:
        value, asked["problem"] = None, asked["problem"] or printable(str(error))
    return {"attribute_value": value, "cwd": printable(str(cwd), LONGEST), **asked}


def waiting_job(listed: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return one job as flux_queue_info gives it; listed is its entry of job-list."""
    per_node = asked["slots"] if asked["nodes"] else 0
    return {
        "id": f58(listed["id"]),
        "user_id": listed["userid"],
        "name": printable(listed.get("name", ""), LONGEST),
        "state": STATES.get(listed["state"], str(listed["state"])),
        "urgency": listed["urgency"],
        "priority": listed.get("priority", 0),
        "submitted": listed["t_submit"],
        "queue": listed.get("queue", ""),
        "duration": listed.get("duration", 0.0),
        "tasks": listed.get("ntasks", 0),
        "cores_per_node": per_node * asked["cores_per_slot"],
        "gpus_per_node": per_node * asked["gpus_per_slot"],
        **{key: value for key, value in asked.items() if key != "in_queue"},
        "waits_for": waits_for(listed),
        "claim": None,
    }


def waits_for(listed: Mapping[str, Any]) -> str:
    """Return what keeps a job from the scheduler, "resources" where nothing does."""
    if listed["state"] == 2:
        names = map(str, listed.get("dependencies", []))
        return printable(" ".join(["dependencies", *names]), LONGEST)
    if listed["state"] == 4:
        return "priority"
    if listed["urgency"] == 0:
        return "hold"
    return "resources"


def fits_now(job: Mapping[str, Any], ranks: Iterable[Any]) -> bool:
    """Return whether free nodes (rows of _flux_resource.Rank) would take the job: then only its turn has not come.

    A job with constraints is not looked at.
    """
    if job["constraints"] or job["problem"]:
        return False
    wanted = job["nodes"] or job["slots"]
    for rank in ranks:
        if rank.state not in ("free", "allocated") or wanted <= 0:
            continue
        whole = job["nodes"] or job["exclusive"]
        if whole and rank.state != "free":
            continue
        slots = min(
            [
                have // need
                for have, need in (
                    (rank.free_cores, job["cores_per_slot"]),
                    (rank.free_gpus, job["gpus_per_slot"]),
                )
                if need
            ],
            default=job["slots"],
        )
        wanted -= (slots >= job["slots"]) if job["nodes"] else slots
    return bool(wanted <= 0)
