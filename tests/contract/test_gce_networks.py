# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A foundation is made, shared, changed and deleted by whoever leaves last; a site's own network is only looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from compute_bodies import ZONE, bulk
from compute_server import ComputeServer
from gce_modules import Modules, changed, held

from sandbox.server import validate

pytestmark = pytest.mark.slow

REGION = "regions/us-central1"
EAST = "regions/us-east1"
SHARED = {"foundation": "hpc", "subnet_cidr": "10.30.0.0/24"}
HOST_SUBNET = f"projects/sandbox-host/{REGION}/subnetworks/vpc-a"
IAP_RULE = {
    "name": "vpc-ssh",
    "network": "global/networks/vpc",
    "sourceRanges": ["35.235.240.0/20"],
    "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
}


@pytest.fixture(autouse=True)
def _right(compute_server: ComputeServer) -> Iterator[None]:
    """Whatever a test does, its requests and their answers are as Google's discovery document has them."""
    yield
    assert validate.check_log(compute_server.state / "requests.jsonl") == []


def addresses(server: ComputeServer) -> dict[str, str]:
    """Return the reserved addresses by name."""
    items = server.call("GET", f"{REGION}/addresses")[1].get("items", [])
    return {item["name"]: item["address"] for item in items}


def machines(server: ComputeServer, burst: str, subnetwork: str, *names: str) -> None:
    """Make machines of a burst."""
    nics = [{"subnetwork": subnetwork}]
    body = bulk(*names, labels={"flux-burst": burst}, networkInterfaces=nics)
    assert "error" not in server.done("POST", f"{ZONE}/instances/bulkInsert", body)


def calls(server: ComputeServer, after: int = 0) -> list[dict[str, Any]]:
    """Return the requests that were made, without those that take a token."""
    lines = (server.state / "requests.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[after:]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nat_addresses": 51}, "nat_addresses: wanted 0 to 50"),
        ({"nat_addresses": "some"}, "nat_addresses"),
        ({"subnet_cidr": "10.0.0.0"}, "wanted an IPv4 range from /8 to /29"),
        ({"subnet_cidr": "ten"}, "subnet_cidr: wanted an IPv4 range"),
        ({"machines": 300}, "found 252 in 10.10.0.0/24"),
        ({"network": "vpc"}, "required by 'network': subnetwork"),
        ({"subnetwork": "projects/x/networks/a"}, "subnetwork: wanted a name"),
        ({"subnetwork": "a", "network": "x/y"}, "network: wanted a name"),
    ],
)
def test_bad_parameters_are_told_before_anything_is_made(
    compute_server: ComputeServer, options: dict[str, Any], said: str
) -> None:
    modules = Modules(compute_server, "bad")
    assert said in modules.failure("network", **options)
    assert held(compute_server) == []


def test_reserved_addresses_follow_what_is_wanted(compute_server: ComputeServer) -> None:
    server, modules = compute_server, Modules(compute_server, "s")
    planned = modules.network(nat_addresses=2, check=True)
    assert planned["nat_ips"] == []
    assert addresses(server) == {}
    made = modules.network(nat_addresses=2)
    assert changed(made) == changed(planned)
    assert {("address", "s-nat-1", "create"), ("address", "s-nat-2", "create")} < set(changed(made))
    assert list(addresses(server)) == ["s-nat-1", "s-nat-2"]
    assert made["nat_ips"] == list(addresses(server).values())
    [nat] = server.call("GET", f"{REGION}/routers/s-router")[1]["nats"]
    assert nat["natIpAllocateOption"] == "MANUAL_ONLY"
    assert [link.rpartition("/")[2] for link in nat["natIps"]] == ["s-nat-1", "s-nat-2"]
    assert made["network"] == "projects/sandbox-project/global/networks/s-net"
    assert made["subnetwork"] == f"projects/sandbox-project/{REGION}/subnetworks/s-subnet"

    again = modules.network(nat_addresses=2)
    assert changed(again) == []
    assert again["nat_ips"] == made["nat_ips"]

    fewer = [("router", "s-router", "update"), ("address", "s-nat-2", "delete")]
    assert changed(modules.network(nat_addresses=1, check=True)) == fewer
    assert changed(modules.network(nat_addresses=1)) == fewer
    assert list(addresses(server)) == ["s-nat-1"]
    assert changed(modules.network(nat_addresses=1)) == []

    none = [("router", "s-router", "update"), ("address", "s-nat-1", "delete")]
    assert changed(modules.network()) == none
    assert addresses(server) == {}
    assert changed(modules.network()) == []

    assert ("address", "s-nat-1", "create") in changed(modules.network(nat_addresses=1))
    deletion = changed(modules.network(state="absent", check=True))
    assert deletion[0] == ("subnetwork", "s-subnet", "delete")
    assert changed(modules.network(state="absent")) == deletion
    assert (held(server), addresses(server)) == ([], {})
    assert changed(modules.network(state="absent")) == []


