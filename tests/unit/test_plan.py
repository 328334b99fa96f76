# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst is as large as the waiting jobs need, and no larger than it may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._plan import Plan, Request, plan
from hypothesis import given
from hypothesis import strategies as st
from large_plan import large_plan

Row = dict[str, Any]

ALLOWED = ["b-1", "b-2", "b-3"]
NOW = 1795525200.0  # 2026-11-24 13:00 UTC
SMALL = {"name": "small", "cores": 2, "memory_mb": 4000, "gpus": 0, "price_per_hour": 0.5}
LARGE = {"name": "large", "cores": 4, "memory_mb": 16000, "gpus": 1, "price_per_hour": 2.0}
UNPRICED = {"name": "unpriced", "cores": 2, "memory_mb": 4000, "gpus": 0}


def job(name: str = "f1", **changed: Any) -> Row:
    asked = {"nodes": 4, "slots": 1, "cores_per_slot": 1, "gpus_per_slot": 0}
    return {"id": name, "urgency": 16, **asked, **changed}


def slots(count: int, name: str = "f1", **changed: Any) -> Row:
    return job(name, nodes=0, slots=count, **changed)


def rank(host: str, state: str, **changed: Any) -> Row:
    return {"host": host, "state": state, "cores": 2, "gpus": 0, "drain_reason": None, **changed}


def cluster(state: str = "free", burst: str = "down", /, **of_hosts: Row) -> list[Row]:
    """A lead, a worker in that state and three hosts to burst; of_hosts changes ranks, b_1 that of b-1."""
    ranks = [
        rank("lead", "excluded"),
        rank("worker", state),
        *(rank(host, burst) for host in ALLOWED),
    ]
    changes = {host.replace("_", "-"): changed for host, changed in of_hosts.items()}
    return [
        {"rank": number, **row, **changes.get(row["host"], {})} for number, row in enumerate(ranks)
    ]


def decide(jobs: list[Row], ranks: list[Row] | None = None, **request: Any) -> Plan:
    asked = Request(**{"allowed": ALLOWED, "burst": "mine", "now": NOW, **request})
    return plan(jobs, cluster() if ranks is None else ranks, asked)


def case(name: str, queue: list[Row], nodes: list[Row], asked: Row, /, **expected: Any) -> Any:
    return pytest.param(queue, nodes, asked, expected, id=name)


GPU = {"properties": ["gpu"]}
HAS_GPU = {"properties": ["gpu"]}

NODES = [
    case("the free worker counts", [job()], cluster(), {}, new_hosts=ALLOWED, jobs=["f1"]),
    case("what is free suffices", [job(nodes=1)], cluster(), {}, new_hosts=[], local_jobs=["f1"]),
    case("no more than needed", [job(nodes=2)], cluster(), {}, new_hosts=["b-1"]),
    case(
        "too many nodes are not booted for",
        [job(nodes=9)],
        cluster(),
        {},
        new_hosts=[],
        left={"f1": "asks for 9 nodes; at most 4 that match can be had (1 free, 3 to boot)"},
    ),
    case(
        "a busy worker does not count", [job(nodes=3)], cluster("allocated"), {}, new_hosts=ALLOWED
    ),
    case(
        "a drained worker does not count", [job(nodes=3)], cluster("drained"), {}, new_hosts=ALLOWED
    ),
    case(
        "a draining worker does not count",
        [job(nodes=3)],
        cluster("draining"),
        {},
        new_hosts=ALLOWED,
    ),
    case(
        "an excluded worker does not count",
        [job(nodes=3)],
        cluster("excluded"),
        {},
        new_hosts=ALLOWED,
    ),
    case(
        "a worker that is down is not booted",
        [job(nodes=3)],
        cluster("down"),
        {},
        new_hosts=ALLOWED,
    ),
    case(
        "an excluded host is not booted",
        [job(nodes=2)],
        cluster(b_1={"state": "excluded"}),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "a drained host is not booted",
        [job(nodes=2)],
        cluster(b_1={"drain_reason": ""}),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "a host that a burst has drained is booted again once its machine is gone, and is to be undrained",
        [job(nodes=2)],
        cluster(b_1={"drain_reason": "flux.burst preempted"}),
        {},
        new_hosts=["b-1"],
        undrain=["b-1"],
    ),
    case(
        "a machine that a burst has drained and that is still there is no help",
        [job(nodes=2)],
        cluster(b_1={"state": "drained", "drain_reason": "flux.burst preempted"}),
        {"existing": ["b-1"]},
        new_hosts=["b-2"],
        undrain=[],
    ),
    case(
        "a host that another burst holds is not booted",
        [job(nodes=2)],
        cluster(b_1={"claim": {"burst": "other", "until": NOW + 1}}),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "a host is booted once another's claim on it is over, or is its own",
        [job()],
        cluster(
            b_1={"claim": {"burst": "other", "until": NOW}},
            b_2={"claim": {"burst": "mine", "until": NOW + 1}},
        ),
        {},
        new_hosts=ALLOWED,
    ),
    case(
        "a host that runs already is not booted",
        [job(nodes=2)],
        cluster(b_1={"state": "free"}),
        {},
        new_hosts=[],
    ),
    case(
        "no job needs nothing",
        [],
        cluster(),
        {"existing": ["b-2"]},
        hosts=["b-2"],
        new_hosts=[],
        time_limit=0,
    ),
    case(
        "hosts are booted in the order in which they are allowed",
        [job(nodes=2)],
        cluster(),
        {"allowed": ["b-3", "b-1"]},
        new_hosts=["b-3"],
    ),
    case(
        "whole nodes need enough cores for their slots",
        [job(nodes=2, slots=3)],
        cluster(),
        {},
        left={"f1": "asks for 3 cores on one node; the largest node that matches has 2"},
    ),
    case(
        "a slot needs a node that holds it",
        [slots(1, cores_per_slot=8)],
        cluster(),
        {},
        left={"f1": "asks for 8 cores in one slot; the largest node that matches has 2"},
    ),
    case(
        "a slot needs gpus",
        [slots(1, gpus_per_slot=1)],
        cluster(),
        {},
        left={"f1": "asks for 1 gpus in one slot; the largest node that matches has 0"},
    ),
    case(
        "cores and gpus must be on the same node",
        [slots(1, cores_per_slot=2, gpus_per_slot=1)],
        cluster(b_1={"cores": 1, "gpus": 1}),
        {},
        left={
            "f1": "asks for 2 cores, 1 gpus and 0 MB of memory in one slot; no node that matches has all of them"
        },
    ),
    case(
        "gpus bring their node",
        [job(nodes=1, gpus_per_slot=1)],
        cluster(b_2={"gpus": 1}),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "an unknown job key or a missing one does not hurt",
        [{"id": "f1", "urgency": 16, "nodes": 2}],
        cluster(),
        {},
        new_hosts=["b-1"],
    ),
]

