# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules make, repair and delete what they say, as processes of their own against the sandbox's Compute Engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from compute_server import TOP, ComputeServer

pytestmark = pytest.mark.slow

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPublic burst"
IMAGE = "projects/sandbox-project/global/images/family/flux-fw-bursted-x86-64"
NETWORK = [
    ("network", "t-net"),
    ("subnetwork", "t-subnet"),
    ("router", "t-router"),
    ("firewall", "t-allow-iap-ssh"),
    ("firewall", "t-allow-internal"),
]
SUBNETWORK = "regions/us-central1/subnetworks/t-subnet"
ROUTER = "regions/us-central1/routers/t-router"
SSH_FIREWALL = "global/firewalls/t-allow-iap-ssh"


class Modules:
    """Runs modules of one burst against a server."""

    def __init__(self, server: ComputeServer, burst: str = "t") -> None:
        self.server, self.burst = server, burst

    def run(self, name: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Return what a module returns; it must end with exit_json or fail_json, not a traceback."""
        server = self.server
        arguments = {
            **({"burst": self.burst} if self.burst else {}),
            "project": server.project,
            "compute_endpoint": server.compute_endpoint,
            "credentials_file": str(server.credentials_file),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **options,
        }
        done = subprocess.run(
            [sys.executable, "-m", f"ansible_collections.flux.burst.plugins.modules.{name}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(TOP / ".cache" / "collections")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip().startswith("{"), done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert ("failed" in result) == (done.returncode != 0)
        return result

    def network(self, **options: Any) -> dict[str, Any]:
        """Run gce_network."""
        return self.run(
            "gce_network", **{"region": "us-central1", "subnet_cidr": "10.10.0.0/24", **options}
        )

    def instances(self, **options: Any) -> dict[str, Any]:
        """Run gce_instances."""
        wanted = {
            "zone": "us-central1-a",
            "hosts": HOSTS,
            "machine_type": "n2-standard-2",
            "image": IMAGE,
            "ssh_public_key": KEY,
            "labels": {"team": "hpc"},
            "boot_timeout": 20,
        }
        return self.run("gce_instances", **{**wanted, **options})

    def failure(self, module: str, **options: Any) -> str:
        """Return the message of a module that has to fail, which is one line."""
        result = getattr(self, module)(**options)
        assert result.get("failed"), result
        assert "\n" not in result["msg"]
        return str(result["msg"])


@pytest.fixture(scope="module")
def modules(compute_server: ComputeServer) -> Modules:
    """Modules for burst t."""
    return Modules(compute_server)


@pytest.fixture(scope="module")
def networked(compute_server: ComputeServer) -> Iterator[Modules]:
    """Modules for burst v, whose network exists."""
    made = Modules(compute_server, "v")
    assert not made.network(subnet_cidr="10.12.0.0/24").get("failed")
    yield made
    made.instances(state="absent")
    made.network(state="absent")
    assert held(compute_server) == []


@pytest.fixture
def machines(networked: Modules) -> Iterator[Modules]:
    """Modules for burst v, whose machines are deleted at the end."""
    yield networked
    networked.instances(state="absent")


def changed(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (kind, name, action) of what was changed."""
    assert not result.get("failed"), result["msg"]
    found = [(it["kind"], it["name"], it["action"]) for it in result["resources"]]
    assert result["changed"] == bool(found)
    assert len(result["diff"]) == len(found)
    return found


def held(server: ComputeServer) -> list[str]:
    """Return the paths of everything in the project."""
    found = []
    for place in (
        "global/networks",
        "global/firewalls",
        "aggregated/subnetworks",
        "aggregated/routers",
        "aggregated/instances",
    ):
        items = server.call("GET", place)[1].get("items", [])
        kind = place.split("/")[1]
        if isinstance(items, dict):
            items = [one for scope in items.values() for one in scope.get(kind, [])]
        found += [f"{kind}/{one['name']}" for one in items]
    return found


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("network", {"state": "maybe"}, "present, absent"),
        ("network", {"subnet_cidr": "10.10.0.0/33"}, "resource.ipCidrRange"),
        ("network", {"region": "mars-north1"}, "mars-north1"),
        ("network", {"project": "nobodys"}, "nobodys"),
        ("network", {"credentials_file": "/nonexistent.json"}, "/nonexistent.json"),
        ("network", {"compute_endpoint": "http://127.0.0.1:9"}, "Connection refused"),
        ("instances", {"hosts": None}, "hosts"),
        ("instances", {"max_run_duration": "long"}, "max_run_duration"),
        ("instances", {}, "t-net"),
    ],
)
def test_bad_parameters_are_told(
    modules: Modules, module: str, options: dict[str, Any], said: str
) -> None:
    before = held(modules.server)
    assert said in modules.failure(module, **options)
    # A refused subnetwork is found after the network was made, which the next run goes on from.
    assert [one for one in held(modules.server) if one not in before] in ([], ["networks/t-net"])
    modules.server.call("DELETE", "global/networks/t-net")