def test_an_address_of_such_a_name_that_somebody_else_reserved_is_told(
    compute_server: ComputeServer,
) -> None:
    server, modules = compute_server, Modules(compute_server, "s")
    server.done("POST", f"{REGION}/addresses", {"name": "s-nat-1", "description": "theirs"})
    try:
        said = modules.failure("network", nat_addresses=1)
        assert "address s-nat-1" in said
        assert "somebody else made" in said
        assert changed(modules.network(state="absent")) == []
        assert list(addresses(server)) == ["s-nat-1"]
    finally:
        server.done("DELETE", f"{REGION}/addresses/s-nat-1")


def test_a_shared_foundation_is_made_by_the_first_and_deleted_by_the_last(
    compute_server: ComputeServer,
) -> None:
    server = compute_server
    one, two = Modules(server, "one"), Modules(server, "two")
    made = one.network(**SHARED)
    assert len(changed(made)) == 5
    assert changed(two.network(**SHARED)) == []
    subnetwork = made["subnetwork"]
    assert subnetwork.endswith("/subnetworks/hpc-subnet")
    machines(server, "one", subnetwork, "one-1")
    machines(server, "two", subnetwork, "two-1")

    said = one.failure("network", state="absent", **SHARED)
    assert "found 1 (one-1): delete them first" in said
    server.done("DELETE", f"{ZONE}/instances/one-1")
    for check in (True, False):
        left = one.network(state="absent", check=check, **SHARED)
        assert changed(left) == []
        assert left["kept_for"] == ["two"]
    assert len([path for path in held(server) if path.split("/")[1].startswith("hpc-")]) == 5
    assert changed(two.network(**SHARED)) == []

    server.done("DELETE", f"{ZONE}/instances/two-1")
    gone = two.network(state="absent", **SHARED)
    assert len(changed(gone)) == 5
    assert gone["kept_for"] == []
    assert held(server) == []
    assert changed(one.network(state="absent", **SHARED)) == []


def test_a_burst_that_gives_another_range_for_a_shared_foundation_is_told(
    compute_server: ComputeServer,
) -> None:
    one, two = Modules(compute_server, "one"), Modules(compute_server, "two")
    one.network(**SHARED)
    try:
        assert "ipCidrRange 10.31.0.0/24, found 10.30.0.0/24" in two.failure(
            "network", foundation="hpc", subnet_cidr="10.31.0.0/24"
        )
    finally:
        one.network(state="absent", **SHARED)
    assert held(compute_server) == []


def test_a_teardown_ends_what_an_interrupted_one_left_in_whatever_region(
    compute_server: ComputeServer,
) -> None:
    server, modules = compute_server, Modules(compute_server, "i")
    modules.network(nat_addresses=1)
    mark = {"description": "flux-burst=i"}
    network = "global/networks/i-net"
    lost = {"name": "i-lost", "network": network, "ipCidrRange": "10.40.0.0/24", **mark}
    server.done("POST", f"{EAST}/subnetworks", lost)
    server.done("POST", f"{EAST}/routers", {"name": "i-router", "network": network, **mark})
    server.done("DELETE", "global/firewalls/i-allow-internal")
    server.done("DELETE", f"{REGION}/subnetworks/i-subnet")
    gone = changed(modules.network(state="absent"))
    assert [name for _kind, name, _action in gone if name == "i-router"] == ["i-router"] * 2
    assert ("subnetwork", "i-lost", "delete") in gone
    assert (held(server), addresses(server)) == ([], {})


