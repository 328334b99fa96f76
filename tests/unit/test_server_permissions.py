# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A call is refused for the first permission that it needs and that is not granted; what it needs goes by its body."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sandbox.machines.records import RecordsBackend
from sandbox.server import app, permissions
from sandbox.server.api import METHODS, Api, Call
from sandbox.server.catalog import PROJECT
from sandbox.server.errors import ApiError
from sandbox.server.operations import Operations
from sandbox.server.state import Cloud, Key

assert app.METHOD_MODULES, "importing it registers the methods"

OURS = f"projects/{PROJECT}"
ZONE, REGION = f"{OURS}/zones/us-central1-a", f"{OURS}/regions/us-central1"
NETWORK, SUBNETWORK = f"{OURS}/global/networks/net", f"{REGION}/subnetworks/sub"
ACCOUNT = {"email": "nodes@p.iam.gserviceaccount.com"}


@pytest.fixture
def cloud() -> Cloud:
    """A cloud that holds a firewall rule."""
    made = Cloud(RecordsBackend())
    made.put(Key(PROJECT, "global", "firewalls", "rule"), {"network": NETWORK})
    return made


def call(cloud: Cloud, method: str, body: dict[str, Any] | None = None, **params: str) -> Call:
    """Return a call of a method on resources whose names are made up where none are given."""
    usual = {"project": PROJECT, "zone": "us-central1-a", "region": "us-central1"}
    names = re.findall(r"\{(\w+)\}", METHODS[method].path)
    given = {name: params.get(name, usual.get(name, "it")) for name in names}
    return Call(method, cloud, Operations(cloud, False), given, {}, body or {})


def test_every_method_needs_something(cloud: Cloud) -> None:
    for method in METHODS:
        for permission, path in permissions.needed(call(cloud, method)):
            assert permissions.PERMISSION.fullmatch(permission)
            assert path.startswith(OURS)
            break
        else:
            pytest.fail(f"{method} needs no permission")


def machine(**properties: Any) -> dict[str, Any]:
    """Return the body of instances.insert."""
    return {"name": "m", "networkInterfaces": [{"subnetwork": SUBNETWORK}], **properties}


CREATE = [("compute.instances.create", "instances/m"), ("compute.subnetworks.use", "sub")]


@pytest.mark.parametrize(
    ("method", "body", "more"),
    [
        ("instances.list", {}, [("compute.instances.list", PROJECT)]),
        ("instances.aggregatedList", {}, [("compute.instances.list", PROJECT)]),
        ("machineTypes.get", {}, [("compute.machineTypes.get", "machineTypes/it")]),
        ("zoneOperations.wait", {}, [("compute.zoneOperations.get", "operations/it")]),
        ("instances.insert", machine(), CREATE),
        (
            "instances.insert",
            machine(networkInterfaces=[{"subnetwork": SUBNETWORK, "accessConfigs": [{}]}]),
            [*CREATE, ("compute.subnetworks.useExternalIp", "sub")],
        ),
        (
            "instances.insert",
            machine(
                labels={"a": "b"},
                metadata={"items": [{}]},
                tags={"items": ["t"]},
                serviceAccounts=[ACCOUNT],
            ),
            [
                *CREATE,
                ("compute.instances.setLabels", "instances/m"),
                ("compute.instances.setMetadata", "instances/m"),
                ("compute.instances.setServiceAccount", "instances/m"),
                ("compute.instances.setTags", "instances/m"),
            ],
        ),
        (
            "instances.insert",
            machine(
                disks=[
                    {"initializeParams": {"sourceImage": "global/images/i", "labels": {"a": "b"}}}
                ]
            ),
            [
                *CREATE,
                ("compute.disks.create", "disks/m"),
                ("compute.disks.setLabels", "disks/m"),
                ("compute.images.useReadOnly", "images/i"),
            ],
        ),
        (
            "instances.bulkInsert",
            {
                "perInstanceProperties": {"m": {}, "n": {}},
                "instanceProperties": {**machine(), "resourcePolicies": ["near"]},
            },
            [*CREATE, ("compute.resourcePolicies.use", "resourcePolicies/near")],
        ),
        (
            "routers.insert",
            {"name": "r", "network": NETWORK, "nats": [{"natIps": [f"{REGION}/addresses/a"]}]},
            [
                ("compute.routers.create", "routers/r"),
                ("compute.networks.updatePolicy", "networks/net"),
                ("compute.addresses.use", "addresses/a"),
            ],
        ),
        (
            "images.insert",
            {"name": "i", "sourceDisk": f"{ZONE}/disks/d", "labels": {"a": "b"}},
            [
                ("compute.images.create", "images/i"),
                ("compute.disks.useReadOnly", "disks/d"),
                ("compute.images.setLabels", "images/i"),
            ],
        ),
        (
            "addresses.insert",
            {"name": "a", "labels": {"a": "b"}},
            [
                ("compute.addresses.create", "addresses/a"),
                ("compute.addresses.setLabels", "addresses/a"),
            ],
        ),
    ],
)
def test_what_is_needed_goes_by_what_is_asked_for(
    cloud: Cloud, method: str, body: dict[str, Any], more: list[tuple[str, str]]
) -> None:
    found = list(permissions.needed(call(cloud, method, body)))
    assert [permission for permission, _path in found] == [permission for permission, _end in more]
    assert all(path.endswith(end) for (_p, path), (_q, end) in zip(found, more, strict=True))


