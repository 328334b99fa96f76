# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranks are what real Flux 0.88 says of them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _flux_resource
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError

HOSTS = ["lead", "worker", "b-1", "b-2", "b-3"]


def status(**changed: Any) -> dict[str, Any]:
    execution = {
        "R_lite": [
            {"rank": "0-1", "children": {"core": "0-3"}},
            {"rank": "2-4", "children": {"core": "0-1", "gpu": "0"}},
        ],
        "nodelist": ["lead,worker,b-[1-3]"],
        "properties": {"burst": "2-4"},
    }
    rest = {"drain": {}, "online": "0-1", "offline": "2-4", "exclude": "0", "torpid": ""}
    return {"R": {"version": 1, "execution": execution}, **rest, **changed}


def states(found: dict[str, Any], allocated: set[int]) -> list[str]:
    taken = {rank: {"core": "0"} for rank in allocated}
    return [rank.state for rank in _flux_resource.ranks(found, taken, lambda _unused: HOSTS)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", []), ("3", [3]), ("0-2,5", [0, 1, 2, 5]), ("[1-2]", [1, 2])],
)
def test_an_idset_is_its_numbers(text: str, ids: list[int]) -> None:
    assert _flux_resource.idset(text) == ids


@pytest.mark.parametrize("text", ["0-999999999", "0-99,0-999999", "x", "3-", "-1", "9" * 5000])
def test_what_is_no_idset_or_too_long_is_one_clear_error(text: str) -> None:
    with pytest.raises(FluxError, match="wanted an idset such as 0-2,5"):
        _flux_resource.idset(text)


def test_a_fresh_lead_has_its_burst_ranks_down() -> None:
    assert states(status(), set()) == ["excluded", "free", "down", "down", "down"]


def test_drained_is_not_draining_and_down_wins_over_drained() -> None:
    drain = {"1-3": {"timestamp": 1.0, "reason": "out"}}
    found = status(drain=drain, offline="3-4")
    assert states(found, {1}) == ["excluded", "draining", "drained", "down", "down"]


def test_the_reason_of_a_drain_outlives_the_node() -> None:
    found = _flux_resource.ranks(
        status(drain={"2": {"timestamp": 1.0, "reason": None}}), {}, lambda _unused: HOSTS
    )
    assert [rank.drain_reason for rank in found] == [None, None, "", None, None]


def test_cores_gpus_and_properties_are_r_s() -> None:
    found = _flux_resource.ranks(status(), {}, lambda _unused: HOSTS)
    assert [(rank.cores, rank.gpus, rank.properties) for rank in found[1:3]] == [
        (4, 0, []),
        (2, 1, ["burst"]),
    ]


def test_an_r_without_entries_allocates_nothing() -> None:
    assert _flux_resource.children_of({"execution": {"R_lite": []}}) == {}
    lite = [{"rank": "1,3", "children": {"core": "0"}}]
    assert set(_flux_resource.children_of({"execution": {"R_lite": lite}})) == {1, 3}


def test_what_jobs_have_is_not_free_and_a_node_that_takes_no_job_has_nothing_free() -> None:
    drain = {"3": {"timestamp": 1.0, "reason": "out"}}
    taken = {1: {"core": "0-2"}, 2: {"core": "0", "gpu": "0"}}
    found = _flux_resource.ranks(status(drain=drain, offline="4"), taken, lambda _unused: HOSTS)
    assert [(rank.free_cores, rank.free_gpus) for rank in found] == [
        (0, 0),
        (1, 0),
        (1, 0),
        (0, 0),
        (0, 0),
    ]


def test_an_r_without_hosts_is_one_clear_error() -> None:
    found = status()
    found["R"]["execution"]["nodelist"] = []
    with pytest.raises(FluxError, match=r"wanted a hostname for each of the 5 ranks .* found 0"):
        _flux_resource.ranks(found, {}, lambda _unused: [])


def test_the_last_transition_of_a_rank_is_the_one_that_counts() -> None:
    def event(when: float, name: str, **context: Any) -> dict[str, Any]:
        return {"timestamp": when, "name": name, "context": context}

    events = [
        event(1.0, "restart", ranks="0-4", online="0", nodelist="x"),
        event(2.0, "resource-define", method="configuration"),
        event(3.0, "online", idset="1-2"),
        event(4.0, "drain", idset="2", nodelist="b-1", reason="x", overwrite=0),
        event(5.0, "offline", idset="1"),
        event(6.0, "truncate"),
    ]
    assert _flux_resource.transitions(events) == {0: 1.0, 1: 5.0, 2: 4.0}