ADDING = [
    case(
        "jobs add up",
        [job(nodes=1), job("f2", nodes=1)],
        cluster(),
        {},
        new_hosts=["b-1"],
        local_jobs=["f1"],
        jobs=["f2"],
    ),
    case(
        "a job that does not fit beside the first is left",
        [job(), job("f2", nodes=2)],
        cluster(),
        {},
        new_hosts=ALLOWED,
        left={
            "f2": "asks for 2 nodes; the jobs that are served leave 0 that match (0 free, 0 to boot)"
        },
    ),
    case(
        "a smaller job passes one that does not fit",
        [job(nodes=5), job("f2", nodes=2)],
        cluster(),
        {},
        new_hosts=["b-1"],
        jobs=["f2"],
    ),
    case(
        "priority goes first",
        [job(nodes=3), job("f2", priority=20)],
        cluster(),
        {},
        jobs=["f2"],
        left=["f1"],
    ),
    case(
        "of equal priority the older goes first",
        [job(submitted=2.0), job("f2", submitted=1.0)],
        cluster(),
        {},
        jobs=["f2"],
        left=["f1"],
    ),
    case(
        "of equal age the lesser id goes first",
        [job("f2"), job("f1")],
        cluster(),
        {},
        jobs=["f1"],
        left=["f2"],
    ),
    case(
        "a job that is named twice counts once",
        [job(nodes=2), job(nodes=2)],
        cluster(),
        {},
        new_hosts=["b-1"],
        jobs=["f1"],
    ),
]

SLOTS = [
    case("slots fill nodes", [slots(5)], cluster(), {}, new_hosts=["b-1", "b-2"]),
    case(
        "slots of several jobs share a node",
        [slots(3), slots(1, "f2")],
        cluster(),
        {},
        new_hosts=["b-1"],
        jobs=["f1", "f2"],
    ),
    case(
        "slots use the rest of a busy node",
        [slots(1)],
        cluster("allocated", worker={"free_cores": 1}),
        {},
        new_hosts=[],
        local_jobs=["f1"],
    ),
    case(
        "whole nodes do not use the rest of a busy node",
        [job(nodes=1)],
        cluster("allocated", worker={"free_cores": 1}),
        {},
        new_hosts=["b-1"],
    ),
    case(
        "an exclusive job does not use the rest of a busy node",
        [slots(1, exclusive=True)],
        cluster("allocated", worker={"free_cores": 1}),
        {},
        new_hosts=["b-1"],
    ),
    case(
        "an exclusive job shares with nobody",
        [slots(1, exclusive=True), slots(1, "f2")],
        cluster(),
        {},
        new_hosts=["b-1"],
        local_jobs=["f1"],
        jobs=["f2"],
    ),
    case(
        "gpus that others have do not count",
        [slots(1, gpus_per_slot=1)],
        cluster("allocated", worker={"gpus": 2, "free_cores": 1, "free_gpus": 0}),
        {},
        left=["f1"],
    ),
    case(
        "slots leave whole nodes to those that need them",
        [slots(1), job("f2", nodes=1)],
        [*cluster(), rank("other", "allocated", rank=9, free_cores=1)],
        {},
        new_hosts=[],
        local_jobs=["f1", "f2"],
    ),
    case(
        "slots leave gpus to those that need them",
        [slots(1), slots(1, "f2", gpus_per_slot=1)],
        [*cluster(worker={"gpus": 1, "cores": 1}), rank("other", "free", rank=9)],
        {},
        local_jobs=["f1", "f2"],
    ),
    case(
        "slots boot the larger hosts, so that they are fewer",
        [slots(5)],
        cluster("down", b_3={"cores": 8}),
        {},
        new_hosts=["b-3"],
    ),
    case(
        "slots of one size boot in the order of the hosts",
        [slots(3)],
        cluster("down"),
        {},
        new_hosts=["b-1", "b-2"],
    ),
    case(
        "too many slots are not booted for",
        [slots(20)],
        cluster(),
        {},
        left={"f1": "asks for 20 slots; at most 8 that match can be had (2 free, 6 to boot)"},
    ),
    case(
        "a slot without cores fits anywhere",
        [slots(3, cores_per_slot=0)],
        cluster(),
        {},
        local_jobs=["f1"],
    ),
]

