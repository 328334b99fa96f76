# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the emulated Compute Engine does with machines, networks and time, without a server."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from sandbox.machines import MachineError, MachineSpec
from sandbox.machines.records import RecordsBackend
from sandbox.server import app, nat
from sandbox.server.api import Api
from sandbox.server.firewalls import lets_in
from sandbox.server.instances import ssh_keys
from sandbox.server.operations import Operations
from sandbox.server.state import Cloud, Key

IAP = "35.235.240.1"
REGION, ZONE = "regions/us-central1", "zones/us-central1-a"
NETWORK = "global/networks/n"
NAT = {
    "name": "nat",
    "natIpAllocateOption": "AUTO_ONLY",
    "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
}


class Backend(RecordsBackend):
    """Remembers what it was told; machines whose name begins with bad do not start."""

    def __init__(self) -> None:
        super().__init__()
        self.specs: dict[str, MachineSpec] = {}
        self.deleted: list[str] = []
        self.nat: list[tuple[str, str | None]] = []
        self.gate = threading.Event()
        self.gate.set()

    def create(self, spec: MachineSpec) -> None:
        """Boot, or do not."""
        self.gate.wait(10)
        if spec.name.startswith("bad"):
            raise MachineError(f"{spec.name} did not start")
        super().create(spec)
        self.specs[spec.name] = spec

    def delete(self, project: str, name: str) -> None:
        """Remember that it was deleted."""
        self.deleted.append(name)
        super().delete(project, name)

    def set_nat(self, segment: str, address: str | None) -> None:
        """Remember."""
        self.nat.append((segment, address))


class Engine:
    """An API over such a backend."""

    def __init__(self, real: bool = False) -> None:
        assert app.METHOD_MODULES
        self.backend = Backend()
        self.cloud = Cloud(self.backend)
        self.operations = Operations(self.cloud, real)
        self.api = Api(self.cloud, self.operations, None)

    async def call(
        self, verb: str, path: str, body: Any = None, project: str = "sandbox-project"
    ) -> tuple[int, Any]:
        """Call a method below the project."""
        data = b"" if body is None else json.dumps(body).encode()
        full = f"/compute/v1/projects/{project}/{path}"
        status, answer, _unused = await self.api.answer(verb, full, {}, data)
        return status, answer

    async def done(self, verb: str, path: str, body: Any = None) -> Any:
        """Call a method, wait for its operation and return that."""
        status, operation = await self.call(verb, path, body)
        assert status == 200, operation
        return await self.finished(operation)

    async def finished(self, operation: Any) -> Any:
        """Wait for an operation."""
        below = operation["selfLink"].partition("/projects/sandbox-project/")[2]
        return (await self.call("POST", f"{below}/wait"))[1]

    async def foundation(self) -> None:
        """Make a network with a subnetwork."""
        body: dict[str, Any] = {"name": "n", "autoCreateSubnetworks": False}
        await self.done("POST", "global/networks", body)
        body = {"name": "s", "network": NETWORK, "ipCidrRange": "10.10.0.0/29"}
        await self.done("POST", f"{REGION}/subnetworks", body)


@pytest.fixture
async def engine() -> Engine:
    """An API with a network."""
    made = Engine()
    await made.foundation()
    return made


def properties(**changes: Any) -> dict[str, Any]:
    """Describe a machine."""
    image = "projects/debian-cloud/global/images/family/debian-12"
    return {
        "machineType": f"{ZONE}/machineTypes/n2-standard-2",
        "disks": [{"boot": True, "initializeParams": {"sourceImage": image}}],
        "networkInterfaces": [{"subnetwork": f"{REGION}/subnetworks/s"}],
        "metadata": {"items": [{"key": "ssh-keys", "value": "burst:ssh-ed25519 AAAA me"}]},
        **changes,
    }


def bulk(*names: str, **changes: Any) -> dict[str, Any]:
    """Describe several."""
    named: dict[str, Any] = {name: {} for name in names}
    return {"perInstanceProperties": named, "instanceProperties": properties(), **changes}


async def names(engine: Engine) -> list[str]:
    """Return the instances that there are."""
    items = (await engine.call("GET", f"{ZONE}/instances"))[1].get("items", [])
    return [it["name"] for it in items]


