# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a burst is amiss, a row for each thing that can be."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._reconciliation import (
    Decision,
    Request,
    decide,
)

NOW = 100_000.0
HOSTS = ["a-001", "a-002"]
REQUEST = Request("b", HOSTS, "flux.burst", 900, 14400, NOW)
LEAD = {"rank": 0, "host": "lead", "overlay": "full", "since": 10.0, "drain_reason": None}


def rank(number: int, overlay: str = "full", since: float = 20.0, drain: str | None = None) -> Any:
    """A bursted host's rank, as flux_resource_info tells it."""
    host = f"a-{number:03}"
    return {"rank": number, "host": host, "overlay": overlay, "since": since, "drain_reason": drain}


def machine(number: int, status: str = "RUNNING", age: float = 2000) -> dict[str, Any]:
    """A machine, as gce_burst_info tells it."""
    return {"name": f"a-{number:03}", "status": status, "age": age}


def claim(age: float, name: str = "f1") -> dict[str, Any]:
    """A claim of that age."""
    return {"id": name, "burst": "b", "until": NOW - age + 14400, "by": "me"}


def decided(
    machines: list[dict[str, Any]],
    ranks: list[Any],
    claims: list[dict[str, Any]] | None = None,
    host_claims: list[dict[str, Any]] | None = None,
    **others: Any,
) -> Decision:
    """Decide for a burst with these machines and other things, beside another burst with a machine a-002."""
    own = {"burst": "b", "instances": machines, **others}
    bursts = [own, OTHER] if others.get("shared") else [own]
    return decide(bursts, ranks, claims or [], host_claims or [], REQUEST)


OTHER = {"burst": "other", "instances": [machine(2)]}


@pytest.mark.parametrize(
    ("what", "ranks", "found"),
    [
        (machine(1), [LEAD, rank(1)], ""),
        (machine(1), [LEAD, rank(1, "offline", 0.0)], "has not joined in the 2000 s"),
        (machine(1, age=60), [LEAD, rank(1, "offline", 0.0)], ""),
        (machine(1), [LEAD, rank(1, "lost", NOW - 1000)], "has been gone for 1000 s"),
        (machine(1), [LEAD, rank(1, "lost", NOW - 60)], ""),
        (machine(1), [{**LEAD, "since": NOW - 60}, rank(1, "offline", 0.0)], ""),
        (machine(1), [LEAD], "the lead declares no host of that name"),
        (machine(1, "TERMINATED"), [LEAD, rank(1, "lost", NOW - 60)], "status TERMINATED"),
        (machine(1, "STOPPING"), [LEAD, rank(1, "lost", NOW - 5000)], ""),
        (machine(1, "STAGING", age=5), [LEAD, rank(1, "offline", 0.0)], ""),
    ],
)
def test_a_machine_is_amiss_that_serves_nobody_and_is_old_enough(
    what: dict[str, Any], ranks: list[Any], found: str
) -> None:
    made = decided([what], ranks)
    assert made.delete == (["a-001"] if found else [])
    assert found in "".join(it["found"] for it in made.findings if it["kind"] == "instance")
    assert bool(made.findings) == bool(found)


def test_a_rank_without_a_machine_is_disconnected_and_undrained() -> None:
    ranks = [LEAD, rank(1, "full"), rank(2, "offline", drain="flux.burst teardown of b")]
    made = decided([], ranks)
    assert (made.disconnect, made.undrain) == (["a-001"], ["a-002"])


def test_a_drain_that_is_not_ours_stays() -> None:
    made = decided([], [LEAD, rank(2, "offline", drain="bad memory")])
    assert made.report() == ["nothing is amiss"]


def test_a_rank_whose_machine_is_another_bursts_is_left_alone() -> None:
    made = decided([], [LEAD, rank(2, drain="flux.burst teardown of other")], shared=True)
    assert made.report() == ["nothing is amiss"]


def test_a_claim_without_machines_is_given_back_and_leftovers_go() -> None:
    made = decided([], [LEAD], [claim(1000)], networks=["b-net"], addresses=["b-nat-1"])
    assert made.release == ["f1"]
    assert made.remove_all
    assert {it["kind"] for it in made.findings} == {"claim", "networks", "addresses"}


def test_what_another_controller_may_be_making_stays() -> None:
    made = decided([], [LEAD], [claim(60)], networks=["b-net"])
    assert made == Decision()


def test_a_burst_with_a_machine_that_serves_keeps_its_claims_and_its_network() -> None:
    made = decided([machine(1)], [LEAD, rank(1)], [claim(5000)], networks=["b-net"])
    assert made == Decision()


def test_a_host_whose_machine_is_gone_or_goes_is_given_back() -> None:
    machines = [machine(1), machine(2, "TERMINATED")]
    hosts = [claim(5000, "a-001"), claim(60, "a-002"), claim(5000, "a-003"), claim(60, "a-004")]
    made = decided(machines, [LEAD, rank(1), rank(2, "lost")], host_claims=hosts)
    assert made.release_hosts == ["a-002", "a-003"]
    assert [row for row in made.report() if row.startswith("claim")] == [
        "claim a-003: claimed 5000 s ago, and the burst has no such machine: give it back"
    ]


def test_with_its_last_machine_goes_all_that_it_has() -> None:
    made = decided([machine(1, "TERMINATED")], [LEAD, rank(1, "lost")], [claim(5000)])
    assert (made.delete, made.release, made.remove_all) == (["a-001"], ["f1"], True)
    assert made.report()[0] == "instance a-001: status TERMINATED: delete it"