EXISTING = [
    case(
        "a machine that boots is counted",
        [job(nodes=2)],
        cluster(),
        {"existing": ["b-1"]},
        new_hosts=[],
        hosts=["b-1"],
        jobs=["f1"],
    ),
    case(
        "a machine that is up serves as the burst's",
        [job(nodes=2)],
        cluster(b_1={"state": "free"}),
        {"existing": ["b-1"]},
        new_hosts=[],
        jobs=["f1"],
    ),
    case(
        "the worker goes before the burst's machines",
        [job(nodes=1)],
        cluster(b_1={"state": "free"}),
        {"existing": ["b-1"]},
        local_jobs=["f1"],
    ),
    case(
        "a busy machine of the burst is no help",
        [job(nodes=2)],
        cluster(b_1={"state": "allocated"}),
        {"existing": ["b-1"]},
        new_hosts=["b-2"],
    ),
    case(
        "a drained machine of the burst is no help and is kept",
        [job(nodes=2)],
        cluster(b_1={"drain_reason": "bad"}),
        {"existing": ["b-1"]},
        new_hosts=["b-2"],
        hosts=["b-1", "b-2"],
    ),
    case(
        "machines outside the hostlist are kept at the end",
        [],
        cluster(),
        {"existing": ["a-9", "b-2"]},
        hosts=["b-2", "a-9"],
        groups=[("", ["b-2"], [])],
    ),
    case(
        "a machine outside the hostlist serves",
        [job(nodes=2)],
        cluster(),
        {"allowed": ["b-2"], "existing": ["b-1"]},
        new_hosts=[],
        hosts=["b-1"],
        jobs=["f1"],
    ),
    case(
        "the worker goes first even where it has gpus to spare",
        [job(nodes=1)],
        cluster(worker={"gpus": 1}, b_1={"state": "free"}),
        {"existing": ["b-1"]},
        local_jobs=["f1"],
    ),
    case(
        "what is up goes before what boots, even where something will run there",
        [slots(1, constraints={"hostlist": ["b-1"]}), slots(1, "f2")],
        cluster(),
        {"existing": ["b-1"]},
        jobs=["f1"],
        local_jobs=["f2"],
    ),
    case(
        "the last node of a job keeps what the job does not need",
        [slots(3), slots(1, "f2")],
        cluster(),
        {"existing": ["b-1"]},
        new_hosts=[],
        jobs=["f1", "f2"],
    ),
]

LIMITS = [
    case(
        "the limit holds",
        [job(nodes=3)],
        cluster(),
        {"max_hosts": 1},
        new_hosts=[],
        left={"f1": "needs 2 more machines; burst_max_hosts allows 1 more"},
    ),
    case(
        "machines that exist count towards the limit",
        [job(nodes=3)],
        cluster(),
        {"max_hosts": 1, "existing": ["b-1"]},
        new_hosts=[],
        left={"f1": "needs 1 more machine; burst_max_hosts allows 0 more"},
    ),
    case(
        "machines that exist are kept above the limit",
        [],
        cluster(),
        {"max_hosts": 1, "existing": ["b-1", "b-2"]},
        hosts=["b-1", "b-2"],
    ),
    case(
        "earlier jobs use the limit up",
        [job(nodes=2), job("f2", nodes=1)],
        cluster(),
        {"max_hosts": 1},
        jobs=["f1"],
        left={"f2": "needs 1 more machine; burst_max_hosts allows 0 more"},
    ),
    case(
        "what is short is said before the limit",
        [job(nodes=9)],
        cluster(),
        {"max_hosts": 1},
        left={"f1": "asks for 9 nodes; at most 4 that match can be had (1 free, 3 to boot)"},
    ),
]

