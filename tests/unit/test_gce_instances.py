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
from ansible_collections.flux.burst.plugins.modules import gce_instances
from hypothesis import given
from hypothesis import strategies as st

HOSTS = ["b-001", "b-002", "b-003"]
PARAMS: dict[str, Any] = {
    "burst": "t",
    "project": "my-project",
    "zone": "us-central1-a",
    "hosts": HOSTS,
    "machine_type": "n2-standard-4",
    "image": "projects/my-project/global/images/family/flux",
    "disk_size_gb": 20,
    "labels": {"team": "hpc"},
    "max_run_duration": "4h",
    "ssh_user": "burst",
    "ssh_public_key": "ssh-ed25519 AAAA burst\n",
    "boot_timeout": 1,
}
BASE = "https://www.googleapis.com/compute/v1/projects/my-project/zones/us-central1-a"


def instance(name: str, **changed: Any) -> dict[str, Any]:
    """Return a machine as Compute Engine keeps it, as it should be."""
    properties = _gce_instances.bulk_body(PARAMS, [name])["instanceProperties"]
    return {
        "id": "1",
        "name": name,
        "zone": BASE,
        "status": "RUNNING",
        "machineType": f"{BASE}/machineTypes/n2-standard-4",
        "labels": properties["labels"],
        "labelFingerprint": "lf",
        "metadata": {**properties["metadata"], "fingerprint": "mf"},
        "networkInterfaces": [{"networkIP": "10.10.0.2"}],
        **changed,
    }


def planned(existing: dict[str, dict[str, Any]], **changed: Any) -> list[tuple[str, str]]:
    changes = _gce_instances.plan_present({**PARAMS, **changed}, existing)
    return [(change.name, change.action) for change in changes]


def test_a_request_is_for_all_or_none_private_and_with_a_fuse() -> None:
    body = _gce_instances.bulk_body(PARAMS, HOSTS)
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
    existing = {name: instance(name, status="TERMINATED", labels={}) for name in there}
    assert planned(existing, hosts=[]) == []


@pytest.mark.parametrize("status", ["PROVISIONING", "STAGING", "RUNNING"])
def test_a_machine_on_its_way_is_not_asked_for_again(status: str) -> None:
    existing = {name: instance(name, status=status) for name in HOSTS}
    assert planned(existing) == []


@pytest.mark.parametrize("status", ["STOPPING", "TERMINATED", "SUSPENDED", "REPAIRING"])
def test_a_machine_that_does_not_run_is_named(status: str) -> None:
    with pytest.raises(GceError, match=f"b-002 {status}: run the teardown playbook"):
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
    [change] = _gce_instances.plan_present(PARAMS, existing)
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


def test_another_machine_type_is_a_warning() -> None:
    existing = {name: instance(name) for name in HOSTS}
    assert _gce_instances.warnings(PARAMS, existing) == []
    [said] = _gce_instances.warnings(
        {**PARAMS, "machine_type": "c3-standard-8", "hosts": HOSTS[:1]}, existing
    )
    assert said.startswith("b-001: wanted machine type c3-standard-8, found n2-standard-4")


def test_machines_in_another_zone_are_a_warning() -> None:
    existing = {name: instance(name) for name in HOSTS}
    said = _gce_instances.warnings({**PARAMS, "zone": "us-central1-b"}, existing)
    assert len(said) == len(HOSTS)
    assert said[0].startswith("b-001: wanted zone us-central1-b, found us-central1-a")


@pytest.mark.parametrize("text", ["long", "4", "4 h", "h", "-4h"])
def test_a_fuse_that_cannot_be_read_is_told_even_in_check_mode(text: str) -> None:
    with pytest.raises(SpecError, match="max_run_duration: wanted a number with s, m, h or d"):
        planned({}, max_run_duration=text)


def test_a_request_id_is_the_same_for_the_same_request_only() -> None:
    body = _gce_instances.bulk_body(PARAMS, HOSTS)
    first = _gce_instances.request_id("t", "1", body, 0)
    assert uuid.UUID(first).int
    assert _gce_instances.request_id("t", "1", body, 0) == first
    fewer = _gce_instances.bulk_body(PARAMS, HOSTS[:2])
    others = {
        _gce_instances.request_id("u", "1", body, 0),
        _gce_instances.request_id("t", "2", body, 0),
        _gce_instances.request_id("t", "1", fewer, 0),
        _gce_instances.request_id("t", "1", body, 1),
    }
    assert len(others | {first}) == 5


class Started:
    """A creation that was answered."""

    def __init__(self, request: str, repeated: bool) -> None:
        self.request, self.repeated = request, repeated


