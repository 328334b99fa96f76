# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bursts have is found by label and description, and what it costs is told with what is not known."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._gce_burst import (
    LISTS,
    grouped,
    machine_row,
    owner,
    span,
    totals,
)

NOW = 1_795_000_000.0
HOUR = 3600
PACIFIC = timezone(timedelta(hours=-8))


def ago(seconds: float) -> str:
    """Return a time as Google writes it."""
    then = datetime.fromtimestamp(NOW - seconds, PACIFIC)
    return then.isoformat(timespec="milliseconds")


def instance(name: str = "n-1", burst: str = "t", **fields: Any) -> dict[str, Any]:
    """Return a machine that has run for an hour of four."""
    base = "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a"
    return {
        "id": "1",
        "name": name,
        "zone": base,
        "status": "RUNNING",
        "machineType": f"{base}/machineTypes/n2-standard-4",
        "labels": {"flux-burst": burst},
        "networkInterfaces": [{"networkIP": "10.0.0.2"}],
        "scheduling": {
            "maxRunDuration": {"seconds": str(4 * HOUR)},
            "provisioningModel": "STANDARD",
        },
        "creationTimestamp": ago(HOUR + 60),
        "lastStartTimestamp": ago(HOUR),
        **fields,
    }


def row(prices: dict[str, float] | None = None, **fields: Any) -> dict[str, Any]:
    """Return what the module says of a machine."""
    return machine_row(instance(**fields), prices or {}, NOW)


def test_a_machine_costs_what_it_ran_since_it_was_started() -> None:
    found = row()
    assert (found["age"], found["ran"], found["time_left"]) == (HOUR + 60, HOUR, 3 * HOUR)
    assert (found["price_per_hour"], found["price_basis"]) == (0.194236, "list")
    assert found["cost"] == 0.1942
    assert found["spot"] is False