async def test_an_instance_is_a_machine_in_its_subnetwork(engine: Engine) -> None:
    await engine.done("POST", f"{ZONE}/instances", {"name": "a", **properties()})
    spec = engine.backend.specs["a"]
    assert (spec.project, spec.segment) == ("sandbox-project", "sandbox-project/s")
    assert (spec.address, spec.prefix, spec.gateway) == ("10.10.0.2", 29, "10.10.0.1")
    assert spec.ssh_keys == (("burst", "ssh-ed25519 AAAA me"),)


async def test_addresses_are_used_again_and_run_out(engine: Engine) -> None:
    path = f"{ZONE}/instances"
    await engine.done("POST", f"{path}/bulkInsert", bulk("a", "b", "c", "d"))
    status, answer = await engine.call("POST", path, {"name": "e", **properties()})
    assert status == 400 and "exhausted" in answer["error"]["message"]
    await engine.done("DELETE", f"{path}/b")
    await engine.done("POST", path, {"name": "e", **properties()})
    assert engine.backend.specs["e"].address == "10.10.0.3"


async def test_one_that_does_not_start_takes_the_bulk_with_it(engine: Engine) -> None:
    operation = await engine.done("POST", f"{ZONE}/instances/bulkInsert", bulk("a", "bad", "c"))
    assert "bad did not start" in operation["error"]["errors"][0]["message"]
    assert operation["httpErrorStatusCode"] == 503
    assert await names(engine) == []
    assert sorted(engine.backend.deleted) == ["a", "c"]
    status = operation["instancesBulkInsertOperationMetadata"]["perLocationStatus"][ZONE]
    assert (status["createdVmCount"], status["deletedVmCount"]) == (2, 2)
    assert status["failedToCreateVmCount"] == 1


async def test_a_bulk_with_min_count_keeps_what_started(engine: Engine) -> None:
    body = bulk("a", "bad", "c", minCount="2", count="3")
    operation = await engine.done("POST", f"{ZONE}/instances/bulkInsert", body)
    assert "error" not in operation
    assert await names(engine) == ["a", "c"]


async def test_a_name_pattern_counts_up(engine: Engine) -> None:
    body = {"namePattern": "w-##", "count": "3", "instanceProperties": properties()}
    await engine.done("POST", f"{ZONE}/instances/bulkInsert", body)
    assert await names(engine) == ["w-01", "w-02", "w-03"]


async def test_deleting_what_boots_leaves_no_machine(engine: Engine) -> None:
    engine.backend.gate.clear()
    _unused, insert = await engine.call("POST", f"{ZONE}/instances", {"name": "a", **properties()})
    await asyncio.sleep(0.05)
    assert engine.cloud.find(Key("sandbox-project", ZONE, "instances", "a"))["status"] == "STAGING"  # type: ignore[index]
    _unused, first = await engine.call("DELETE", f"{ZONE}/instances/a")
    _unused, second = await engine.call("DELETE", f"{ZONE}/instances/a")
    assert first["name"] == second["name"]
    engine.backend.gate.set()
    assert "error" not in await engine.finished(first)
    assert "was deleted" in (await engine.finished(insert))["error"]["errors"][0]["message"]
    assert await names(engine) == []
    assert not engine.backend.running("sandbox-project", "a")


async def test_the_fuse_deletes_the_machine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.server.instances.RUN_SECONDS", (0, 10))
    scheduling = {"maxRunDuration": {"seconds": "1"}, "instanceTerminationAction": "DELETE"}
    body = {"name": "a", **properties(scheduling=scheduling)}
    await engine.done("POST", f"{ZONE}/instances", body)
    assert await names(engine) == ["a"]
    await asyncio.sleep(1.2)
    assert await names(engine) == []
    assert engine.backend.deleted == ["a"]


async def test_a_nat_lets_its_network_out_until_it_goes(engine: Engine) -> None:
    router = {"name": "r", "network": NETWORK, "nats": [NAT]}
    await engine.done("POST", f"{REGION}/routers", router)
    assert engine.backend.nat == [("sandbox-project/s", nat.NAT_ADDRESS)]
    await engine.done("PATCH", f"{REGION}/routers/r", {"nats": []})
    assert engine.backend.nat[1:] == [("sandbox-project/s", None)]
    await engine.done("PATCH", f"{REGION}/routers/r", {"nats": [NAT]})
    await engine.done("DELETE", f"{REGION}/routers/r")
    assert engine.backend.nat[3:] == [("sandbox-project/s", None)]


