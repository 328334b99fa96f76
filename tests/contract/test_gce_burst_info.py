# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bursts have is found whole, with its cost, in one request a kind; a plan has prices without configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from compute_bodies import ZONE, bulk
from compute_server import ComputeServer
from gce_modules import Modules, held

from sandbox.server import validate

pytestmark = pytest.mark.slow

FOUNDATION = {"foundation": "hpc", "subnet_cidr": "10.30.0.0/24", "nat_addresses": 1}
SPOT = {
    "provisioningModel": "SPOT",
    "instanceTerminationAction": "DELETE",
    "maxRunDuration": {"seconds": "3600"},
}


@pytest.fixture(scope="module")
def bursts(compute_server: ComputeServer) -> Iterator[ComputeServer]:
    """Burst a has two machines on a shared foundation, burst b one on spot and a network of its own."""
    server = compute_server
    shared = Modules(server, "a").network(**FOUNDATION)["subnetwork"]
    own = Modules(server, "b").network(subnet_cidr="10.31.0.0/24")["subnetwork"]
    nics = [{"subnetwork": shared}]
    first = bulk("a-1", "a-2", labels={"flux-burst": "a"}, networkInterfaces=nics)
    nics = [{"subnetwork": own}]
    second = bulk("b-1", labels={"flux-burst": "b"}, networkInterfaces=nics, scheduling=SPOT)
    for body in (first, second, bulk("other", labels={"team": "x"}, networkInterfaces=nics)):
        assert "error" not in server.done("POST", f"{ZONE}/instances/bulkInsert", body)
    yield server
    for name in ("a-1", "a-2", "b-1", "other"):
        server.done("DELETE", f"{ZONE}/instances/{name}")
    Modules(server, "a").network(state="absent", **FOUNDATION)
    Modules(server, "b").network(state="absent")
    assert held(server) == []
    assert validate.check_log(server.state / "requests.jsonl") == []


def reads(server: ComputeServer) -> list[str]:
    """Return the paths that were read so far."""
    lines = (server.state / "requests.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [it["path"] for it in entries if it["method"] == "GET"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ["machines"]}, "kinds"),
        ({"burst": None}, "burst"),
        ({"prices": {"n2-standard-2": "cheap"}}, "prices: wanted"),
        ({"project": "nobodys"}, "nobodys"),
    ],
)
def test_bad_parameters_are_told(bursts: ComputeServer, options: dict[str, Any], said: str) -> None:
    result = Modules(bursts, "a").run("gce_burst_info", **options)
    assert result["failed"]
    assert said in result["msg"]


def test_a_burst_is_found_with_its_machines_costs_and_foundation(bursts: ComputeServer) -> None:
    for check in (False, True):
        found = Modules(bursts, "a").run("gce_burst_info", foundation="hpc", check=check)
        assert found["changed"] is False
        assert [it["name"] for it in found["instances"]] == ["a-1", "a-2"]
        first = found["instances"][0]
        assert (first["spot"], first["status"]) == (False, "RUNNING")
        assert (first["price_per_hour"], first["price_basis"]) == (0.097118, "list")
        assert 0 < first["cost"] < 0.01
        assert 3000 < first["time_left"] <= 3600
        assert found["networks"] == ["hpc-net"]
        assert found["subnetworks"] == ["hpc-subnet"]
        assert found["routers"] == ["hpc-router"]
        assert found["firewalls"] == ["hpc-allow-iap-ssh", "hpc-allow-internal"]
        assert found["addresses"] == ["hpc-nat-1"]
        assert len(found["nat_ips"]) == 1
        assert found["totals"]["machines"] == found["totals"]["running"] == 2
        assert found["totals"]["price_per_hour"] == 0.1942
        assert found["report"][0].startswith("a-1 RUNNING n2-standard-2 us-central1-a 10.30.0.")
        assert "2 machines, 2 running (0 spot)" in found["report"][2]


def test_all_bursts_are_found_and_nothing_else(bursts: ComputeServer) -> None:
    found = Modules(bursts, "all").run("gce_burst_info", prices={"n2-standard-2": 1.0})
    assert [it["burst"] for it in found["bursts"]] == ["a", "b", "hpc"]
    assert [it["name"] for it in found["instances"]] == ["a-1", "a-2", "b-1"]
    assert found["networks"] == ["b-net", "hpc-net"]
    assert found["totals"]["price_per_hour"] == 3.0
    [spot] = [it for it in found["instances"] if it["spot"]]
    assert (spot["name"], spot["price_basis"]) == ("b-1", "configured")
    assert any(line.startswith("b: b-1 RUNNING n2-standard-2 spot") for line in found["report"])


def test_what_is_not_asked_for_is_not_read(bursts: ComputeServer) -> None:
    before = len(reads(bursts))
    found = Modules(bursts, "a").run("gce_burst_info", kinds=["instances"])
    assert [it["name"] for it in found["instances"]] == ["a-1", "a-2"]
    assert [path.rpartition("/")[2] for path in reads(bursts)[before:]] == ["instances"]
    before = len(reads(bursts))
    Modules(bursts, "a").run("gce_burst_info")
    assert len(reads(bursts)[before:]) == 9


def test_a_disk_that_outlives_its_machine_is_told(bursts: ComputeServer) -> None:
    modules = Modules(bursts, "c")
    body = bulk("c-1", labels={"flux-burst": "c"})
    [disk] = body["instanceProperties"]["disks"]
    disk["autoDelete"] = False
    disk["initializeParams"]["labels"] = {"flux-burst": "c"}
    nics = [{"subnetwork": "regions/us-central1/subnetworks/b-subnet"}]
    body["instanceProperties"]["networkInterfaces"] = nics
    assert "error" not in bursts.done("POST", f"{ZONE}/instances/bulkInsert", body)
    assert modules.run("gce_burst_info")["disks"] == []
    bursts.done("DELETE", f"{ZONE}/instances/c-1")
    found = modules.run("gce_burst_info")
    assert found["report"] == ["disks left behind: c-1"]
    bursts.done("DELETE", f"{ZONE}/disks/c-1")
    assert modules.run("gce_burst_info")["report"] == ["nothing"]


def test_a_burst_that_has_nothing_is_no_error(bursts: ComputeServer) -> None:
    found = Modules(bursts, "nothing").run("gce_burst_info")
    assert (found["instances"], found["report"]) == ([], ["nothing"])
    assert found["totals"]["cost"] == 0


def test_a_machine_type_has_a_price_without_configuration(bursts: ComputeServer) -> None:
    names = ["n2-standard-4", "c3-standard-8", "e2-medium"]
    options: dict[str, Any] = {"zone": "us-central1-a", "names": names}
    modules = Modules(bursts, "")
    result = modules.run("gce_machine_type_info", prices={"c3-standard-8": 9}, **options)
    found = [(it["price_per_hour"], it["price_basis"]) for it in result["machine_types"]]
    assert found == [(0.194236, "list"), (9.0, "configured"), (0.033506, "list")]