FILTERS = [
    case(
        "a held job waits for its user",
        [job(urgency=0)],
        cluster(),
        {},
        left={"f1": "is held (urgency 0)"},
    ),
    case(
        "a job with dependencies waits",
        [job(state="depend")],
        cluster(),
        {},
        left={"f1": "waits for its dependencies"},
    ),
    case(
        "a job without a priority waits",
        [job(state="priority")],
        cluster(),
        {},
        left={"f1": "waits for its priority"},
    ),
    case(
        "a stopped queue keeps its jobs",
        [job(waits_for="queue batch is stopped")],
        cluster(),
        {},
        left={"f1": "waits: queue batch is stopped"},
    ),
    case(
        "a job that waits for resources is what a burst is for",
        [job(waits_for="resources")],
        cluster(),
        {},
        jobs=["f1"],
    ),
    case(
        "a job whose turn comes is planned",
        [job(nodes=1, waits_for="turn")],
        cluster(),
        {},
        local_jobs=["f1"],
    ),
    case(
        "another burst's claim holds",
        [job(claim={"burst": "x", "until": NOW + 60})],
        cluster(),
        {},
        left={"f1": "is claimed by burst x until 2026-11-24 13:01 UTC"},
    ),
    case(
        "another burst's claim expires",
        [job(claim={"burst": "x", "until": NOW})],
        cluster(),
        {},
        jobs=["f1"],
    ),
    case(
        "our own claim does not keep us",
        [job(claim={"burst": "mine", "until": NOW + 60})],
        cluster(),
        {},
        jobs=["f1"],
    ),
    case(
        "a job may not outlive the machines",
        [job(duration=21600.0)],
        cluster(),
        {"max_run_seconds": 14400},
        left={"f1": "may run for 6 h, but the machines end after 4 h (burst_max_run_duration)"},
    ),
    case(
        "a job may live as long as the machines",
        [job(duration=14400.0)],
        cluster(),
        {"max_run_seconds": 14400},
        jobs=["f1"],
        time_limit=14400,
    ),
    case(
        "a jobspec that cannot be read is said",
        [job(problem="its jobspec cannot be read")],
        cluster(),
        {},
        left={"f1": "cannot be planned for: its jobspec cannot be read"},
    ),
    case(
        "the hold is said before all else",
        [job(urgency=0, state="depend", nodes=9)],
        cluster(),
        {},
        left={"f1": "is held (urgency 0)"},
    ),
    case(
        "the claim is said before the duration",
        [job(duration=9.0, claim={"burst": "x", "until": NOW + 60})],
        cluster(),
        {"max_run_seconds": 5},
        left={"f1": "is claimed by burst x until 2026-11-24 13:01 UTC"},
    ),
]

CONSTRAINTS = [
    case(
        "a property chooses the host",
        [job(nodes=1, constraints=GPU)],
        cluster(b_3=HAS_GPU),
        {},
        new_hosts=["b-3"],
    ),
    case(
        "a property that nothing has is named",
        [job(nodes=1, constraints=GPU)],
        cluster(),
        {},
        left={"f1": "asks for property gpu, which none of b-[1-3] has"},
    ),
    case(
        "a property that a drained host has is named with it",
        [job(nodes=1, constraints=GPU)],
        cluster(b_3={**HAS_GPU, "drain_reason": ""}),
        {},
        left={"f1": "asks for property gpu; what has it (b-3) is busy, drained or excluded"},
    ),
    case(
        "a property can be forbidden",
        [job(nodes=1, constraints={"properties": ["^gpu"]})],
        cluster("down", b_1=HAS_GPU),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "hosts can be named",
        [job(nodes=2, constraints={"hostlist": ["b-[2-3]"]})],
        cluster(),
        {},
        new_hosts=["b-2", "b-3"],
    ),
    case(
        "ranks can be named",
        [job(nodes=2, constraints={"ranks": ["3-4"]})],
        cluster(),
        {},
        new_hosts=["b-2", "b-3"],
    ),
    case(
        "and means each of them",
        [job(nodes=1, constraints={"and": [GPU, {"hostlist": ["b-2"]}]})],
        cluster(b_1=HAS_GPU, b_2=HAS_GPU),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "or means any of them",
        [job(nodes=2, constraints={"or": [GPU, {"ranks": ["2"]}]})],
        cluster(b_3=HAS_GPU),
        {},
        new_hosts=["b-1", "b-3"],
    ),
    case(
        "not means not all of them together, as Flux has it",
        [job(nodes=1, constraints={"not": [GPU, {"hostlist": ["b-1"]}]})],
        cluster("allocated", b_1=HAS_GPU, b_2=HAS_GPU),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "several operators must all hold",
        [job(nodes=1, constraints={**GPU, "hostlist": ["b-2"]})],
        cluster(b_1=HAS_GPU, b_2=HAS_GPU),
        {},
        new_hosts=["b-2"],
    ),
    case(
        "an operator that is not known is named",
        [job(constraints={"and": [{"moon": ["full"]}]})],
        cluster(),
        {},
        left={"f1": "has a constraint that cannot be evaluated: the operator 'moon' is not known"},
    ),
    case(
        "a hostlist that cannot be read is named",
        [job(constraints={"hostlist": ["b-["]})],
        cluster(),
        {},
        left={"f1": "has a constraint that cannot be evaluated: the hostlist 'b-[' is not known"},
    ),
    case(
        "an idset that cannot be read is named",
        [job(constraints={"ranks": ["x"]})],
        cluster(),
        {},
        left={"f1": "has a constraint that cannot be evaluated: the idset 'x' is not known"},
    ),
    case(
        "few that match are counted",
        [job(nodes=3, constraints=GPU)],
        cluster(b_3=HAS_GPU),
        {},
        left={"f1": "asks for 3 nodes; at most 1 that match can be had (0 free, 1 to boot)"},
    ),
    case(
        "nobody takes a special node who can do without",
        [job(nodes=1), job("f2", nodes=1, constraints=GPU)],
        [*cluster(worker=HAS_GPU), rank("other", "free", rank=9)],
        {},
        new_hosts=[],
        local_jobs=["f1", "f2"],
    ),
]