@pytest.mark.parametrize("verb", ["patch", "update", "delete"])
def test_a_rule_that_is_there_belongs_to_its_network(cloud: Cloud, verb: str) -> None:
    found = list(permissions.needed(call(cloud, f"firewalls.{verb}", firewall="rule")))
    assert found[-1] == ("compute.networks.updatePolicy", NETWORK)


def test_the_first_that_is_missing_is_named_and_all_is_granted_at_first(cloud: Cloud) -> None:
    asked = call(cloud, "instances.insert", machine(tags={"items": ["t"]}))
    permissions.check(asked)
    permissions.grant(cloud, {"permissions": ["compute.instances.create"]})
    with pytest.raises(ApiError) as caught:
        permissions.check(asked)
    message = f"Required 'compute.subnetworks.use' permission for '{SUBNETWORK}'"
    assert (caught.value.code, caught.value.reason) == (403, "forbidden")
    assert caught.value.message == message
    assert permissions.grant(cloud, {"permissions": None}) == {"permissions": None}
    permissions.check(asked)


def test_googles_own_projects_are_open_to_everybody(cloud: Cloud) -> None:
    permissions.grant(cloud, {"permissions": []})
    permissions.check(call(cloud, "images.list", project="debian-cloud"))
    with pytest.raises(ApiError, match=r"compute\.images\.list"):
        permissions.check(call(cloud, "images.list"))


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("instances.insert", machine(serviceAccounts=[ACCOUNT])),
        ("instances.bulkInsert", {"instanceProperties": machine(serviceAccounts=[ACCOUNT])}),
        ("instances.setMetadata", {}),
    ],
)
def test_who_may_not_act_as_a_service_account_hears_it_from_the_operation(
    cloud: Cloud, method: str, body: dict[str, Any]
) -> None:
    place = "zones/us-central1-a"
    cloud.put(Key(PROJECT, place, "instances", "it"), {"serviceAccounts": [ACCOUNT]})
    cloud.put(Key(PROJECT, place, "instances", "plain"), {})
    asked = call(cloud, method, body)
    assert permissions.refused_later(asked) is None
    permissions.grant(cloud, {"permissions": []})
    fault = permissions.refused_later(asked)
    assert fault is not None and fault.status == 400
    assert fault.code == "SERVICE_ACCOUNT_ACCESS_DENIED" and ACCOUNT["email"] in fault.message
    assert permissions.refused_later(call(cloud, method, instance="plain")) is None


@pytest.mark.parametrize(
    "body", [None, [], {}, {"permissions": "compute.x.y"}, {"permissions": {}}]
)
def test_what_is_no_list_of_permissions_is_refused(cloud: Cloud, body: Any) -> None:
    for taken in (permissions.grant, permissions.tested):
        with pytest.raises(ApiError, match="list of permissions"):
            taken(cloud, body)


def test_those_that_are_granted_are_told(cloud: Cloud) -> None:
    asked = {"permissions": ["compute.disks.list", "compute.images.list"]}
    assert permissions.tested(cloud, asked) == asked
    permissions.grant(cloud, {"permissions": ["compute.images.list"]})
    assert permissions.tested(cloud, asked) == {"permissions": ["compute.images.list"]}
    permissions.grant(cloud, {"permissions": []})
    assert permissions.tested(cloud, asked) == {}
    with pytest.raises(ApiError, match="without wildcards"):
        permissions.tested(cloud, {"permissions": ["compute.*"]})


async def test_nothing_is_done_for_who_may_not(cloud: Cloud) -> None:
    cloud.granted = frozenset()
    api = Api(cloud, Operations(cloud, False), None)
    body = b'{"name": "net", "autoCreateSubnetworks": false}'
    status, answer, _request = await api.answer(
        "POST", f"/compute/v1/{OURS}/global/networks", {}, body
    )
    assert status == 403
    assert answer["error"]["message"].startswith("Required 'compute.networks.create' permission")
    assert not cloud.table(PROJECT, "networks") and not cloud.table(PROJECT, "operations")
