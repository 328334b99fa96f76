# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst is as large as the waiting jobs need, and no larger than it may be."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._plan import plan
from hypothesis import given
from hypothesis import strategies as st

ALLOWED = ["b-1", "b-2", "b-3"]


def job(name: str = "f1", **changed: Any) -> dict[str, Any]:
    asked = {"nodes": 4, "slots": 1, "cores_per_slot": 1, "gpus_per_slot": 0}
    return {"id": name, "urgency": 16, **asked, **changed}


def rank(host: str, state: str, **changed: Any) -> dict[str, Any]:
    return {"host": host, "state": state, "cores": 2, "gpus": 0, "drain_reason": None, **changed}


def cluster(worker: str = "free", burst: str = "down") -> list[dict[str, Any]]:
    return [
        rank("lead", "excluded"),
        rank("worker", worker),
        *(rank(host, burst) for host in ALLOWED),
    ]


@pytest.mark.parametrize(
    ("jobs", "ranks", "existing", "limit", "new"),
    [
        pytest.param([job()], cluster(), [], 0, ALLOWED, id="the free worker counts"),
        pytest.param([job(nodes=1)], cluster(), [], 0, [], id="what is free suffices"),
        pytest.param([job(nodes=2)], cluster(), [], 0, ["b-1"], id="no more than needed"),
        pytest.param([job(nodes=5)], cluster(), [], 0, [], id="too large"),
        pytest.param(
            [job(nodes=3)], cluster("allocated"), [], 0, ALLOWED, id="a busy worker does not count"
        ),
        pytest.param([job(nodes=3)], cluster(), [], 1, [], id="the limit holds"),
        pytest.param([job(urgency=0)], cluster(), [], 0, [], id="a held job waits for its user"),
        pytest.param(
            [job(nodes=2)], cluster(), ["b-1"], 0, [], id="a machine that boots is counted"
        ),
        pytest.param([job(), job("f2", nodes=2)], cluster(), [], 0, ALLOWED, id="the second waits"),
        pytest.param(
            [job(nodes=1), job("f2", nodes=1)], cluster(), [], 0, ["b-1"], id="jobs add up"
        ),
        pytest.param(
            [job(nodes=0, slots=5)], cluster(), [], 0, ["b-1", "b-2"], id="slots fill nodes"
        ),
        pytest.param([job(nodes=2, slots=3)], cluster(), [], 0, [], id="nodes are too small"),
        pytest.param([], cluster(), ["b-2"], 0, [], id="no job"),
    ],
)
def test_new_machines_are_what_the_jobs_lack(
    jobs: list[dict[str, Any]],
    ranks: list[dict[str, Any]],
    existing: list[str],
    limit: int,
    new: list[str],
) -> None:
    decided = plan(jobs, ranks, ALLOWED, existing, limit)
    assert decided.new_hosts == new
    assert decided.hosts == sorted({*existing, *new})


@pytest.mark.parametrize(
    ("jobs", "existing", "message"),
    [
        ([job()], [], "burst 3 machines (b-[1-3]) for 1 job (f1)"),
        ([], [], "nothing to burst: no waiting job is marked as burstable"),
        ([job(nodes=1)], [], "nothing to burst: the nodes that are free suffice for 1 job (f1)"),
        ([], ["b-1"], "nothing more to burst; keep 1 machine (b-1)"),
        (
            [job(nodes=9)],
            [],
            "nothing to burst: no waiting burstable job can be served; 1 job (f1) asks for more nodes than "
            "there can be",
        ),
    ],
)
def test_the_decision_is_said_in_one_line(
    jobs: list[dict[str, Any]], existing: list[str], message: str
) -> None:
    assert plan(jobs, cluster(), ALLOWED, existing, 0).message == message


def test_a_machine_drained_on_the_lead_is_left_out_by_name() -> None:
    ranks = [
        rank("worker", "free"),
        rank("b-1", "down", drain_reason="broken"),
        rank("b-2", "down"),
    ]
    decided = plan([job(nodes=2)], ranks, ["b-1", "b-2"], [], 0)
    assert decided.new_hosts == ["b-2"]
    assert decided.message.endswith("b-1 is drained on the lead and is left out")


def test_a_host_that_the_lead_does_not_declare_is_an_error_by_name() -> None:
    with pytest.raises(
        SpecError, match=r"burst_hostlist: wanted hosts .* found c-\[1-2\] not in it"
    ):
        plan([job()], cluster(), ["b-1", "c-1", "c-2"], [], 0)


JOBS = st.lists(
    st.builds(
        lambda number, nodes, slots: job(f"f{number}", nodes=nodes, slots=slots),
        st.integers(1, 99),
        st.integers(0, 5),
        st.integers(1, 4),
    ),
    max_size=6,
)


@given(JOBS, st.sets(st.sampled_from(ALLOWED)), st.integers(0, 4))
def test_a_plan_keeps_what_exists_and_stays_within_its_limits(
    jobs: list[dict[str, Any]], existing: set[str], limit: int
) -> None:
    decided = plan(jobs, cluster(), ALLOWED, sorted(existing), limit)
    assert existing <= set(decided.hosts) <= set(ALLOWED)
    assert set(decided.new_hosts) == set(decided.hosts) - existing
    assert not limit or len(decided.hosts) <= max(limit, len(existing))
    assert decided.new_hosts == [] or decided.jobs != []
