# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules of faults that a seed stands for, and the shortest part of one that still fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

Fault = dict[str, Any]
BULK = "instances.bulkInsert"
ZONES = ("us-central1-a", "us-central1-b")
# Each returns one fault, as sandbox/server/faults.py takes them. `after` spreads them over the calls of a run.
KINDS: dict[str, Callable[[random.Random], Fault]] = {
    "refused": lambda it: {
        "method": "*",
        "at": "request",
        "status": it.choice([429, 500, 502, 503, 504]),
        "times": it.randint(1, 3),
    },
    "dropped": lambda it: {"method": "*", "at": "request", "status": 0, "times": it.randint(1, 3)},
    "answer lost": lambda it: {
        "method": "*",
        "at": "answer",
        "status": 0,
        "times": it.randint(1, 2),
    },
    "slow": lambda it: {
        "method": "*",
        "at": "request",
        "status": 503,
        "times": 1,
        "seconds": it.uniform(0.1, 0.5),
    },
    "forbidden": lambda it: {
        "method": it.choice(["networks.insert", "firewalls.insert", "routers.patch", BULK]),
        "at": "request",
        "status": 403,
        "times": 1,
        "message": "Required 'compute.some.permission' permission",
    },
    "late error": lambda it: {
        "method": it.choice(["*.insert", BULK, "*.delete"]),
        "at": "operation",
        "status": 500,
        "code": "INTERNAL_ERROR",
        "times": 1,
    },
    "stockout": lambda it: {
        "method": BULK,
        "at": "operation",
        "status": 503,
        "code": "ZONE_RESOURCE_POOL_EXHAUSTED",
        "scope": f"zones/{it.choice(ZONES)}",
        "times": it.randint(1, 2),
    },
    "partial": lambda it: {
        "method": BULK,
        "at": "operation",
        "status": 503,
        "code": "ZONE_RESOURCE_POOL_EXHAUSTED",
        "fail_count": 1,
        "times": 1,
    },
    "quota": lambda it: {
        "method": BULK,
        "at": "operation",
        "status": 403,
        "code": "QUOTA_EXCEEDED",
        "message": "Quota 'CPUS' exceeded. Limit: 1.0 in region us-central1.",
        "times": it.randint(1, 2),
    },
}


@dataclass(frozen=True)
class Schedule:
    """Faults by kind, and at which call from the begin of a run its controller is killed, if at all."""

    faults: tuple[tuple[str, Fault], ...]
    killed_at: int | None

    def rules(self) -> list[Fault]:
        """Return the faults as the server takes them."""
        return [fault for _kind, fault in self.faults]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {where(fault)}" for kind, fault in self.faults)
        killed = "" if self.killed_at is None else f"; killed at call {self.killed_at}"
        return (kinds or "no fault") + killed


AnySchedule = TypeVar("AnySchedule", bound=Schedule)


def where(fault: Fault) -> str:
    """Return at which call, or else how, a fault comes."""
    if "after" in fault:
        return f"after {fault['after']}"
    return " ".join(f"{name} {value}" for name, value in fault.items())


def schedule(seed: int) -> Schedule:
    """Return the schedule that a seed stands for, always the same."""
    it = random.Random(seed)
    faults = []
    for kind in it.choices(list(KINDS), k=it.randint(1, 4)):
        fault = KINDS[kind](it)
        # One for a single method counts that method's calls, of which there are few.
        few = "*" not in fault["method"]
        faults.append((kind, {**fault, "after": it.randint(0, 1 if few else 30)}))
    killed_at = it.randint(0, 40) if it.random() < 0.4 else None
    return Schedule(tuple(faults), killed_at)


def shortest(given: AnySchedule, fails: Callable[[AnySchedule], bool]) -> AnySchedule:
    """Return the least part of a failing schedule that still fails: one thing less at a time, as long as it does."""
    found = given
    while True:
        less = [
            replace(found, faults=found.faults[:place] + found.faults[place + 1 :])
            for place in range(len(found.faults))
        ]
        if found.killed_at is not None:
            less.append(replace(found, killed_at=None))
        for each in less:
            if fails(each):
                found = each
                break
        else:
            return found


def kinds(schedules: Sequence[Schedule], known: Iterable[str] = tuple(KINDS)) -> dict[str, int]:
    """Return in how many schedules each kind of fault was."""
    return {kind: sum(kind in dict(each.faults) for each in schedules) for kind in known}
