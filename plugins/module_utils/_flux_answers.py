# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broker's answers look like, as far as we read them: real Flux 0.88 and its RFCs 20, 21 and 43."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._answers import (
    NUMBER,
    Each,
    Readable,
    misfit,
)


def _not_negative(number: int) -> None:
    if number < 0:
        raise ValueError(number)


NOTHING = type(None)
ID = Readable(int, _not_negative, "the number of a job")
READDIR = 1
"""The flag of kvs.lookup that asks for a directory."""
JOB: Mapping[str, Any] = {
    "userid": int,
    "urgency": int,
    "priority": int,
    "t_submit": NUMBER,
    "t_inactive": NUMBER,
    "state": int,
    "name": str,
    "queue": str,
    "ntasks": int,
    "duration": NUMBER,
    "dependencies": list,
    "ranks": str,
}
ALWAYS = ("userid", "urgency", "t_submit", "t_inactive", "state")
"""Attributes that job-list gives of every job whom it is asked for; the others it may not have."""
LITE = [{"rank": str, "children": Each(str)}]
RESOURCES = {"execution": {"R_lite": LITE, "nodelist?": ([str], NOTHING), "properties?": Each(str)}}
ENTRY = {"type": str, "data?": (str, list, dict)}
ANSWERS: Mapping[str, Any] = {
    "attr.get": {"value": str},
    "config.get": {"bootstrap?": {"hosts?": [{"host": str}], "curve_cert?": str}},
    "job-info.lookup": {"jobspec": (str, dict)},
    "job-list.job-stats": {"job_states": {"depend": int, "priority": int, "sched": int}},
    "job-manager.events-journal": {"id": int, "events": list, "jobspec?": dict},
    "job-manager.queue-status": {"start?": bool},
    "overlay.health": {
        "status": str,
        "children": [{"rank": int, "status": str, "error?": str}],
    },
    "overlay.topology": {"children": [{"rank": int, "children?": list}]},
    "resource.journal": {
        "events": [
            {
                "name": str,
                "timestamp": NUMBER,
                "context?": ({"idset?": str, "online?": str}, NOTHING),
            }
        ]
    },
    "resource.status": {
        "R": RESOURCES,
        "online": str,
        "offline": str,
        "exclude": str,
        "drain": Each({"reason?": (str, NOTHING), "timestamp?": NUMBER}),
    },
    "sched.resource-status": {"allocated": {"execution?": ({"R_lite?": (LITE, NOTHING)}, NOTHING)}},
}


def wrong(topic: str, asked: Mapping[str, Any], answer: Any) -> str:
    """Return what in an answer is not as Flux gives it, "" where all is; asked is the question."""
    return misfit(answer, _shape(topic, asked), "the answer")


def _shape(topic: str, asked: Mapping[str, Any]) -> Any:
    if topic in ("job-list.list", "job-list.list-id"):
        wanted = asked.get("attrs", ())
        job = {name if name in ALWAYS else f"{name}?": JOB[name] for name in JOB if name in wanted}
        entry = {"id": ID, **job}
        return {"jobs": [entry]} if topic == "job-list.list" else {"job": entry}
    if topic == "kvs.lookup":
        return {"val": {"data": Each(ENTRY) if asked.get("flags") == READDIR else str}}
    return ANSWERS.get(topic, dict)


def no_json(error: Exception) -> str:
    """Return what is wrong with an answer that could not be read at all."""
    deep = isinstance(error, RecursionError)
    return "the answer is nested too deeply" if deep else f"the answer is no JSON ({error})"
