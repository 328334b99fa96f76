# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines are asked for as one, have a fuse and no public address, and their labels and metadata are put right."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_instances
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

PARAMS: dict[str, Any] = {
    "project": "my-project",
    "burst": "b",
    "zone": "us-central1-a",
    "hosts": ["n-1", "n-2"],
    "machine_type": "n2-standard-4",
    "image": "projects/my-project/global/images/family/flux",
    "disk_size_gb": 20,
    "labels": {"team": "x"},
    "max_run_duration": "4h",
    "ssh_user": "burst",
    "ssh_public_key": "ssh-ed25519 AAAA me\n",
}


def instance(**changed: Any) -> dict[str, Any]:
    items = [{"key": key, "value": value} for key, value in _gce_instances.metadata(PARAMS).items()]
    return {
        "zone": "https://www.googleapis.com/compute/v1/projects/my-project/zones/us-central1-a",
        "machineType": "zones/us-central1-a/machineTypes/n2-standard-4",
        "status": "RUNNING",
        "labels": {"team": "x", "flux-burst": "b", "theirs": "kept"},
        "labelFingerprint": "fp1",
        "metadata": {"fingerprint": "fp2", "items": items},
        **changed,
    }


def changes(existing: dict[str, dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    found = _gce_instances.plan_present(PARAMS, existing)
    return [(change.action, change.name, sorted(change.after)) for change in found]


def test_only_missing_machines_are_created() -> None:
    assert [row[:2] for row in changes({"n-1": instance()})] == [("create", "n-2")]


def test_machines_as_they_should_be_are_left_alone() -> None:
    assert changes({"n-1": instance(), "n-2": instance()}) == []


def test_a_label_that_was_changed_is_put_right_and_others_are_kept() -> None:
    found = instance(labels={"team": "y", "flux-burst": "b", "theirs": "kept"})
    assert changes({"n-1": found, "n-2": instance()}) == [("update", "n-1", ["labels"])]
    body = _gce_instances.labels_body(found, _gce_instances.labels(PARAMS))
    assert body == {
        "labelFingerprint": "fp1",
        "labels": {"team": "x", "flux-burst": "b", "theirs": "kept"},
    }


def test_metadata_that_was_changed_is_put_right_and_the_rest_is_kept() -> None:
    items = [{"key": "ssh-keys", "value": "other:key"}, {"key": "theirs", "value": "kept"}]
    found = instance(metadata={"fingerprint": "fp2", "items": items})
    assert changes({"n-1": found, "n-2": instance()}) == [("update", "n-1", ["metadata"])]
    body = _gce_instances.metadata_body(found, _gce_instances.metadata(PARAMS))
    assert {"key": "theirs", "value": "kept"} in body["items"]
    assert {"key": "ssh-keys", "value": "burst:ssh-ed25519 AAAA me"} in body["items"]


def test_a_stopped_machine_is_an_error_by_name() -> None:
    with pytest.raises(GceError, match="found n-1 TERMINATED"):
        changes({"n-1": instance(status="TERMINATED")})


def test_another_machine_type_is_a_warning() -> None:
    found = instance(machineType="zones/z/machineTypes/e2-small")
    (warning,) = _gce_instances.warnings(PARAMS, {"n-1": found})
    assert warning.startswith("n-1: wanted machine type n2-standard-4, found e2-small")


def test_one_request_asks_for_all_or_none() -> None:
    body = _gce_instances.bulk_body(PARAMS, ["n-1", "n-2"])
    assert body["count"] == "2"
    assert body["perInstanceProperties"] == {"n-1": {}, "n-2": {}}
    assert "minCount" not in body


def test_a_machine_has_a_fuse_and_no_public_address() -> None:
    made = _gce_instances.bulk_body(PARAMS, ["n-1"])["instanceProperties"]
    assert made["scheduling"] == {
        "maxRunDuration": {"seconds": "14400"},
        "instanceTerminationAction": "DELETE",
    }
    (interface,) = made["networkInterfaces"]
    assert set(interface) == {"subnetwork"}
    assert made["labels"]["flux-burst"] == "b"


def test_a_repeat_has_the_same_request_id_and_a_new_network_another() -> None:
    one = _gce_instances.bulk_body(PARAMS, ["n-1"])
    two = _gce_instances.bulk_body(PARAMS, ["n-1", "n-2"])
    first = _gce_instances.request_id("b", "1", one, 0)
    assert first == _gce_instances.request_id("b", "1", one, 0)
    others = {
        _gce_instances.request_id("b", "2", one, 0),
        _gce_instances.request_id("b", "1", two, 0),
        _gce_instances.request_id("b", "1", one, 1),
        first,
    }
    assert len(others) == 4