def test_a_network_is_created_once_repaired_and_deleted_once(modules: Modules) -> None:
    server = modules.server
    creation = [(*one, "create") for one in NETWORK]
    planned = modules.network(check=True)
    assert changed(planned) == creation
    assert held(server) == []

    made = modules.network()
    assert changed(made) == creation
    assert made["diff"] == planned["diff"]
    assert changed(modules.network()) == []
    assert changed(modules.network(check=True)) == []

    subnet = server.call("GET", "regions/us-central1/subnetworks/t-subnet")[1]
    assert subnet["privateIpGoogleAccess"] is True
    assert server.call("GET", "global/networks/t-net")[1]["autoCreateSubnetworks"] is False
    _repaired(modules)
    _not_ours(modules)

    assert "cannot change in place" in modules.failure("network", subnet_cidr="10.11.0.0/24")
    deletion = sorted((*one, "delete") for one in NETWORK)
    assert sorted(changed(modules.network(state="absent", check=True))) == deletion
    assert len(held(server)) == len(NETWORK)
    assert sorted(changed(modules.network(state="absent"))) == deletion
    assert held(server) == []
    assert changed(modules.network(state="absent")) == []


def _repaired(modules: Modules) -> None:
    server = modules.server
    before = server.call("GET", SSH_FIREWALL)[1]
    server.done(
        "PATCH",
        SSH_FIREWALL,
        {
            "name": "t-allow-iap-ssh",
            "sourceRanges": ["0.0.0.0/0"],
            "disabled": True,
            "targetTags": ["some"],
        },
    )
    result = modules.network()
    assert changed(result) == [("firewall", "t-allow-iap-ssh", "update")]
    [shown] = result["diff"]
    assert shown["before"] == {
        "sourceRanges": ["0.0.0.0/0"],
        "disabled": True,
        "targetTags": ["some"],
    }
    assert shown["after"] == {
        "sourceRanges": ["35.235.240.0/20"],
        "disabled": False,
        "targetTags": [],
    }
    after = server.call("GET", SSH_FIREWALL)[1]
    assert after == before

    nats = server.call("GET", ROUTER)[1]["nats"]
    server.done("PATCH", ROUTER, {"nats": []})
    assert changed(modules.network()) == [("router", "t-router", "update")]
    assert server.call("GET", ROUTER)[1]["nats"] == nats

    off = {"privateIpGoogleAccess": False}
    server.done("POST", f"{SUBNETWORK}/setPrivateIpGoogleAccess", off)
    assert changed(modules.network()) == [("subnetwork", "t-subnet", "update")]
    assert server.call("GET", SUBNETWORK)[1]["privateIpGoogleAccess"] is True

    server.done("DELETE", "global/firewalls/t-allow-internal")
    assert changed(modules.network()) == [("firewall", "t-allow-internal", "create")]
    assert changed(modules.network()) == []


def _not_ours(modules: Modules) -> None:
    server = modules.server
    theirs = {
        "name": "u-net",
        "autoCreateSubnetworks": False,
        "description": "somebody's",
    }
    server.done("POST", "global/networks", theirs)
    other = Modules(server, "u")
    try:
        assert "somebody else made" in other.failure("network")
        assert changed(other.network(state="absent")) == []
        assert server.call("GET", "global/networks/u-net")[0] == 200
    finally:
        server.done("DELETE", "global/networks/u-net")


