# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst's network is planned from what is there, whatever that is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, SpecError
from ansible_collections.flux.burst.plugins.module_utils._gce_network import (
    Foundation,
    Key,
    check_range,
    desired,
    plan_absent,
    plan_present,
    users,
)
from ansible_collections.flux.burst.plugins.modules.gce_network import check_ranges
from hypothesis import given
from hypothesis import strategies as st

PLACE = "projects/my-project/regions/us-central1"
FOUNDATION = Foundation("my-project", "t", "us-central1", "10.10.0.0/24")
STAGES = desired(FOUNDATION)
BODIES = {key: body for stage in STAGES for key, body in stage.items()}
NEEDS = {
    "network": set(),
    "subnetwork": {"network"},
    "router": {"network"},
    "firewall": {"network"},
    "address": set(),
}
BASE = "https://www.googleapis.com/compute/v1"

Actual = dict[Key, dict[str, Any]]


def as_google_keeps_it(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with what Compute Engine adds, and without what it leaves out."""
    kept = copy.deepcopy(body)
    kept |= {"id": "1", "selfLink": BASE}
    if "network" in kept:
        kept["network"] = f"{BASE}/{kept['network']}"
    for nat in kept.get("nats", []):
        nat |= {"endpointTypes": ["ENDPOINT_TYPE_VM"], "enableDynamicPortAllocation": False}
    return {key: value for key, value in kept.items() if key != "disabled"}


WHOLE: Actual = {key: as_google_keeps_it(body) for key, body in BODIES.items()}


def planned(actual: Actual) -> list[tuple[str, str]]:
    return [(it.name, it.action) for stage in plan_present(STAGES, actual) for it in stage]


def with_change(key: Key, **fields: Any) -> Actual:
    return {**WHOLE, key: {**WHOLE[key], **fields}}


SSH, INTERNAL = ("firewall", "t-allow-iap-ssh"), ("firewall", "t-allow-internal")
ROUTER, SUBNET, NETWORK = ("router", "t-router"), ("subnetwork", "t-subnet"), ("network", "t-net")
NAT = WHOLE[ROUTER]["nats"][0]


def test_the_network_is_closed_but_for_ssh_from_iap() -> None:
    assert BODIES[NETWORK]["autoCreateSubnetworks"] is False
    assert BODIES[SUBNET]["privateIpGoogleAccess"] is True
    assert BODIES[SSH]["sourceRanges"] == ["35.235.240.0/20"]
    assert BODIES[SSH]["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
    assert BODIES[INTERNAL]["sourceRanges"] == ["10.10.0.0/24"]
    assert {body["description"] for body in BODIES.values()} == {"flux-burst=t"}


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert planned(WHOLE) == []


@pytest.mark.parametrize(
    ("key", "fields", "shown"),
    [
        (SSH, {"sourceRanges": ["0.0.0.0/0"]}, {"sourceRanges"}),
        (SSH, {"sourceRanges": ["35.235.240.0/20", "10.0.0.0/8"]}, {"sourceRanges"}),
        (SSH, {"allowed": [{"IPProtocol": "all"}]}, {"allowed"}),
        (SSH, {"disabled": True, "priority": 7}, {"disabled", "priority"}),
        (SSH, {"targetTags": ["web"]}, {"targetTags"}),
        (INTERNAL, {"sourceTags": ["web"]}, {"sourceTags"}),
        (SUBNET, {"privateIpGoogleAccess": False}, {"privateIpGoogleAccess"}),
        (ROUTER, {"nats": []}, {"nats"}),
        (ROUTER, {"nats": [NAT, {**NAT, "name": "another"}]}, {"nats"}),
        (ROUTER, {"nats": [{**NAT, "natIpAllocateOption": "MANUAL_ONLY"}]}, {"nats"}),
    ],
)
def test_what_was_changed_by_hand_is_put_right(
    key: Key, fields: dict[str, Any], shown: set[str]
) -> None:
    [change] = [it for stage in plan_present(STAGES, with_change(key, **fields)) for it in stage]
    assert (change.kind, change.name, change.action) == (*key, "update")
    assert set(change.before) == set(change.after) == shown
    assert all(change.before[field] != change.after[field] for field in shown)


@pytest.mark.parametrize(
    ("key", "left_out"), [(ROUTER, "nats"), (SUBNET, "privateIpGoogleAccess"), (SSH, "allowed")]
)
def test_a_field_that_compute_engine_leaves_out_is_no_surprise(key: Key, left_out: str) -> None:
    body = {field: value for field, value in WHOLE[key].items() if field != left_out}
    assert planned({**WHOLE, key: body}) == [(key[1], "update")]


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (NETWORK, {"autoCreateSubnetworks": True}),
        (SUBNET, {"ipCidrRange": "10.11.0.0/24"}),
        (SUBNET, {"network": f"{BASE}/projects/my-project/global/networks/other"}),
        (ROUTER, {"network": f"{BASE}/projects/my-project/global/networks/other"}),
        (SSH, {"direction": "EGRESS"}),
    ],
)
def test_what_cannot_be_changed_in_place_is_told(key: Key, fields: dict[str, Any]) -> None:
    with pytest.raises(GceError, match=r"cannot change in place: run the teardown playbook"):
        planned(with_change(key, **fields))


@pytest.mark.parametrize("key", list(WHOLE))
@pytest.mark.parametrize("theirs", ["", "flux-burst=other"])
def test_what_somebody_else_made_is_told_and_not_touched(key: Key, theirs: str) -> None:
    actual = with_change(key, description=theirs)
    with pytest.raises(GceError, match=f"{key[0]} {key[1]}.*somebody else made"):
        planned(actual)
    assert key not in deleted(actual)


def test_everything_but_the_network_is_created_at_once() -> None:
    stages = plan_present(STAGES, {})
    assert [[change.name for change in stage] for stage in stages] == [
        ["t-net"],
        ["t-subnet", "t-router", "t-allow-iap-ssh", "t-allow-internal"],
        [],
    ]


def found(actual: Actual) -> list[dict[str, Any]]:
    return [
        {**body, "kind": kind, "name": name, "region": ""} for (kind, name), body in actual.items()
    ]


def deleted(actual: Actual) -> list[Key]:
    return [(it.kind, it.name) for stage in plan_absent("t", found(actual)) for it in stage]


def test_deletion_begins_with_what_machines_hold_and_ends_with_the_network() -> None:
    stages = plan_absent("t", found(STATIC_WHOLE))
    assert [sorted(change.name for change in stage) for stage in stages] == [
        ["t-subnet"],
        ["t-allow-iap-ssh", "t-allow-internal", "t-router"],
        ["t-nat-1", "t-nat-2", "t-net"],
    ]


STATIC = desired(Foundation("my-project", "t", "us-central1", "10.10.0.0/24", 2))
ADDRESS = ("address", "t-nat-2")


def as_kept_static() -> Actual:
    kept = {key: as_google_keeps_it(body) for stage in STATIC for key, body in stage.items()}
    for kind, name in kept:
        if kind == "address":
            kept[kind, name] |= {"address": "203.0.113.21", "region": f"{BASE}/{PLACE}"}
    [nat] = kept[ROUTER]["nats"]
    nat["natIps"] = [f"{BASE}/{path}" for path in reversed(nat["natIps"])]
    return kept


STATIC_WHOLE = as_kept_static()


def test_a_nat_with_reserved_addresses_names_them_by_their_path() -> None:
    [nat] = STATIC[1][ROUTER]["nats"]
    assert nat["natIpAllocateOption"] == "MANUAL_ONLY"
    assert nat["natIps"] == [f"{PLACE}/addresses/t-nat-1", f"{PLACE}/addresses/t-nat-2"]
    assert [kind for kind, _unused in STATIC[0]] == ["network", "address", "address"]
    assert [it for stage in plan_present(STATIC, STATIC_WHOLE) for it in stage] == []


def test_addresses_that_are_no_longer_wanted_go_after_the_nat_let_them_go() -> None:
    assert planned(STATIC_WHOLE) == [
        ("t-router", "update"),
        ("t-nat-1", "delete"),
        ("t-nat-2", "delete"),
    ]
    theirs = {**STATIC_WHOLE, ADDRESS: {**STATIC_WHOLE[ADDRESS], "description": "theirs"}}
    assert ("t-nat-2", "delete") not in planned(theirs)


def test_a_nat_gets_its_addresses_when_they_are_wanted() -> None:
    changes = [it for stage in plan_present(STATIC, WHOLE) for it in stage]
    assert [(it.name, it.action) for it in changes] == [
        ("t-nat-1", "create"),
        ("t-nat-2", "create"),
        ("t-router", "update"),
    ]
    [nat] = changes[-1].before["nats"]
    assert (nat["natIpAllocateOption"], nat["natIps"]) == ("AUTO_ONLY", [])


@pytest.mark.parametrize(("machines", "fits"), [(0, True), (252, True), (253, False)])
def test_a_range_holds_all_but_four_of_its_addresses(machines: int, fits: bool) -> None:
    if fits:
        check_range("10.10.0.0/24", machines, "subnet_cidr")
        return
    with pytest.raises(GceError, match=r"wanted addresses for 253 machines, found 252"):
        check_range("10.10.0.0/24", machines, "subnet_cidr")


def machine(name: str, burst: str, network: str = "t-net", status: str = "RUNNING") -> Any:
    link = f"{BASE}/projects/my-project/global/networks/{network}"
    return {
        "name": name,
        "status": status,
        "labels": {"flux-burst": burst} if burst else {},
        "networkInterfaces": [{"network": link}],
    }


def test_who_is_in_a_network_is_told_by_burst() -> None:
    instances = [
        machine("a-1", "a"),
        machine("b-1", "b"),
        machine("b-2", "b"),
        machine("c-1", "c", "other-net"),
        machine("d-1", "d", status="STOPPING"),
    ]
    assert users(FOUNDATION.network, instances) == {"a": ["a-1"], "b": ["b-1", "b-2"]}


@given(st.sets(st.sampled_from(list(WHOLE))))
def test_what_is_missing_is_created_after_what_it_needs(there: set[Key]) -> None:
    made = {kind for kind, _unused in there}
    created = set()
    for stage in plan_present(STAGES, {key: WHOLE[key] for key in there}):
        for change in stage:
            assert change.action == "create"
            assert NEEDS[change.kind] <= made
            created.add((change.kind, change.name))
        made |= {change.kind for change in stage}
    assert created == set(WHOLE) - there


@given(st.sets(st.sampled_from(list(WHOLE))))
def test_what_is_there_is_deleted_before_what_it_needs(there: set[Key]) -> None:
    left = set(there)
    for stage in plan_absent("t", found({key: WHOLE[key] for key in there})):
        going = {(change.kind, change.name) for change in stage}
        left -= going
        needed = {kind for other, _unused in left for kind in NEEDS[other]}
        assert not needed & {kind for kind, _unused in going}
    assert left == set()


def test_ssh_is_let_in_from_where_it_comes() -> None:
    ranges = ("203.0.113.7/32", "10.0.0.0/8")
    office = desired(
        Foundation("my-project", "t", "us-central1", "10.10.0.0/24", ssh_ranges=ranges)
    )
    assert office[1][SSH]["sourceRanges"] == list(ranges)
    assert desired(FOUNDATION)[1][SSH]["sourceRanges"] == ["35.235.240.0/20"]


@pytest.mark.parametrize("ranges", [[], ["10.0.0.1/8"], ["203.0.113.7/32", "everywhere"]])
def test_what_is_no_range_lets_nobody_in(ranges: list[str]) -> None:
    with pytest.raises(SpecError, match=r"ssh_ranges: wanted IPv4 ranges such as"):
        check_ranges(ranges)
