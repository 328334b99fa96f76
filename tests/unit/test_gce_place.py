# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines go where type, capacity and quota are, in the order of preference; who cannot go anywhere is told why."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_place
from ansible_collections.flux.burst.plugins.module_utils._gce_place import Attempt, Place

A, B = "us-central1-a", "us-central1-b"
PARAMS: dict[str, Any] = {
    "zones": [A, B],
    "machine_types": ["n2-standard-4", "e2-standard-4"],
    "accelerator_type": None,
    "accelerator_count": 1,
    "spot": False,
}
TYPES = {
    name: {"name": name, "guestCpus": 4} for name in ("n2-standard-4", "e2-standard-4", "n1-x")
}
G2 = {
    "name": "g2-standard-24",
    "guestCpus": 24,
    "accelerators": [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": 2}],
}
METRICS = ["CPUS", "N2_CPUS", "PREEMPTIBLE_CPUS", "NVIDIA_T4_GPUS", "NVIDIA_L4_GPUS", "INSTANCES"]


def quota(metric: str, limit: float, usage: float = 0.0) -> dict[str, Any]:
    return {"metric": metric, "limit": limit, "usage": usage}


@pytest.mark.parametrize(
    ("machine_type", "options", "metrics", "wanted"),
    [
        (TYPES["n2-standard-4"], {}, METRICS, {"INSTANCES": 3, "N2_CPUS": 12}),
        (TYPES["e2-standard-4"], {}, METRICS, {"INSTANCES": 3, "CPUS": 12}),
        (TYPES["n2-standard-4"], {}, ["CPUS"], {}),
        (
            TYPES["n2-standard-4"],
            {"spot": True},
            METRICS,
            {"INSTANCES": 3, "PREEMPTIBLE_CPUS": 12},
        ),
        (TYPES["n2-standard-4"], {"spot": True}, ["N2_CPUS"], {"N2_CPUS": 12}),
        (
            TYPES["n1-x"],
            {"accelerator_type": "nvidia-tesla-t4", "accelerator_count": 2},
            METRICS,
            {"INSTANCES": 3, "CPUS": 12, "NVIDIA_T4_GPUS": 6},
        ),
        (G2, {}, METRICS, {"INSTANCES": 3, "NVIDIA_L4_GPUS": 6}),
        (
            G2,
            {},
            ["CPUS_ALL_REGIONS", "GPUS_ALL_REGIONS"],
            {"CPUS_ALL_REGIONS": 72, "GPUS_ALL_REGIONS": 6},
        ),
        (
            G2,
            {"spot": True},
            ["NVIDIA_L4_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS"],
            {"PREEMPTIBLE_NVIDIA_L4_GPUS": 6},
        ),
    ],
)
def test_machines_count_against_the_quotas_that_the_region_has(
    machine_type: dict[str, Any],
    options: dict[str, Any],
    metrics: list[str],
    wanted: dict[str, int],
) -> None:
    assert _gce_place.needs(machine_type, 3, {**PARAMS, **options}, metrics) == wanted


def test_a_shortage_says_how_many_are_needed_and_left() -> None:
    rows = [quota("N2_CPUS", 16, 8), quota("INSTANCES", 100)]
    assert _gce_place.shortages({"N2_CPUS": 12, "INSTANCES": 3}, rows, "us-central1") == [
        "wanted 12 N2_CPUS in us-central1, found 8 left of 16"
    ]
    assert _gce_place.shortages({"N2_CPUS": 8}, rows, "us-central1") == []


def test_a_type_is_tried_in_every_zone_before_the_next_is() -> None:
    good, bad = _gce_place.places(PARAMS, 3, {A: TYPES, B: TYPES}, {"us-central1": []})
    assert [(place.machine_type, place.zone) for place in good] == [
        ("n2-standard-4", A),
        ("n2-standard-4", B),
        ("e2-standard-4", A),
        ("e2-standard-4", B),
    ]
    assert bad == []


def test_places_without_the_type_or_the_quota_are_left_out_with_the_reason() -> None:
    types = {A: {"e2-standard-4": TYPES["e2-standard-4"]}, B: TYPES}
    quotas = {"": [], "us-central1": [quota("N2_CPUS", 4)]}
    good, bad = _gce_place.places({**PARAMS}, 3, types, quotas)
    assert good == [Place("e2-standard-4", A), Place("e2-standard-4", B)]
    assert [(row.zone, row.codes) for row in bad] == [
        (A, ["NO_SUCH_MACHINE_TYPE"]),
        (B, ["QUOTA_TOO_SMALL"]),
    ]
    assert bad[1].error == "wanted 12 N2_CPUS in us-central1, found 4 left of 4"


def test_machines_with_gpus_of_their_own_or_added_ones_are_known_as_such() -> None:
    params = {**PARAMS, "zones": [A], "machine_types": ["g2-standard-24", "n1-x"]}
    types = {A: {**TYPES, "g2-standard-24": G2}}
    good, _unused = _gce_place.places(params, 1, types, {})
    assert [place.has_gpus for place in good] == [True, False]
    added = {**params, "accelerator_type": "nvidia-tesla-t4"}
    good, _unused = _gce_place.places(added, 1, types, {})
    assert [place.has_gpus for place in good] == [True, True]


def test_who_is_missing_goes_where_the_others_are() -> None:
    order = [Place("x", A), Place("x", B), Place("y", A), Place("y", B)]
    assert _gce_place.beside(order, [B]) == [order[1], order[3], order[0], order[2]]
    assert _gce_place.beside(order, []) == order


@pytest.mark.parametrize(
    ("codes", "elsewhere"),
    [
        (["ZONE_RESOURCE_POOL_EXHAUSTED"], True),
        (["ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"], True),
        (["VM_MIN_COUNT_NOT_REACHED", "ZONE_RESOURCE_POOL_EXHAUSTED"], True),
        (["STOCKOUT"], True),
        (["QUOTA_EXCEEDED"], True),
        (["quotaExceeded"], True),
        (["UNSUPPORTED_OPERATION"], True),
        (["invalid"], False),
        (["forbidden"], False),
        (["INTERNAL_ERROR"], False),
        ([], False),
    ],
)
def test_only_what_another_place_may_not_have_is_tried_elsewhere(
    codes: list[str], elsewhere: bool
) -> None:
    assert _gce_place.may_be_elsewhere(codes) == elsewhere


def test_when_there_is_no_place_every_attempt_is_told_in_one_line() -> None:
    attempts = [
        Attempt(A, "n2", ["ZONE_RESOURCE_POOL_EXHAUSTED"], "none left"),
        Attempt(B, "n2", ["QUOTA_EXCEEDED"]),
    ]
    told = _gce_place.nowhere(["b-1", "b-2"], attempts, "my-project")
    assert told == (
        "wanted 2 machines, found no place that has them (n2 in us-central1-a: ZONE_RESOURCE_POOL_EXHAUSTED "
        "(none left); n2 in us-central1-b: QUOTA_EXCEEDED): add zones to burst_zones or machine types to "
        "burst_machine_types, or ask for more quota at "
        "https://console.cloud.google.com/iam-admin/quotas?project=my-project."
    )
    assert "quotas" not in _gce_place.nowhere(["b-1"], attempts[:1], "my-project")
