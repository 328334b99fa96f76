# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting jobs as plain data: from what job-list (Flux RFC 43) and a jobspec (RFC 14, RFC 25) say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

STATES = {2: "depend", 4: "priority", 8: "sched"}
LISTED = [
    "userid",
    "urgency",
    "priority",
    "t_submit",
    "state",
    "name",
    "queue",
    "nnodes",
    "ncores",
    "duration",
]
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def f58(number: int) -> str:
    """Return a job id in the form that a shell takes anywhere: f and base 58 (RFC 19)."""
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return f"f{digits or BASE58[0]}"


def may_have(attribute: str, jobspec: str) -> bool:
    """Return whether a jobspec's text can hold the attribute; spares parsing the many that do not."""
    return json.dumps(attribute) in jobspec


def marked(attribute: str, jobspec: str) -> tuple[bool, Any]:
    """Return whether the jobspec's system attributes hold this one, and its value."""
    system = json.loads(jobspec).get("attributes", {}).get("system", {})
    return attribute in system, system.get(attribute)


def shape(jobspec: str) -> dict[str, Any]:
    """Return what one job asks for: nodes (0 = any number), slots, cores and gpus of a slot, exclusive."""
    asked = {"nodes": 0, "slots": 1, "cores_per_slot": 0, "gpus_per_slot": 0, "exclusive": False}
    _walk(json.loads(jobspec).get("resources", []), asked, in_slot=False)
    return asked


def _walk(resources: Iterable[Mapping[str, Any]], asked: dict[str, Any], in_slot: bool) -> None:
    for resource in resources:
        kind, count = resource["type"], least(resource.get("count", 1))
        asked["exclusive"] = asked["exclusive"] or bool(resource.get("exclusive"))
        if kind == "node":
            asked["nodes"] = count
        elif kind == "slot":
            asked["slots"] = count
            in_slot = True
        elif kind in ("core", "gpu") and in_slot:
            asked[f"{kind}s_per_slot"] = count
        _walk(resource.get("with", []), asked, in_slot)


def least(count: Any) -> int:
    """Return the smallest number that a jobspec count allows: 4, {"min": 2, ...}, "2-8" or "2+"."""
    if isinstance(count, Mapping):
        return int(count["min"])
    return int(str(count).partition("-")[0].partition(":")[0].rstrip("+"))


def waiting_job(listed: Mapping[str, Any], jobspec: str, value: Any) -> dict[str, Any]:
    """Return one job as flux_queue_info gives it; listed is its entry of job-list.list."""
    return {
        "id": f58(listed["id"]),
        "user_id": listed["userid"],
        "name": listed.get("name", ""),
        "state": STATES.get(listed["state"], str(listed["state"])),
        "urgency": listed["urgency"],
        "priority": listed.get("priority", 0),
        "submitted": listed["t_submit"],
        "queue": listed.get("queue", ""),
        "duration": listed.get("duration", 0.0),
        "attribute_value": value,
        **shape(jobspec),
    }