TYPES = [
    case(
        "a host gets the first machine type that fits",
        [job(nodes=2)],
        cluster(),
        {"machine_types": [SMALL, LARGE]},
        groups=[("small", ["b-1"], ["b-1"])],
    ),
    case(
        "R decides which machine type fits",
        [job(nodes=2)],
        cluster(b_1={"cores": 3}),
        {"machine_types": [SMALL, LARGE]},
        groups=[("large", ["b-1"], ["b-1"])],
    ),
    case(
        "memory chooses a later machine type",
        [job(nodes=2, memory_mb_per_slot=5000)],
        cluster(),
        {"machine_types": [SMALL, LARGE]},
        groups=[("large", ["b-1"], ["b-1"])],
    ),
    case(
        "slots on a node add their memory up",
        [slots(4, memory_mb_per_slot=3000)],
        cluster(),
        {"machine_types": [SMALL, LARGE]},
        groups=[("large", ["b-1"], ["b-1"])],
    ),
    case(
        "the last node of a job holds what is left of it",
        [slots(5, memory_mb_per_slot=3000)],
        cluster(),
        {"machine_types": [SMALL, LARGE]},
        groups=[("small", ["b-2"], ["b-2"]), ("large", ["b-1"], ["b-1"])],
    ),
    case(
        "too much memory is named",
        [job(nodes=2, memory_mb_per_slot=17000)],
        cluster("down"),
        {"machine_types": [SMALL, LARGE]},
        left={
            "f1": "asks for 17000 MB of memory in one slot; the largest node that matches has 16000"
        },
    ),
    case(
        "memory of the lead's nodes is not known and counts as enough",
        [job(nodes=1, memory_mb_per_slot=10**6)],
        cluster(),
        {"machine_types": [SMALL]},
        local_jobs=["f1"],
    ),
    case(
        "without machine types all memory is enough",
        [job(nodes=2, memory_mb_per_slot=10**6)],
        cluster(),
        {},
        groups=[("", ["b-1"], ["b-1"])],
    ),
    case(
        "a host that no machine type fits is said",
        [job(nodes=4)],
        cluster(b_1={"cores": 8}),
        {"machine_types": [SMALL, LARGE]},
        new_hosts=[],
        left={
            "f1": "needs machines such as b-1, to which R gives 8 cores and 0 gpus; "
            "no machine type has as many (small, large)"
        },
    ),
    case(
        "a host that no machine type fits is passed over",
        [job(nodes=2)],
        cluster(b_1={"cores": 8}),
        {"machine_types": [SMALL]},
        new_hosts=["b-2"],
    ),
    case(
        "machines that exist are in their group",
        [job(nodes=3)],
        cluster(),
        {"machine_types": [SMALL], "existing": ["b-2"]},
        groups=[("small", ["b-1", "b-2"], ["b-1"])],
    ),
    case(
        "the price is that of the new hosts",
        [job(nodes=4, duration=7200.0)],
        cluster(),
        {"machine_types": [SMALL], "existing": ["b-2"]},
        price=2.0,
        time_limit=7200,
    ),
    case(
        "an unknown price stays unknown",
        [job(nodes=2, duration=60.0)],
        cluster(),
        {"machine_types": [UNPRICED]},
        price=None,
    ),
    case(
        "without a limit there is no price",
        [job(nodes=2)],
        cluster(),
        {"machine_types": [SMALL]},
        price=None,
        time_limit=0,
    ),
    case(
        "nothing new costs nothing",
        [job(nodes=1)],
        cluster(),
        {"machine_types": [UNPRICED]},
        price=0.0,
    ),
]