SPOT = {"provisioningModel": "SPOT", "maxRunDuration": {"seconds": "1800"}}
TYPES = "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/machineTypes"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"scheduling": SPOT}, {"spot": True, "time_left": 0, "price_basis": "estimate"}),
        ({"scheduling": {"preemptible": True}}, {"spot": True, "time_left": None}),
        ({"scheduling": {}}, {"spot": False, "time_left": None}),
        (
            {"status": "TERMINATED", "lastStopTimestamp": ago(HOUR / 2)},
            {"ran": HOUR // 2, "cost": 0.0971, "time_left": None},
        ),
        ({"lastStartTimestamp": ago(5)}, {"ran": 5, "cost": 0.0032}),
        ({"lastStartTimestamp": ago(-5)}, {"ran": 0}),
        ({"lastStartTimestamp": None}, {"ran": HOUR + 60}),
        (
            {"machineType": f"{TYPES}/x9-standard-4"},
            {"price_per_hour": None, "cost": None, "price_basis": "unknown"},
        ),
        (
            {"guestAccelerators": [{"acceleratorType": "a/b/nvidia-new", "acceleratorCount": 1}]},
            {"cost": None},
        ),
    ],
)
def test_what_a_machine_is_decides_what_it_costs_and_when_it_ends(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    found = row(**fields)
    assert {key: found[key] for key in expected} == expected


def test_a_configured_price_wins() -> None:
    found = row({"n2-standard-4": 1.0})
    assert (found["cost"], found["price_basis"]) == (1.0, "configured")


FOUND: dict[str, list[dict[str, Any]]] = {
    "instances": [instance("b-1", "b"), instance("a-2", "a"), instance("a-1", "a")],
    "disks": [
        {"name": "a-left", "labels": {"flux-burst": "a"}},
        {"name": "a-1", "labels": {"flux-burst": "a"}, "users": ["a-1"]},
    ],
    "images": [{"name": "img-1", "labels": {"flux-burst-image": "a"}}],
    "networks": [
        {"name": "hpc-net", "description": "flux-burst=hpc"},
        {"name": "default", "description": "Default network"},
        {"name": "bare"},
    ],
    "addresses": [
        {"name": "hpc-nat-1", "description": "flux-burst=hpc", "address": "203.0.113.21"}
    ],
    "resourcePolicies": [{"name": "a-place", "description": "flux-burst=a"}],
}


def test_all_bursts_are_found_and_what_is_nobodys_is_left_out() -> None:
    bursts = grouped(FOUND, None, {}, NOW)
    assert [it["burst"] for it in bursts] == ["a", "b", "hpc"]
    first, _second, shared = bursts
    assert [it["name"] for it in first["instances"]] == ["a-1", "a-2"]
    assert (first["disks"], first["images"]) == (["a-left"], ["img-1"])
    assert first["resource_policies"] == ["a-place"]
    assert (shared["networks"], shared["nat_ips"]) == (["hpc-net"], ["203.0.113.21"])


def test_a_burst_is_shown_with_the_foundation_that_it_shares() -> None:
    [found] = grouped(FOUND, {"b": "b", "hpc": "b"}, {}, NOW)
    assert [it["name"] for it in found["instances"]] == ["b-1"]
    assert found["networks"] == ["hpc-net"]


def test_a_burst_that_has_nothing_is_still_told() -> None:
    [found] = grouped({}, {"t": "t"}, {}, NOW)
    assert all(found[key] == [] for key in LISTS)
    assert found["report"] == ["nothing"]
    assert grouped({}, None, {}, NOW) == []


@pytest.mark.parametrize(
    ("kind", "resource", "burst"),
    [
        ("instances", {"labels": {"flux-burst": "a"}}, "a"),
        ("instances", {"labels": {"flux-burst-image": "a"}}, ""),
        ("images", {"labels": {"flux-burst-image": "a"}}, "a"),
        ("routers", {"description": "flux-burst=a"}, "a"),
        ("routers", {"description": "not flux-burst=a"}, ""),
        ("routers", {"labels": {"flux-burst": "a"}}, ""),
        ("instances", {}, ""),
    ],
)
def test_labels_and_descriptions_say_whose_something_is(
    kind: str, resource: dict[str, Any], burst: str
) -> None:
    assert owner(kind, resource) == burst


def test_sums_leave_out_what_has_no_price_and_name_it() -> None:
    rows = [
        row(),
        row(name="n-2", scheduling=SPOT),
        row(name="n-3", machineType=f"{TYPES}/x9-standard-4", scheduling={}),
        row(name="n-4", status="TERMINATED", lastStopTimestamp=ago(HOUR / 2)),
    ]
    assert totals(rows) == {
        "machines": 4,
        "running": 3,
        "spot": 1,
        "price_per_hour": round(0.194236 * 1.3114, 4),
        "cost": round(0.1942 + 0.0605 + 0.0971, 4),
        "without_price": ["x9-standard-4"],
        "without_fuse": ["n-3"],
        "first_end": 0,
        "last_end": 3 * HOUR,
    }


def test_the_report_reads_like_a_table_for_people() -> None:
    bursts = grouped(FOUND, None, {}, NOW)
    assert bursts[0]["report"] == [
        "a-1 RUNNING n2-standard-4 us-central1-a 10.0.0.2: up 1h 0m, 0.19 so far, ends in 3h 0m",
        "a-2 RUNNING n2-standard-4 us-central1-a 10.0.0.2: up 1h 0m, 0.19 so far, ends in 3h 0m",
        "2 machines, 2 running (0 spot): 0.39 so far, 0.39 an hour; the last one ends in 3h 0m",
        "disks left behind: a-left",
        "placement policies: a-place",
        "images: img-1",
    ]
    assert bursts[2]["report"] == ["networks: hpc-net", "its machines come from: 203.0.113.21"]


def test_the_report_names_what_is_missing() -> None:
    odd = instance(machineType=f"{TYPES}/x9-standard-4", scheduling={}, networkInterfaces=[{}])
    spot = instance("n-2", machineType=f"{TYPES}/c3-standard-4", scheduling=SPOT)
    [found] = grouped({"instances": [odd, spot]}, None, {}, NOW)
    assert found["report"] == [
        "n-1 RUNNING x9-standard-4 us-central1-a no address: up 1h 0m, cost unknown",
        "n-2 RUNNING c3-standard-4 spot us-central1-a 10.0.0.2: up 1h 0m, at most 0.21 so far, ends in 0s",
        "2 machines, 2 running (1 spot): 0.21 so far, 0.21 an hour, without x9-standard-4, whose price is unknown",
        "no time limit: n-1",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (11100, "3h 5m"), (187200, "2d 4h")],
)
def test_a_time_is_told_in_two_units_at_most(seconds: int, text: str) -> None:
    assert span(seconds) == text