def test_machines_are_created_once_repaired_and_deleted_once(machines: Modules) -> None:
    server = machines.server
    creation = [("instance", host, "create") for host in HOSTS]
    planned = machines.instances(check=True)
    assert changed(planned) == creation
    assert planned["instances"] == []
    assert "instances/gffw-compute-a-001" not in held(server)

    made = machines.instances()
    assert changed(made) == creation
    assert made["diff"] == planned["diff"]
    _as_asked(machines, made)

    assert changed(machines.instances()) == []
    assert changed(machines.instances(check=True)) == []
    _machines_repaired(machines)

    info = machines.run("gce_burst_info")
    assert info["changed"] is False
    assert [row["name"] for row in info["instances"]] == HOSTS
    assert info["networks"] == ["v-net"]
    assert info["subnetworks"] == ["v-subnet"]
    assert info["routers"] == ["v-router"]
    assert info["firewalls"] == ["v-allow-iap-ssh", "v-allow-internal"]

    deletion = [("instance", host, "delete") for host in HOSTS]
    assert changed(machines.instances(state="absent", check=True)) == deletion
    assert changed(machines.instances(state="absent")) == deletion
    assert changed(machines.instances(state="absent")) == []


def _as_asked(modules: Modules, made: dict[str, Any]) -> None:
    assert [row["name"] for row in made["instances"]] == HOSTS
    for row in made["instances"]:
        assert row["zone"] == "us-central1-a"
        assert row["status"] == "RUNNING"
        assert row["machine_type"] == "n2-standard-2"
        assert row["host_keys"]["ssh-ed25519"]
        _unused, found = modules.server.call("GET", f"zones/us-central1-a/instances/{row['name']}")
        assert found["labels"] == {"flux-burst": "v", "team": "hpc"}
        assert found["scheduling"]["maxRunDuration"] == {"seconds": "14400"}
        assert found["scheduling"]["instanceTerminationAction"] == "DELETE"
        assert "accessConfigs" not in found["networkInterfaces"][0]
        items = {item["key"]: item["value"] for item in found["metadata"]["items"]}
        assert items["ssh-keys"] == f"burst:{KEY}"
        assert items["block-project-ssh-keys"] == items["enable-guest-attributes"] == "TRUE"


def _machines_repaired(modules: Modules) -> None:
    server, path = modules.server, f"zones/us-central1-a/instances/{HOSTS[0]}"
    before = server.call("GET", path)[1]
    labels = {"flux-burst": "v", "team": "other", "theirs": "stays"}
    server.done(
        "POST",
        f"{path}/setLabels",
        {"labels": labels, "labelFingerprint": before["labelFingerprint"]},
    )
    items = [{"key": "enable-guest-attributes", "value": "TRUE"}, {"key": "note", "value": "stays"}]
    server.done(
        "POST",
        f"{path}/setMetadata",
        {"items": items, "fingerprint": before["metadata"]["fingerprint"]},
    )
    assert changed(modules.instances()) == [("instance", HOSTS[0], "update")]
    after = server.call("GET", path)[1]
    assert after["labels"] == {"flux-burst": "v", "team": "hpc", "theirs": "stays"}
    keys = {item["key"]: item["value"] for item in after["metadata"]["items"]}
    assert keys["ssh-keys"] == f"burst:{KEY}"
    assert keys["note"] == "stays"
    result = modules.instances(machine_type="n2-standard-4")
    assert changed(result) == []
    assert len(result["warnings"]) == len(HOSTS)

    stopped = HOSTS[1]
    server.done("POST", f"zones/us-central1-a/instances/{stopped}/stop")
    assert f"{stopped} TERMINATED" in modules.failure("instances")
    server.done("DELETE", f"zones/us-central1-a/instances/{stopped}")
    assert changed(modules.instances()) == [("instance", stopped, "create")]


def request_ids(server: ComputeServer) -> list[str]:
    """Return the requestId of every creation of machines so far."""
    entries = map(json.loads, (server.state / "requests.jsonl").read_text().splitlines())
    paths = "/instances/bulkInsert"
    return [it["query"]["requestId"] for it in entries if it["path"].endswith(paths)]


def test_a_request_that_compute_engine_remembers_does_not_stand_for_new_machines(
    machines: Modules,
) -> None:
    server = machines.server
    before = len(request_ids(server))
    machines.instances()
    first = request_ids(server)[before:]
    for host in HOSTS:
        server.done("DELETE", f"zones/us-central1-a/instances/{host}")
    assert len(changed(machines.instances())) == len(HOSTS)
    second = request_ids(server)[before + len(first) :]
    assert second[:-1] == first, "a repeat has the same ids, so it makes no second set"
    assert second[-1] not in first


def test_a_creation_that_fails_keeps_no_machine(machines: Modules) -> None:
    assert "no-such-type" in machines.failure("instances", machine_type="no-such-type")
    assert [one for one in held(machines.server) if one.startswith("instances/")] == []