def test_an_unchanged_foundation_costs_one_read_each_and_nothing_more(
    compute_server: ComputeServer,
) -> None:
    server, modules = compute_server, Modules(compute_server, "c")
    start = len(calls(server))
    modules.network()
    creation = [it for it in calls(server, start) if "/compute/v1/" in it["path"]]
    # Five to look, five to make, five to wait for.
    assert len(creation) == 15
    start = len(calls(server))
    modules.network()
    again = [it for it in calls(server, start) if "/compute/v1/" in it["path"]]
    assert [it["method"] for it in again] == ["GET"] * 5
    modules.network(state="absent")


@pytest.fixture
def host(compute_server: ComputeServer) -> Iterator[ComputeServer]:
    """The shared VPC's project, with a network, a subnetwork and a rule for IAP."""
    server = replace(compute_server, project="sandbox-host")
    server.done("POST", "global/networks", {"name": "vpc", "autoCreateSubnetworks": False})
    subnetwork = {
        "name": "vpc-a",
        "network": "global/networks/vpc",
        "ipCidrRange": "10.50.0.0/26",
        "privateIpGoogleAccess": True,
    }
    server.done("POST", f"{REGION}/subnetworks", subnetwork)
    server.done("POST", "global/firewalls", IAP_RULE)
    yield server
    for path in ("global/firewalls/vpc-ssh", f"{REGION}/subnetworks/vpc-a", "global/networks/vpc"):
        server.call("DELETE", path)
    assert held(server) == []


def test_a_shared_vpcs_subnetwork_is_checked_and_never_changed(
    compute_server: ComputeServer, host: ComputeServer
) -> None:
    modules, before = Modules(compute_server, "h"), held(host)
    for given in (
        {"subnetwork": HOST_SUBNET},
        {"subnetwork": "vpc-a", "network": "projects/sandbox-host/global/networks/vpc"},
        {"subnetwork": f"https://www.googleapis.com/compute/v1/{HOST_SUBNET}"},
    ):
        result = modules.network(machines=60, **given)
        assert changed(result) == []
        assert result["subnetwork"] == HOST_SUBNET
        assert result["network"] == "projects/sandbox-host/global/networks/vpc"
        assert not result.get("warnings")
    machines(compute_server, "h", HOST_SUBNET, "h-1")
    assert changed(modules.network(state="absent", subnetwork=HOST_SUBNET)) == []
    assert held(host) == before
    compute_server.done("DELETE", f"{ZONE}/instances/h-1")


def test_only_service_projects_put_machines_into_a_host_projects_subnetwork(
    host: ComputeServer,
) -> None:
    site = replace(host, project="sandbox-site")
    body = bulk("h-1", networkInterfaces=[{"subnetwork": HOST_SUBNET}])
    status, answer = site.call("POST", f"{ZONE}/instances/bulkInsert", body)
    assert status == 403
    assert "compute.subnetworks.use" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"subnetwork": "missing"},
            "wanted subnetwork projects/sandbox-project/regions/us-central1",
        ),
        ({"subnetwork": HOST_SUBNET, "region": "us-east1"}, "wanted one in region us-east1"),
        ({"subnetwork": HOST_SUBNET, "machines": 61}, "found 60 in 10.50.0.0/26"),
        ({"subnetwork": HOST_SUBNET, "network": "other"}, "correct burst_network"),
    ],
)
def test_a_subnetwork_where_machines_cannot_live_is_told(
    compute_server: ComputeServer, host: ComputeServer, options: dict[str, Any], said: str
) -> None:
    assert said in Modules(compute_server, "h").failure("network", **options)


def test_what_an_existing_network_lacks_is_an_error_or_a_warning(
    compute_server: ComputeServer, host: ComputeServer
) -> None:
    modules = Modules(compute_server, "h")
    off = {"privateIpGoogleAccess": False}
    host.done("POST", f"{REGION}/subnetworks/vpc-a/setPrivateIpGoogleAccess", off)
    [warning] = modules.network(subnetwork=HOST_SUBNET)["warnings"]
    assert "private Google access or a NAT, found neither" in str(warning)
    tagged = {"name": "vpc-ssh", "targetTags": ["hpc"]}
    host.done("PATCH", "global/firewalls/vpc-ssh", tagged)
    assert "lets tcp:22 in from 35.235.240.0/20" in modules.failure(
        "network", subnetwork=HOST_SUBNET
    )
    assert not modules.network(subnetwork=HOST_SUBNET, tags=["hpc"]).get("failed")
