# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines are asked for all at once, with a fuse, and are found again."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_instances
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, SpecError
from ansible_collections.flux.burst.plugins.module_utils._gce_place import Place
from hypothesis import given
from hypothesis import strategies as st

HOSTS = ["b-001", "b-002", "b-003"]
PARAMS: dict[str, Any] = {
    "burst": "t",
    "project": "my-project",
    "zones": ["us-central1-a"],
    "hosts": HOSTS,
    "machine_types": ["n2-standard-4"],
    "image": "projects/my-project/global/images/family/flux",
    "disk_size_gb": 20,
    "labels": {"team": "hpc"},
    "max_run_duration": "4h",
    "ssh_user": "burst",
    "ssh_public_key": "ssh-ed25519 AAAA burst\n",
    "boot_timeout": 1,
    "disk_type": "pd-balanced",
    "subnetwork": None,
    "public_address": False,
    "os_login": False,
    "tags": [],
    "service_account": None,
    "service_account_scopes": ["scope"],
    "accelerator_type": None,
    "accelerator_count": 1,
    "spot": False,
    "compact": False,
    "reservation": "any",
    "min_cpu_platform": None,
    "shielded": False,
    "best_effort": False,
}
PLACE = Place("n2-standard-4", "us-central1-a")
BASE = "https://www.googleapis.com/compute/v1/projects/my-project/zones/us-central1-a"


def instance(name: str, **changed: Any) -> dict[str, Any]:
    """Return a machine as Compute Engine keeps it, as it should be."""
    properties = _gce_instances.bulk_body(PARAMS, [name], PLACE)["instanceProperties"]
    return {
        "id": "1",
        "name": name,
        "zone": BASE,
        "status": "RUNNING",
        "machineType": f"{BASE}/machineTypes/n2-standard-4",
        "labels": properties["labels"],
        "labelFingerprint": "lf",
        "metadata": {**properties["metadata"], "fingerprint": "mf"},
        "creationTimestamp": "2026-11-25T10:00:00.000-08:00",
        "networkInterfaces": [{**properties["networkInterfaces"][0], "networkIP": "10.10.0.2"}],
        "scheduling": properties["scheduling"],
        "disks": [{"diskSizeGb": "20"}],
        **changed,
    }


def planned(existing: dict[str, dict[str, Any]], **changed: Any) -> list[tuple[str, str]]:
    stages = _gce_instances.plan_present({**PARAMS, **changed}, existing)
    return [(change.name, change.action) for stage in stages for change in stage]


def test_a_request_is_for_all_or_none_private_and_with_a_fuse() -> None:
    body = _gce_instances.bulk_body(PARAMS, HOSTS, PLACE)
    properties = body["instanceProperties"]
    assert list(body["perInstanceProperties"]) == HOSTS
    assert body["count"] == "3"
    assert "minCount" not in body
    [interface] = properties["networkInterfaces"]
    assert set(interface) == {"subnetwork"}, "an accessConfig would be a public address"
    assert interface["subnetwork"].endswith("regions/us-central1/subnetworks/t-subnet")
    assert properties["scheduling"] == {
        "maxRunDuration": {"seconds": "14400"},
        "instanceTerminationAction": "DELETE",
    }
    assert properties["labels"] == {"team": "hpc", "flux-burst": "t"}


def test_our_own_label_cannot_be_taken_away() -> None:
    assert _gce_instances.labels({**PARAMS, "labels": {"flux-burst": "u"}}) == {"flux-burst": "t"}


def test_metadata_holds_the_public_key_and_nothing_else_of_ours() -> None:
    assert _gce_instances.metadata(PARAMS) == {
        "block-project-ssh-keys": "TRUE",
        "enable-guest-attributes": "TRUE",
        "enable-oslogin": "FALSE",
        "ssh-keys": "burst:ssh-ed25519 AAAA burst",
    }


@given(st.sets(st.sampled_from(HOSTS)))
def test_what_is_missing_is_created_and_nothing_else(there: set[str]) -> None:
    changes = planned({name: instance(name) for name in there})
    assert changes == [(name, "create") for name in HOSTS if name not in there]


@given(st.sets(st.sampled_from(HOSTS)))
def test_machines_that_nobody_asked_for_are_left_alone(there: set[str]) -> None:
    existing = {name: instance(name, status="SUSPENDED", labels={}) for name in there}
    assert planned(existing, hosts=[]) == []


@pytest.mark.parametrize("status", ["PROVISIONING", "STAGING", "RUNNING", "REPAIRING"])
def test_a_machine_on_its_way_is_not_asked_for_again(status: str) -> None:
    existing = {name: instance(name, status=status) for name in HOSTS}
    assert planned(existing) == []