class FakeCloud:
    """Session and client in one: answers each bulk request with the next of the given outcomes."""

    def __init__(self, *outcomes: tuple[bool, bool]) -> None:
        self.outcomes, self.there, self.requests = list(outcomes), [], []  # type: ignore[var-annotated]

    def instances(self, project: str, burst: str) -> list[dict[str, Any]]:
        return [instance(name) for name in self.there]

    def get(self, path: str, **query: str) -> dict[str, str]:
        return {"id": "77"}

    def bulk_insert(self, body: dict[str, Any], request_id: str, zone: str) -> Started:
        self.requests.append(request_id)
        return Started(request_id, self.outcomes[0][0])

    def wait(self, started: Started) -> None:
        repeated, succeeds = self.outcomes.pop(0)
        if not succeeds:
            raise GceError("ZONE_RESOURCE_POOL_EXHAUSTED")
        if not repeated:
            self.there = HOSTS

    def host_keys(self, project: str, zone: str, name: str) -> dict[str, str]:
        return {} if name == "b-002" else {"ssh-ed25519": "AAAA"}

    def serial_lines(self, project: str, zone: str, name: str, count: int) -> list[str]:
        return [f"{name}: Kernel panic"]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FakeCloud:
    made = FakeCloud(*getattr(request, "param", ()))
    for each in (gce_instances.GceSession, gce_instances.GceClient):
        monkeypatch.setattr(each, "from_params", lambda _unused: made)
    return made


def machines() -> gce_instances.Machines:
    params = {**PARAMS, "compute_endpoint": "http://none", "credentials_file": None}
    return gce_instances.Machines(params)


NEW, NEW_FAILS = (False, True), (False, False)
OLD, OLD_FAILED = (True, True), (True, False)


@pytest.mark.parametrize(
    ("cloud", "requests"),
    [([NEW], 1), ([OLD, NEW], 2), ([OLD_FAILED, NEW], 2), ([OLD, OLD_FAILED, NEW], 3)],
    indirect=["cloud"],
)
def test_an_old_answer_is_not_taken_for_machines(cloud: FakeCloud, requests: int) -> None:
    """For an hour Compute Engine answers a known requestId with the old operation, failed or not."""
    made = machines()
    made.act(_gce_instances.plan_present(PARAMS, made.existing))
    assert sorted(made.existing) == HOSTS
    assert len(cloud.requests) == len(set(cloud.requests)) == requests


@pytest.mark.parametrize(
    ("cloud", "requests"), [([NEW_FAILS], 1), ([OLD_FAILED, NEW_FAILS], 2)], indirect=["cloud"]
)
def test_a_creation_that_fails_now_is_not_tried_again(cloud: FakeCloud, requests: int) -> None:
    made = machines()
    with pytest.raises(GceError, match="EXHAUSTED"):
        made.act(_gce_instances.plan_present(PARAMS, made.existing))
    assert len(cloud.requests) == requests


@pytest.mark.parametrize("cloud", [[OLD] * 5], indirect=True)
def test_machines_that_vanish_each_time_are_told(cloud: FakeCloud) -> None:
    made = machines()
    with pytest.raises(GceError, match="found them gone 5 times"):
        made.act(_gce_instances.plan_present(PARAMS, made.existing))


def test_a_console_that_cannot_be_read_does_not_hide_which_machine_did_not_boot(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_unused: object) -> list[str]:
        raise GceError("no permission", status=403)

    cloud.there = HOSTS
    monkeypatch.setattr(cloud, "serial_lines", refused)
    monkeypatch.setitem(PARAMS, "boot_timeout", 0)
    with pytest.raises(GceError, match=r"none of b-002 \(console of b-002: unreadable, HTTP 403"):
        machines().booted()


def test_machines_that_go_by_themselves_while_they_are_deleted_are_no_failure(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.there = HOSTS
    made = machines()

    def delete(kind: str, name: str, zone: str) -> None:
        cloud.there = []

    monkeypatch.setattr(cloud, "delete", delete, raising=False)
    made.act(_gce_instances.plan_absent(made.existing))
    assert made.existing == {}


def test_a_machine_that_does_not_boot_is_named_with_its_last_words(
    cloud: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.there = HOSTS
    monkeypatch.setattr(gce_instances, "POLL", 0.01)
    monkeypatch.setitem(PARAMS, "boot_timeout", 0)
    with pytest.raises(GceError) as caught:
        machines().booted()
    said = str(caught.value)
    assert "found none of b-002 (console of b-002: b-002: Kernel panic)" in said
    assert "b-001" not in said
    assert caught.value.facts["stage"] == "boot"
