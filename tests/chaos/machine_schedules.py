# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schedules of faults over the whole path of a burst: of Compute Engine, machines, the way to them, and the lead."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from burst_sandbox import LEAD, machines
from fault_schedules import KINDS, Fault, Schedule

HOSTS = machines(3)
ON_LEAD = {"burst": 10, "teardown": 6}
"""How often a playbook executes something on the lead; on each machine it does once."""
API = tuple(KINDS)


def _host(it: random.Random, _playbook: str) -> Fault:
    return {"host": it.choice(HOSTS)}


def _on_host(it: random.Random, _playbook: str) -> Fault:
    """A machine's one execution is about to begin."""
    return {"host": it.choice(HOSTS), "nth": 0, "moment": "before"}


def _around(it: random.Random, _playbook: str) -> Fault:
    return {"host": it.choice(HOSTS), "nth": 0, "moment": it.choice(["before", "after"])}


def _on_lead(it: random.Random, playbook: str) -> Fault:
    moment = it.choice(["before", "after"])
    return {"host": LEAD, "nth": it.randrange(ON_LEAD[playbook]), "moment": moment}


def _anywhere(it: random.Random, playbook: str) -> Fault:
    return _on_lead(it, playbook) if it.random() < 0.6 else _around(it, playbook)


def _for_a_while(it: random.Random, playbook: str) -> Fault:
    # Before the execution: it is what is hit.
    return {**_on_lead(it, playbook), "moment": "before", "seconds": it.randint(2, 8)}


# Each returns one fault in the words of tests/chaos/machine_faults.py, which makes it happen.
MACHINE_KINDS: dict[str, Callable[[random.Random, str], Fault]] = {
    "never boots": _host,
    "boots late": lambda it, playbook: {**_host(it, playbook), "seconds": it.randint(2, 6)},
    "dies": _around,
    "preempted": _around,
    "disk full": _on_host,
    "munge dead": _on_host,
    "clock off": _on_host,
    "tunnel cut": lambda it, playbook: {
        **_anywhere(it, playbook),
        "moment": "before",
        "seconds": it.choice([0, 0, 1, 3]),
    },
    "lead unreachable": _for_a_while,
    "lead restarts": _on_lead,
    "controller killed": _anywhere,
}
# What befalls a machine that is made, or what it needs to join, means nothing to a teardown.
OF_A_TEARDOWN = tuple(
    kind
    for kind in (*API, *MACHINE_KINDS)
    if kind not in ("never boots", "boots late", "stockout", "partial", "quota", "clock off")
)


@dataclass(frozen=True)
class MachineSchedule(Schedule):
    """Faults of one run of a playbook, and whether a burst runs again before the teardown."""

    playbook: str = "burst"
    again: bool = True

    def __str__(self) -> str:
        then = "" if self.playbook == "teardown" or self.again else ", then no second one"
        return f"{self.playbook}: {super().__str__()}{then}"


def machine_schedule(seed: int) -> MachineSchedule:
    """Return the schedule that a seed stands for, always the same."""
    it = random.Random(f"machines {seed}")
    playbook = "teardown" if it.random() < 0.25 else "burst"
    possible = OF_A_TEARDOWN if playbook == "teardown" else (*API, *MACHINE_KINDS)
    # Faults of machines and of the way are as many as all of Compute Engine's, and the first is one of them.
    machine = [kind for kind in possible if kind in MACHINE_KINDS]
    chosen = [it.choice(machine)]
    chosen += [it.choice(it.choice([machine, API])) for _more in range(it.choice([0, 0, 1, 1, 2]))]
    faults = []
    for kind in dict.fromkeys(kind for kind in chosen if kind in possible):
        if kind in MACHINE_KINDS:
            faults.append((kind, MACHINE_KINDS[kind](it, playbook)))
        else:
            fault = KINDS[kind](it)
            few = "*" not in fault["method"]
            faults.append((kind, {**fault, "after": it.randint(0, 1 if few else 20)}))
    return MachineSchedule(tuple(faults), None, playbook, it.random() < 0.8)