@pytest.mark.parametrize("status", ["PENDING_STOP", "STOPPING", "STOPPED", "TERMINATED"])
def test_a_machine_that_died_is_deleted_and_then_created(status: str) -> None:
    existing = {name: instance(name) for name in HOSTS[1:]}
    existing["b-001"] = instance("b-001", status=status)
    first, second = _gce_instances.plan_present(PARAMS, existing)
    assert [(change.name, change.action) for change in first] == [("b-001", "delete")]
    assert [(change.name, change.action) for change in second] == [("b-001", "create")]


@pytest.mark.parametrize("status", ["SUSPENDING", "SUSPENDED"])
def test_a_machine_that_somebody_put_to_sleep_is_named(status: str) -> None:
    with pytest.raises(GceError, match=f"b-002 {status}: let them run, or run the teardown"):
        planned({"b-002": instance("b-002", status=status)})


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"labels": {"flux-burst": "t", "team": "other"}}, "labels"),
        ({"labels": {"flux-burst": "t"}}, "labels"),
        ({"metadata": {"fingerprint": "mf"}}, "metadata"),
    ],
)
def test_labels_and_metadata_are_put_right(changed: dict[str, Any], part: str) -> None:
    existing = {name: instance(name) for name in HOSTS} | {"b-001": instance("b-001", **changed)}
    _unused, [change] = _gce_instances.plan_present(PARAMS, existing)
    assert (change.name, change.action) == ("b-001", "update")
    assert set(change.before) == set(change.after) == {part}


def test_what_others_put_on_a_machine_stays() -> None:
    items = [{"key": "note", "value": "theirs"}, {"key": "ssh-keys", "value": "other:key"}]
    found = instance(
        "b-001",
        labels={"theirs": "yes"},
        metadata={"items": items, "fingerprint": "mf"},
    )
    labels = _gce_instances.labels_body(found, {"flux-burst": "t"})
    assert labels == {
        "labelFingerprint": "lf",
        "labels": {"theirs": "yes", "flux-burst": "t"},
    }
    metadata = _gce_instances.metadata_body(found, {"ssh-keys": "burst:key"})
    assert metadata["fingerprint"] == "mf"
    assert metadata["items"] == [
        {"key": "note", "value": "theirs"},
        {"key": "ssh-keys", "value": "burst:key"},
    ]


BUILT = {"machineType": f"{BASE}/machineTypes/c3-standard-8"}


@pytest.mark.parametrize(
    ("changed", "options", "row"),
    [
        (BUILT, {}, ("machine_types", ["n2-standard-4"], "c3-standard-8")),
        ({}, {"zones": ["us-central1-b"]}, ("zones", ["us-central1-b"], "us-central1-a")),
        ({}, {"spot": True}, ("spot", True, False)),
        ({}, {"public_address": True}, ("public_address", True, False)),
        ({}, {"max_run_duration": "1h"}, ("max_run_duration", "3600s", "14400s")),
        ({}, {"disk_size_gb": 30}, ("disk_size_gb", 30, 20)),
        ({"serviceAccounts": [{"email": "a@b"}]}, {}, ("service_account", "", "a@b")),
        ({"tags": {"items": ["y", "x"]}}, {"tags": ["z"]}, ("tags", "z", "x y")),
        ({"minCpuPlatform": "Intel"}, {}, ("min_cpu_platform", "", "Intel")),
        (
            {"guestAccelerators": [{"acceleratorType": "x/t4", "acceleratorCount": 1}]},
            {"accelerator_type": "t4", "accelerator_count": 2},
            ("accelerator_type", "2 t4", "1 t4"),
        ),
        ({}, {"subnetwork": "projects/p/regions/r/subnetworks/s"}, ("subnetwork", "s", "t-subnet")),
    ],
)
def test_what_cannot_be_changed_is_told_with_both_values(
    changed: dict[str, Any], options: dict[str, Any], row: tuple[str, Any, Any]
) -> None:
    params = {**PARAMS, "hosts": ["b-001"], **options}
    [found] = _gce_instances.drift(params, {"b-001": instance("b-001", **changed)})
    assert found == {"name": "b-001", "field": row[0], "wanted": row[1], "found": row[2]}
    shown = _gce_instances.drift_diff(found)
    assert (shown["before"], shown["after"]) == ({row[0]: row[2]}, {row[0]: row[1]})