TWO = [job(nodes=3, duration=60.0), job("f2", duration=30.0)]
SIZINGS = [
    case(
        "all at once need their sum and the longest time",
        [job(nodes=2, duration=60.0), job("f2", nodes=1, duration=30.0)],
        cluster(),
        {},
        new_hosts=["b-1", "b-2"],
        time_limit=60,
    ),
    case(
        "the widest needs its own and the sum of times",
        TWO,
        cluster(),
        {"sizing": "widest"},
        new_hosts=ALLOWED,
        jobs=["f1", "f2"],
        time_limit=90,
    ),
    case(
        "the widest takes the hosts of the others",
        [job(nodes=3), job("f2", nodes=2)],
        cluster(),
        {"sizing": "widest"},
        new_hosts=["b-1", "b-2"],
    ),
    case(
        "the widest counts each kind of node",
        [job(nodes=2, constraints=GPU), job("f2", nodes=2)],
        cluster("down", b_2=HAS_GPU, b_3=HAS_GPU),
        {"sizing": "widest"},
        new_hosts=["b-2", "b-3"],
    ),
    case(
        "the widest takes turns on the free nodes too",
        [job(nodes=1), job("f2", nodes=1)],
        cluster(),
        {"sizing": "widest"},
        new_hosts=[],
        local_jobs=["f1", "f2"],
    ),
    case(
        "the widest stays within the limit",
        TWO,
        cluster(),
        {"sizing": "widest", "max_hosts": 2},
        new_hosts=["b-1", "b-2"],
        left={"f2": "needs 1 more machine; burst_max_hosts allows 0 more"},
    ),
    case(
        "a later job asks for more memory on the same host",
        [job(nodes=3, memory_mb_per_slot=1000), job("f2", nodes=2, memory_mb_per_slot=9000)],
        cluster(),
        {"sizing": "widest", "machine_types": [SMALL, LARGE]},
        groups=[("small", ["b-2"], ["b-2"]), ("large", ["b-1"], ["b-1"])],
    ),
    case(
        "a later job asks for more memory on several hosts",
        [job(nodes=4, memory_mb_per_slot=1000), job("f2", nodes=3, memory_mb_per_slot=9000)],
        cluster(),
        {"sizing": "widest", "machine_types": [SMALL, LARGE]},
        groups=[("small", ["b-3"], ["b-3"]), ("large", ["b-1", "b-2"], ["b-1", "b-2"])],
    ),
    case(
        "jobs that take turns do not add their memory up",
        [slots(4, memory_mb_per_slot=2000), slots(4, "f2", memory_mb_per_slot=2000)],
        cluster(),
        {"sizing": "widest", "machine_types": [SMALL, LARGE]},
        groups=[("small", ["b-1"], ["b-1"])],
    ),
    case(
        "cap is all while there is room",
        [job(nodes=2), job("f2", nodes=2)],
        cluster(),
        {"sizing": "cap"},
        new_hosts=ALLOWED,
        jobs=["f1", "f2"],
    ),
    case(
        "at the cap a job takes its turn",
        [job(nodes=3, duration=60.0), job("f2", nodes=3, duration=60.0)],
        cluster(),
        {"sizing": "cap", "max_hosts": 2},
        new_hosts=["b-1", "b-2"],
        jobs=["f1", "f2"],
        time_limit=120,
    ),
    case(
        "at the cap a larger job brings what is still missing",
        TWO,
        cluster(),
        {"sizing": "cap", "max_hosts": 3},
        new_hosts=ALLOWED,
        jobs=["f1", "f2"],
    ),
    case(
        "a job larger than the cap is left",
        TWO,
        cluster(),
        {"sizing": "cap", "max_hosts": 2},
        jobs=["f1"],
        left={"f2": "needs 1 more machine; burst_max_hosts allows 0 more"},
    ),
    case(
        "a job that takes its turn does not add its memory to the others",
        [
            job(nodes=2, memory_mb_per_slot=9000),
            job("f2", nodes=4, memory_mb_per_slot=9000),
            slots(1, "f3", memory_mb_per_slot=9000),
        ],
        cluster(),
        {"sizing": "cap", "machine_types": [SMALL, LARGE]},
        groups=[("large", ALLOWED, ALLOWED)],
        jobs=["f1", "f2", "f3"],
    ),
    case(
        "a sum of times ends with the machines",
        TWO,
        cluster(),
        {"sizing": "widest", "max_run_seconds": 70},
        time_limit=70,
    ),
    case(
        "a job without a duration needs the machines to their end",
        [job(nodes=2, duration=60.0), job("f2", nodes=1)],
        cluster(),
        {"max_run_seconds": 70},
        time_limit=70,
    ),
    case(
        "local jobs need no machines, however long",
        [job(nodes=1), job("f2", nodes=1, duration=9.5)],
        cluster(),
        {"max_run_seconds": 70},
        time_limit=10,
    ),
]


@pytest.mark.parametrize(
    ("jobs", "ranks", "request_", "expected"),
    [*NODES, *ADDING, *SLOTS, *EXISTING, *LIMITS, *FILTERS, *CONSTRAINTS, *TYPES, *SIZINGS],
)
def test_a_plan(jobs: list[Row], ranks: list[Row], request_: Row, expected: Row) -> None:
    decided = decide(jobs, ranks, **request_)
    seen = {**vars(decided), "left": {row["id"]: row["reason"] for row in decided.left}}
    seen["groups"] = [
        (row["machine_type"], row["hosts"], row["new_hosts"]) for row in decided.groups
    ]
    if isinstance(expected.get("left"), list):
        seen["left"] = list(seen["left"])
    assert {key: seen[key] for key in expected} == expected
    check(decided, jobs, ranks, request_)


@pytest.mark.parametrize(
    ("jobs", "request_", "message"),
    [
        ([job()], {}, "burst 3 machines (b-[1-3]) for 1 job (f1)"),
        ([], {}, "nothing to burst: no waiting job is marked as burstable"),
        ([job(nodes=1)], {}, "nothing to burst: the nodes that are free suffice for 1 job (f1)"),
        ([], {"existing": ["b-1"]}, "nothing more to burst; keep 1 machine (b-1)"),
        (
            [job(nodes=9)],
            {},
            "nothing to burst: no waiting burstable job can be served; leave 1 job (f1)",
        ),
        (
            [job(nodes=2), job("f2", nodes=9), job("f3", urgency=0)],
            {"existing": ["b-3"], "max_hosts": 2},
            "nothing more to burst; keep 1 machine (b-3); leave 2 jobs (f2, f3)",
        ),
    ],
)
def test_the_decision_is_said_in_one_line(jobs: list[Row], request_: Row, message: str) -> None:
    assert decide(jobs, **request_).message == message


@pytest.mark.parametrize(
    ("nodes", "request_", "new"),
    [
        # It serves jobs as any other does, and costs no machine more.
        (3, {}, ["b-1", "b-2"]),
        (3, {"existing": ["b-3"]}, ["b-1"]),
        (1, {"max_hosts": 1}, []),
        (2, {"max_hosts": 1}, ["b-1"]),
        (3, {"max_hosts": 2}, ["b-1", "b-2"]),
        (1, {}, []),
        # One that is gone comes back though no job waits: the others cannot do without it.
        (1, {"existing": ["b-2"]}, ["b-1"]),
        (1, {"existing": ["b-1", "b-2"]}, []),
    ],
)
def test_a_gateway_is_in_every_plan_that_has_a_machine(
    nodes: int, request_: Row, new: list[str]
) -> None:
    made = decide([job(nodes=nodes)], gateway="b-1", **request_)
    assert made.new_hosts == new
    assert ("b-1" in made.hosts) == bool(made.hosts)


