# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranks are what real Flux 0.88 says of them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _flux_resource

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
    return [rank.state for rank in _flux_resource.ranks(found, allocated, lambda _unused: HOSTS)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", []), ("3", [3]), ("0-2,5", [0, 1, 2, 5]), ("[1-2]", [1, 2])],
)
def test_an_idset_is_its_numbers(text: str, ids: list[int]) -> None:
    assert _flux_resource.idset(text) == ids


def test_a_fresh_lead_has_its_burst_ranks_down() -> None:
    assert states(status(), set()) == ["excluded", "free", "down", "down", "down"]


def test_drained_is_not_draining_and_down_wins_over_drained() -> None:
    drain = {"1-3": {"timestamp": 1.0, "reason": "out"}}
    found = status(drain=drain, offline="3-4")
    assert states(found, {1}) == ["excluded", "draining", "drained", "down", "down"]


def test_the_reason_of_a_drain_outlives_the_node() -> None:
    found = _flux_resource.ranks(
        status(drain={"2": {"timestamp": 1.0, "reason": None}}), set(), lambda _unused: HOSTS
    )
    assert [rank.drain_reason for rank in found] == [None, None, "", None, None]


def test_cores_gpus_and_properties_are_r_s() -> None:
    found = _flux_resource.ranks(status(), set(), lambda _unused: HOSTS)
    assert [(rank.cores, rank.gpus, rank.properties) for rank in found[1:3]] == [
        (4, 0, []),
        (2, 1, ["burst"]),
    ]


def test_an_r_without_entries_allocates_nothing() -> None:
    assert _flux_resource.allocated_ranks({"execution": {"R_lite": []}}) == set()
    assert _flux_resource.allocated_ranks({"execution": {"R_lite": [{"rank": "1,3"}]}}) == {1, 3}