def test_one_of_the_machine_types_and_zones_that_will_do_is_no_drift() -> None:
    params = {
        **PARAMS,
        "machine_types": ["c3-standard-8", "n2-standard-4"],
        "zones": ["us-central1-b", "us-central1-a"],
    }
    assert _gce_instances.drift(params, {name: instance(name) for name in HOSTS}) == []


def preempted(name: str, when: str) -> dict[str, str]:
    """Return an operation by which Compute Engine took a machine away."""
    return {"targetLink": f"{BASE}/instances/{name}", "insertTime": when}


LATE, EARLY = "2026-11-25T11:00:00.000-08:00", "2026-11-25T17:00:00.000+00:00"


@pytest.mark.parametrize(
    ("there", "preemptions", "wanted"),
    [
        ({}, [preempted("b-001", LATE)], []),
        ({"b-002": "RUNNING"}, [preempted("b-001", LATE)], ["b-001 was preempted at"]),
        ({"b-002": "RUNNING"}, [preempted("b-001", EARLY)], []),
        ({"b-002": "RUNNING"}, [], []),
        ({"b-001": "TERMINATED"}, [], ["b-001 died or was stopped, and is TERMINATED"]),
        (
            {"b-001": "TERMINATED"},
            [preempted("b-001", LATE)],
            [f"b-001 was preempted at {LATE}, and is TERMINATED"],
        ),
        ({"b-001": "STOPPING", "b-002": "RUNNING"}, [], ["b-001 died or was stopped, and is"]),
    ],
)
def test_a_machine_that_was_lost_is_told_from_one_that_never_was(
    there: dict[str, str], preemptions: list[dict[str, str]], wanted: list[str]
) -> None:
    existing = {name: instance(name, status=status) for name, status in there.items()}
    found = _gce_instances.losses(PARAMS, existing, preemptions)
    said = [f"{row['name']} {row['why']}" for row in found]
    assert len(said) == len(wanted)
    assert all(text.startswith(start) for text, start in zip(said, wanted, strict=True))


@pytest.mark.parametrize(
    ("options", "place", "stays"),
    [
        ({}, PLACE, True),
        ({"spot": True}, PLACE, False),
        ({"compact": True}, PLACE, False),
        ({}, Place("a2-highgpu-1g", "us-central1-a", has_gpus=True), False),
    ],
)
def test_machines_that_cannot_be_moved_while_they_run_say_so(
    options: dict[str, Any], place: Place, stays: bool
) -> None:
    body = _gce_instances.bulk_body({**PARAMS, **options}, HOSTS, place)
    scheduling = body["instanceProperties"]["scheduling"]
    assert ("onHostMaintenance" not in scheduling) == stays
    assert scheduling["instanceTerminationAction"] == "DELETE"


def test_the_best_that_can_be_had_is_one_machine_at_least() -> None:
    assert (
        _gce_instances.bulk_body({**PARAMS, "best_effort": True}, HOSTS, PLACE)["minCount"] == "1"
    )


@pytest.mark.parametrize(
    ("reservation", "wanted"),
    [
        ("any", None),
        ("none", {"consumeReservationType": "NO_RESERVATION"}),
        (
            "mine",
            {
                "consumeReservationType": "SPECIFIC_RESERVATION",
                "key": "compute.googleapis.com/reservation-name",
                "values": ["mine"],
            },
        ),
    ],
)
def test_a_reservation_is_asked_for_as_google_names_it(
    reservation: str, wanted: dict[str, Any] | None
) -> None:
    body = _gce_instances.bulk_body({**PARAMS, "reservation": reservation}, HOSTS, PLACE)
    assert body["instanceProperties"].get("reservationAffinity") == wanted


@pytest.mark.parametrize("text", ["long", "4", "4 h", "h", "-4h"])
def test_a_fuse_that_cannot_be_read_is_told_even_in_check_mode(text: str) -> None:
    with pytest.raises(SpecError, match="max_run_duration: wanted a number with s, m, h or d"):
        planned({}, max_run_duration=text)


def test_a_request_id_is_the_same_for_the_same_request_only() -> None:
    body = _gce_instances.bulk_body(PARAMS, HOSTS, PLACE)
    first = _gce_instances.request_id("t", "a", body, 0)
    assert uuid.UUID(first).int
    assert _gce_instances.request_id("t", "a", body, 0) == first
    fewer = _gce_instances.bulk_body(PARAMS, HOSTS[:2], PLACE)
    others = {
        _gce_instances.request_id("u", "a", body, 0),
        _gce_instances.request_id("t", "b", body, 0),
        _gce_instances.request_id("t", "a", fewer, 0),
        _gce_instances.request_id("t", "a", body, 1),
    }
    assert len(others | {first}) == 5