def test_a_gateway_boots_for_a_job_that_it_cannot_serve_itself() -> None:
    ranks = cluster(b_2={"properties": ["gpu"]})
    made = decide([job(nodes=1, constraints=GPU)], ranks, gateway="b-1")
    assert made.new_hosts == ["b-1", "b-2"]
    none = decide([job(nodes=1, constraints=GPU)], ranks, gateway="b-1", max_hosts=1)
    assert (none.new_hosts, len(none.left)) == ([], 1)


def test_a_gateway_that_comes_back_for_no_job_is_said_to() -> None:
    made = decide([], gateway="b-1", existing=["b-2", "b-3"])
    assert made.message == (
        "burst 1 machine (b-1), which the others need to join; keep 2 machines (b-[2-3])"
    )


def test_a_machine_drained_on_the_lead_is_left_out_by_name() -> None:
    decided = decide([job(nodes=2)], cluster(b_1={"drain_reason": "broken"}))
    assert decided.new_hosts == ["b-2"]
    assert decided.message.endswith("; b-1 is drained on the lead and is left out")


def test_a_line_does_not_name_hundreds_of_jobs() -> None:
    decided = decide([job(f"f{number}", urgency=0) for number in range(500)])
    assert len(decided.message) < 250


def test_a_host_that_the_lead_does_not_declare_is_an_error_by_name() -> None:
    with pytest.raises(
        SpecError, match=r"burst_hostlist: wanted hosts .* found c-\[1-2\] not in it"
    ):
        decide([job()], allowed=["b-1", "c-1", "c-2"])


def test_a_sizing_that_is_not_known_is_an_error_by_name() -> None:
    with pytest.raises(SpecError, match=r"sizing: wanted one of all, widest, cap, found 'most'"):
        decide([job()], sizing="most")


# An independent, slow and simple view of the same rules, for clusters in which nothing but cores matters.


def check(decided: Plan, jobs: list[Row], ranks: list[Row], request: Row) -> None:
    """What holds for every plan."""
    existing, limit = set(request.get("existing", [])), request.get("max_hosts", 0)
    allowed = request.get("allowed", ALLOWED)
    assert existing <= set(decided.hosts) <= {*allowed, *existing}
    assert decided.hosts == [*dict.fromkeys(decided.hosts)]
    assert set(decided.new_hosts) == set(decided.hosts) - existing
    assert not limit or len(decided.hosts) <= max(limit, len(existing))
    assert not decided.new_hosts or decided.jobs
    ids = [*decided.jobs, *decided.local_jobs, *(row["id"] for row in decided.left)]
    assert sorted(ids) == sorted({row["id"] for row in jobs})
    grouped = [host for group in decided.groups for host in group["hosts"]]
    assert sorted(grouped) == sorted(set(decided.hosts) & set(allowed))
    ours = {row["host"] for row in ranks if (row["drain_reason"] or "").startswith("flux.burst")}
    down = {
        row["host"]
        for row in ranks
        if row["state"] == "down" and (row["drain_reason"] is None or row["host"] in ours)
    }
    assert set(decided.undrain) <= ours & set(decided.hosts)
    assert set(decided.new_hosts) <= down


def usable(ranks: list[Row], machines: Sequence[str]) -> tuple[tuple[int, bool], ...]:
    """The cores left on each node, and whether it is whole, were there these machines."""
    found = []
    for row in ranks:
        if row["state"] in ("free", "allocated"):
            default = row["cores"] if row["state"] == "free" else 0
            found.append((row.get("free_cores", default), row["state"] == "free"))
        elif row["state"] == "down" and row["host"] in machines:
            found.append((row["cores"], True))
    return tuple(sorted(found))


def packs(jobs: Sequence[Row], nodes: tuple[tuple[int, bool], ...]) -> bool:
    """Whether all jobs run at once, by trying every way to place them."""
    if not jobs:
        return True
    ways = {nodes}
    first = jobs[0]
    for _again in range(first["nodes"] or first["slots"]):
        need = first["cores_per_slot"] * (first["slots"] if first["nodes"] else 1)
        after = set()
        for way in ways:
            for place, (cores, whole) in enumerate(way):
                if cores >= need and (whole or not first["nodes"]):
                    left = (-1, False) if first["nodes"] else (cores - need, False)
                    after.add(tuple(sorted((*way[:place], left, *way[place + 1 :]))))
        ways = after
    return any(packs(jobs[1:], way) for way in ways)


def fewest(jobs: Sequence[Row], ranks: list[Row], existing: Sequence[str], spare: int) -> int:
    """How many more machines all these jobs need at once, where one is like the other."""
    others = [host for host in ALLOWED if host not in existing]
    for count in range(spare):
        if packs(jobs, usable(ranks, [*existing, *others[:count]])):
            return count
    return spare


ASKED = st.one_of(
    st.fixed_dictionaries({"nodes": st.integers(1, 5), "slots": st.integers(1, 2)}),
    st.fixed_dictionaries(
        {"nodes": st.just(0), "slots": st.integers(1, 5), "cores_per_slot": st.integers(1, 2)}
    ),
)
JOBS = st.lists(ASKED, max_size=4).map(
    lambda rows: [job(f"f{number}", **row) for number, row in enumerate(rows)]
)
STATES = st.sampled_from(["free", "allocated", "drained", "excluded"])
WORKERS = st.lists(st.tuples(STATES, st.integers(0, 1)), max_size=3)
EXISTS = st.sets(st.sampled_from(ALLOWED)).map(sorted)
WAYS = st.sampled_from(["all", "widest", "cap"])