async def test_a_nat_of_listed_subnetworks_lets_only_those_out(engine: Engine) -> None:
    body = {"name": "other", "network": NETWORK, "ipCidrRange": "10.20.0.0/24"}
    await engine.done("POST", f"{REGION}/subnetworks", body)
    entry = {"name": f"{REGION}/subnetworks/other", "sourceIpRangesToNat": ["ALL_IP_RANGES"]}
    listed = {**NAT, "sourceSubnetworkIpRangesToNat": nat.LISTED, "subnetworks": [entry]}
    router = {"name": "r", "network": NETWORK, "nats": [listed]}
    await engine.done("POST", f"{REGION}/routers", router)
    assert engine.backend.nat == [("sandbox-project/other", nat.NAT_ADDRESS)]


async def test_a_network_that_is_being_made_cannot_be_used_yet() -> None:
    engine = Engine(real=True)
    body: dict[str, Any] = {"name": "n", "autoCreateSubnetworks": False}
    status, operation = await engine.call("POST", "global/networks", body)
    assert (status, operation["status"]) == (200, "RUNNING")
    body = {"name": "s", "network": NETWORK, "ipCidrRange": "10.10.0.0/24"}
    status, answer = await engine.call("POST", f"{REGION}/subnetworks", body)
    assert answer["error"]["errors"][0]["reason"] == "resourceNotReady"
    await engine.operations.stop()


def firewall(**changes: Any) -> dict[str, Any]:
    """Describe a rule that lets the relay in."""
    return {
        "name": "f",
        "network": NETWORK,
        "sourceRanges": ["35.235.240.0/20"],
        "allowed": [{"IPProtocol": "TCP", "ports": ["22"]}],
        **changes,
    }


@pytest.mark.parametrize(
    ("rules", "reached"),
    [
        ([], False),
        ([firewall()], True),
        ([firewall(allowed=[{"IPProtocol": "tcp", "ports": ["20-30"]}])], True),
        ([firewall(allowed=[{"IPProtocol": "all"}])], True),
        ([firewall(allowed=[{"IPProtocol": "tcp", "ports": ["80"]}])], False),
        ([firewall(allowed=[{"IPProtocol": "udp"}])], False),
        ([firewall(sourceRanges=["10.0.0.0/8"])], False),
        ([firewall(disabled=True)], False),
        ([firewall(targetTags=["other"])], False),
        ([firewall(), firewall(name="d", allowed=None, denied=[{"IPProtocol": "all"}])], False),
        (
            [
                firewall(priority=10),
                firewall(name="d", allowed=None, denied=[{"IPProtocol": "all"}]),
            ],
            True,
        ),
    ],
)
async def test_the_firewall_says_what_the_relay_reaches(
    engine: Engine, rules: list[dict[str, Any]], reached: bool
) -> None:
    await engine.done("POST", f"{ZONE}/instances", {"name": "a", **properties()})
    for rule in rules:
        given = {key: value for key, value in rule.items() if value is not None}
        await engine.done("POST", "global/firewalls", given)
    instance = engine.cloud.find(Key("sandbox-project", ZONE, "instances", "a"))
    assert instance is not None
    assert lets_in(engine.cloud, instance, IAP, 22) is reached


async def test_an_unknown_project_is_not_found(engine: Engine) -> None:
    status, answer = await engine.call("GET", "zones", project="nobodys")
    assert status == 404
    assert answer["error"]["message"] == "The resource 'projects/nobodys' was not found"


async def test_names_are_checked_without_googles_document_too(engine: Engine) -> None:
    body = {"name": "Bad_Name", "autoCreateSubnetworks": False}
    status, answer = await engine.call("POST", "global/networks", body)
    assert status == 400 and "Must be a match of regex" in answer["error"]["message"]


def test_ssh_keys_are_lines_of_user_and_key() -> None:
    text = "burst:ssh-ed25519 AAAA me\n\nops:ssh-rsa BBBB\nnonsense\n"
    expected = (("burst", "ssh-ed25519 AAAA me"), ("ops", "ssh-rsa BBBB"))
    assert ssh_keys({"ssh-keys": text}) == expected