def workers(rows: list[tuple[str, int]], hosts: list[Row]) -> list[Row]:
    made = [
        rank(f"w-{number}", state, **({"free_cores": free} if state == "allocated" else {}))
        for number, (state, free) in enumerate(rows)
    ]
    return [{**row, "rank": number} for number, row in enumerate([*made, *hosts])]


UNIFORM = [rank(host, "down") for host in ALLOWED]


@given(JOBS, WORKERS, EXISTS, st.integers(0, 4), WAYS)
def test_a_plan_keeps_what_exists_and_stays_within_its_limits(
    jobs: list[Row], rows: list[tuple[str, int]], existing: list[str], limit: int, sizing: str
) -> None:
    ranks, request = workers(rows, UNIFORM), {"existing": existing, "max_hosts": limit}
    check(decide(jobs, ranks, sizing=sizing, **request), jobs, ranks, request)


@given(JOBS, WORKERS, EXISTS, st.integers(0, 4))
def test_all_served_jobs_run_at_once_on_the_fewest_machines(
    jobs: list[Row], rows: list[tuple[str, int]], existing: list[str], limit: int
) -> None:
    ranks = workers(rows, UNIFORM)
    decided = decide(jobs, ranks, existing=existing, max_hosts=limit)
    served = [row for row in jobs if row["id"] in (*decided.jobs, *decided.local_jobs)]
    assert packs(served, usable(ranks, decided.hosts))
    new = len(decided.new_hosts)
    assert new == fewest(served, ranks, existing, new)


@given(JOBS, WORKERS, EXISTS, st.integers(0, 4))
def test_the_widest_job_alone_says_how_many_machines_there_are(
    jobs: list[Row], rows: list[tuple[str, int]], existing: list[str], limit: int
) -> None:
    ranks = workers(rows, UNIFORM)
    decided = decide(jobs, ranks, existing=existing, max_hosts=limit, sizing="widest")
    served = [row for row in jobs if row["id"] in (*decided.jobs, *decided.local_jobs)]
    spare = len(ALLOWED) - len(existing)
    needed = [fewest([row], ranks, existing, spare) for row in served]
    assert len(decided.new_hosts) == max(needed, default=0)
    for row in jobs:
        assert (row in served) == packs([row], usable(ranks, decided.hosts))


@given(JOBS, WORKERS, EXISTS, st.integers(0, 4))
def test_at_the_cap_each_served_job_fits_alone(
    jobs: list[Row], rows: list[tuple[str, int]], existing: list[str], limit: int
) -> None:
    ranks = workers(rows, UNIFORM)
    decided = decide(jobs, ranks, existing=existing, max_hosts=limit, sizing="cap")
    for row in jobs:
        served = row["id"] in (*decided.jobs, *decided.local_jobs)
        assert served == packs([row], usable(ranks, decided.hosts))


@given(JOBS, WORKERS, st.lists(st.integers(1, 4), min_size=3, max_size=3), st.integers(0, 4))
def test_all_served_jobs_run_at_once_on_hosts_of_any_size(
    jobs: list[Row], rows: list[tuple[str, int]], sizes: list[int], limit: int
) -> None:
    hosts = [rank(host, "down", cores=cores) for host, cores in zip(ALLOWED, sizes, strict=True)]
    ranks = workers(rows, hosts)
    decided = decide(jobs, ranks, max_hosts=limit)
    served = [row for row in jobs if row["id"] in (*decided.jobs, *decided.local_jobs)]
    assert packs(served, usable(ranks, decided.hosts))


@given(JOBS, WORKERS, WAYS, st.randoms(use_true_random=False))
def test_the_order_of_jobs_and_ranks_does_not_matter(
    jobs: list[Row], rows: list[tuple[str, int]], sizing: str, random: Any
) -> None:
    ranks = workers(rows, UNIFORM)
    decided = decide(jobs, ranks, sizing=sizing)
    assert (
        decide(random.sample(jobs, len(jobs)), random.sample(ranks, len(ranks)), sizing=sizing)
        == decided
    )


@given(JOBS, WORKERS, st.integers(0, 4), WAYS)
def test_a_second_run_while_the_machines_boot_asks_for_nothing_more(
    jobs: list[Row], rows: list[tuple[str, int]], limit: int, sizing: str
) -> None:
    ranks = workers(rows, UNIFORM)
    first = decide(jobs, ranks, max_hosts=limit, sizing=sizing)
    again = decide(jobs, ranks, max_hosts=limit, sizing=sizing, existing=first.hosts)
    assert (again.hosts, again.new_hosts, again.jobs) == (first.hosts, [], first.jobs)


def test_five_thousand_jobs_meet_five_thousand_nodes() -> None:
    jobs, ranks, request = large_plan()
    decided = plan(jobs, ranks, request)
    # 500 half nodes and 500 whole ones are free: 1500 slots, for 750 of the jobs that ask for two of them.
    assert len(decided.local_jobs) == 750
    assert len(decided.jobs) + len(decided.left) == len(jobs) - 750
    assert len(decided.new_hosts) == 2500
    assert plan(jobs[::-1], ranks[::-1], request) == decided
    assert len(plan(jobs, ranks, replace(request, sizing="widest")).new_hosts) == 2
