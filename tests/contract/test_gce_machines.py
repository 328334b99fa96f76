# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines are made where they can be had, all of them or none, and are told apart from what was asked for."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from compute_server import ComputeServer
from gce_modules import HOSTS, KEY, Modules, changed, held

pytestmark = pytest.mark.slow

ZONES = ["us-central1-a", "us-central1-b", "us-central1-c"]
BULK = "instances.bulkInsert"
STOCKOUT = {
    "method": BULK,
    "at": "operation",
    "status": 503,
    "code": "ZONE_RESOURCE_POOL_EXHAUSTED",
    "message": "The zone does not have enough resources available to fulfill the request",
}
QUOTA = {
    "method": BULK,
    "at": "operation",
    "status": 403,
    "code": "QUOTA_EXCEEDED",
    "message": "Quota 'N2_CPUS' exceeded. Limit: 4.0 in region us-central1.",
}


@pytest.fixture(scope="module")
def networked(compute_server: ComputeServer) -> Iterator[Modules]:
    """Modules for burst v, whose network exists."""
    made = Modules(compute_server, "v")
    assert not made.network(subnet_cidr="10.12.0.0/18").get("failed")
    yield made
    made.network(state="absent")
    assert held(compute_server) == []


@pytest.fixture
def machines(networked: Modules) -> Iterator[Modules]:
    """Modules for burst v, without faults and without machines at the end."""
    yield networked
    networked.server.faults()
    quotas(networked.server, {})
    networked.instances(state="absent", hosts=None)
    assert left(networked.server) == []


def quotas(server: ComputeServer, limits: dict[str, dict[str, float]]) -> None:
    """Set limits that are not the usual ones."""
    url, data = f"{server.compute_endpoint}/sandbox/quotas", json.dumps(limits).encode()
    urllib.request.urlopen(urllib.request.Request(url, data, method="PUT")).close()


def preempt(server: ComputeServer, host: str) -> None:
    """Take a machine away as a spot machine is."""
    url = f"{server.compute_endpoint}/sandbox/preempt/{server.project}/{host}"
    urllib.request.urlopen(urllib.request.Request(url, b"")).close()


def left(server: ComputeServer) -> list[str]:
    """Return the machines and placements that there are."""
    policies = server.call("GET", "regions/us-central1/resourcePolicies")[1].get("items", [])
    machines = [one for one in held(server) if one.startswith("instances/")]
    return [*machines, *(f"policies/{one['name']}" for one in policies)]


def requests(server: ComputeServer) -> list[dict[str, Any]]:
    """Return every request so far."""
    return [json.loads(line) for line in (server.state / "requests.jsonl").open()]


def writes(server: ComputeServer, since: int) -> list[str]:
    """Return the paths of what was asked to change."""
    asked = requests(server)[since:]
    paths = [it["path"] for it in asked if it["method"] != "GET"]
    return [path for path in paths if path != "/token" and not path.endswith("/wait")]


def instance(server: ComputeServer, host: str, zone: str = ZONES[0]) -> dict[str, Any]:
    """Return a machine as Compute Engine has it."""
    status, found = server.call("GET", f"zones/{zone}/instances/{host}")
    assert status == 200, found
    assert isinstance(found, dict)
    return found


def tried(result: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Return the places that did not do."""
    return [(it["zone"], it["machine_type"], it["codes"]) for it in result["attempts"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hosts": None}, "hosts"),
        ({"max_run_duration": "long"}, "max_run_duration"),
        ({"zones": ["us-central1-a", "us-east1-b"]}, "wanted zones of one region"),
        ({"zones": []}, "found none"),
        ({"image": "projects/sandbox-project/global/images/none"}, "cannot be found"),
        ({"accelerator_type": "nvidia-none"}, "nvidia-none"),
        ({"service_account_scopes": "x", "labels": {"Team": "hpc"}}, "Label key 'Team'"),
        ({"subnetwork": "projects/sandbox-project/regions/us-central1/subnetworks/no"}, "/no"),
    ],
)
def test_bad_parameters_are_told_and_make_nothing(
    machines: Modules, options: dict[str, Any], said: str
) -> None:
    assert said in machines.failure("instances", **options)
    assert left(machines.server) == []


def test_without_a_network_it_says_which_is_missing(compute_server: ComputeServer) -> None:
    assert "t-subnet" in Modules(compute_server, "t").failure("instances")


def test_machines_are_created_once_put_right_and_deleted_once(machines: Modules) -> None:
    creation = [("instance", host, "create") for host in HOSTS]
    planned = machines.instances(check=True)
    assert changed(planned) == creation
    assert planned["instances"] == []
    assert left(machines.server) == []

    made = machines.instances()
    assert changed(made) == creation
    assert made["diff"] == planned["diff"]
    _as_asked(machines, made)

    assert changed(machines.instances()) == []
    assert changed(machines.instances(check=True)) == []
    _put_right(machines)

    info = machines.run("gce_burst_info")
    assert info["changed"] is False
    assert [row["name"] for row in info["instances"]] == HOSTS

    deletion = [("instance", host, "delete") for host in HOSTS]
    assert changed(machines.instances(state="absent", check=True)) == deletion
    assert changed(machines.instances(state="absent", hosts=HOSTS[:1])) == deletion[:1]
    assert changed(machines.instances(state="absent", hosts=None)) == deletion[1:]
    assert changed(machines.instances(state="absent")) == []


def _as_asked(modules: Modules, made: dict[str, Any]) -> None:
    assert [row["name"] for row in made["instances"]] == HOSTS
    assert (made["attempts"], made["drift"], made["lost"], made["missing"]) == ([], [], [], [])
    for row in made["instances"]:
        assert (row["zone"], row["status"]) == (ZONES[0], "RUNNING")
        assert row["machine_type"] == "n2-standard-2"
        found = instance(modules.server, row["name"])
        assert found["labels"] == {"flux-burst": "v", "team": "hpc"}
        assert found["scheduling"]["maxRunDuration"] == {"seconds": "14400"}
        assert found["scheduling"]["instanceTerminationAction"] == "DELETE"
        assert "accessConfigs" not in found["networkInterfaces"][0]
        assert "serviceAccounts" not in found
        items = {item["key"]: item["value"] for item in found["metadata"]["items"]}
        assert items["ssh-keys"] == f"burst:{KEY}"
        assert items["block-project-ssh-keys"] == items["enable-guest-attributes"] == "TRUE"


def _put_right(modules: Modules) -> None:
    server, path = modules.server, f"zones/us-central1-a/instances/{HOSTS[0]}"
    before = server.call("GET", path)[1]
    labels = {"flux-burst": "v", "team": "other", "theirs": "stays"}
    fingerprint = before["labelFingerprint"]
    body: dict[str, Any] = {"labels": labels, "labelFingerprint": fingerprint}
    server.done("POST", f"{path}/setLabels", body)
    items = [{"key": "enable-guest-attributes", "value": "TRUE"}, {"key": "note", "value": "stays"}]
    body = {"items": items, "fingerprint": before["metadata"]["fingerprint"]}
    server.done("POST", f"{path}/setMetadata", body)
    assert changed(modules.instances()) == [("instance", HOSTS[0], "update")]
    after = server.call("GET", path)[1]
    assert after["labels"] == {"flux-burst": "v", "team": "hpc", "theirs": "stays"}
    keys = {item["key"]: item["value"] for item in after["metadata"]["items"]}
    assert keys["ssh-keys"] == f"burst:{KEY}"
    assert keys["note"] == "stays"


def test_every_option_reaches_the_machines_and_a_second_run_finds_them_so(
    machines: Modules,
) -> None:
    options = {
        "machine_types": ["n1-standard-4"],
        "tags": ["flux", "burst"],
        "service_account": "nodes@sandbox-project.iam.gserviceaccount.com",
        "accelerator_type": "nvidia-tesla-t4",
        "accelerator_count": 2,
        "spot": True,
        "reservation": "mine",
        "min_cpu_platform": "Intel Cascade Lake",
        "shielded": True,
        "max_run_duration": "30m",
        "disk_size_gb": 50,
    }
    assert len(changed(machines.instances(**options))) == len(HOSTS)
    found = instance(machines.server, HOSTS[0])
    assert sorted(found["tags"]["items"]) == ["burst", "flux"]
    assert found["serviceAccounts"][0]["email"] == options["service_account"]
    [accelerator] = found["guestAccelerators"]
    assert accelerator["acceleratorCount"] == 2
    assert accelerator["acceleratorType"].endswith("acceleratorTypes/nvidia-tesla-t4")
    assert found["scheduling"]["provisioningModel"] == "SPOT"
    assert found["scheduling"]["onHostMaintenance"] == "TERMINATE"
    assert found["scheduling"]["maxRunDuration"] == {"seconds": "1800"}
    assert found["reservationAffinity"]["values"] == ["mine"]
    assert found["minCpuPlatform"] == "Intel Cascade Lake"
    assert found["shieldedInstanceConfig"]["enableSecureBoot"] is True
    assert found["disks"][0]["diskSizeGb"] == "50"
    again = machines.instances(**options)
    assert (changed(again), again["drift"]) == ([], [])


def test_what_cannot_change_is_told_as_drift_with_both_values_and_left(machines: Modules) -> None:
    machines.instances()
    wanted = {"machine_types": ["n2-standard-4"], "max_run_duration": "2h", "tags": ["x"]}
    result = machines.instances(**wanted, spot=True)
    assert changed({**result, "diff": []}) == []
    rows = {(it["field"], str(it["wanted"]), str(it["found"])) for it in result["drift"]}
    assert rows == {
        ("machine_types", "['n2-standard-4']", "n2-standard-2"),
        ("max_run_duration", "7200s", "14400s"),
        ("spot", "True", "False"),
        ("tags", "x", ""),
    }
    assert len(result["drift"]) == len(result["diff"]) == len(result["warnings"]) == 4 * len(HOSTS)
    assert result["diff"][0]["after"] == {"machine_types": ["n2-standard-4"]}
    assert instance(machines.server, HOSTS[0])["machineType"].endswith("n2-standard-2")
    second = machines.instances(machine_types=["n2-standard-4", "n2-standard-2"])
    assert second["drift"] == []


def test_a_machine_that_is_missing_is_created_alone_and_beside_the_others(
    machines: Modules,
) -> None:
    assert len(changed(machines.instances(zones=[ZONES[1]]))) == len(HOSTS)
    machines.server.done("DELETE", f"zones/{ZONES[1]}/instances/{HOSTS[1]}")
    result = machines.instances(zones=ZONES)
    assert changed(result) == [("instance", HOSTS[1], "create")]
    assert [row["zone"] for row in result["instances"]] == [ZONES[1]] * 2
    assert result["lost"] == []


def test_machines_that_were_preempted_or_died_are_named_and_made_again(machines: Modules) -> None:
    machines.instances(spot=True)
    preempt(machines.server, HOSTS[0])
    result = machines.instances(spot=True)
    assert changed(result) == [("instance", HOSTS[0], "create")]
    [lost] = result["lost"]
    assert lost["name"] == HOSTS[0]
    assert lost["why"].startswith("was preempted at 20")
    [warning] = result["warnings"]
    assert "and deleted; it is created again." in str(warning)

    machines.server.done("POST", f"zones/{ZONES[0]}/instances/{HOSTS[1]}/stop")
    result = machines.instances(spot=True)
    assert changed(result) == [("instance", HOSTS[1], "delete"), ("instance", HOSTS[1], "create")]
    assert result["lost"] == [
        {"name": HOSTS[1], "why": "died or was stopped, and is TERMINATED"},
    ]
    assert changed(machines.instances(spot=True)) == []


def test_a_stockout_here_and_a_quota_there_end_in_the_third_zone_with_all_machines(
    machines: Modules,
) -> None:
    machines.server.faults(
        {**STOCKOUT, "scope": f"zones/{ZONES[0]}"}, {**QUOTA, "scope": f"zones/{ZONES[1]}"}
    )
    result = machines.instances(zones=ZONES)
    assert {row["zone"] for row in result["instances"]} == {ZONES[2]}
    assert len(result["instances"]) == len(HOSTS)
    assert tried(result) == [
        (ZONES[0], "n2-standard-2", ["ZONE_RESOURCE_POOL_EXHAUSTED"]),
        (ZONES[1], "n2-standard-2", ["QUOTA_EXCEEDED"]),
    ]
    assert "not have enough resources" in result["attempts"][0]["error"]
    assert "Limit: 4.0" in result["attempts"][1]["error"]


def test_a_machine_type_that_no_zone_has_left_gives_way_to_the_next(machines: Modules) -> None:
    machines.server.faults({**STOCKOUT, "contains": "c2-standard-4"})
    result = machines.instances(zones=ZONES[:2], machine_types=["c2-standard-4", "n2-standard-4"])
    assert [row["machine_type"] for row in result["instances"]] == ["n2-standard-4"] * 2
    assert [row["zone"] for row in result["attempts"]] == ZONES[:2]


def test_when_every_place_fails_nothing_is_left_and_every_attempt_is_told(
    machines: Modules,
) -> None:
    machines.server.faults({**STOCKOUT, "fail_count": 1})
    result = machines.instances(
        zones=ZONES, machine_types=["c2-standard-4", "n2-standard-4"], compact=True
    )
    assert result["failed"]
    for kind in ("c2-standard-4", "n2-standard-4"):
        for zone in ZONES:
            assert f"{kind} in {zone}: ZONE_RESOURCE_POOL_EXHAUSTED" in result["msg"]
    assert "add zones to burst_zones" in result["msg"]
    assert "\n" not in result["msg"]
    assert len(result["attempts"]) == 6
    assert left(machines.server) == []


def test_an_error_that_every_zone_would_have_is_not_tried_elsewhere(machines: Modules) -> None:
    machines.server.faults(
        {"method": BULK, "at": "operation", "status": 400, "code": "INVALID_USAGE", "message": "no"}
    )
    before = len(requests(machines.server))
    result = machines.instances(zones=ZONES)
    assert "INVALID_USAGE" in result["msg"]
    asked = set(writes(machines.server, before))
    assert {path for path in asked if "bulkInsert" in path and ZONES[0] not in path} == set()
    assert left(machines.server) == []


def test_a_quota_that_does_not_suffice_is_told_before_anything_is_asked_for(
    machines: Modules,
) -> None:
    quotas(machines.server, {"us-central1": {"N2_CPUS": 3}, "global": {"CPUS_ALL_REGIONS": 2}})
    for check in (True, False):
        before = len(requests(machines.server))
        result = machines.instances(check=check)
        assert "wanted 4 N2_CPUS in us-central1, found 3 left of 3" in result["msg"]
        assert "wanted 4 CPUS_ALL_REGIONS in all regions, found 2 left of 2" in result["msg"]
        assert "iam-admin/quotas?project=sandbox-project" in result["msg"]
        assert tried(result) == [(ZONES[0], "n2-standard-2", ["QUOTA_TOO_SMALL"])]
        assert writes(machines.server, before) == []
    result = machines.instances(machine_types=["n2-standard-2", "e2-standard-2"], check=True)
    assert "CPUS_ALL_REGIONS" in result["msg"]
    quotas(machines.server, {"us-central1": {"N2_CPUS": 3}})
    result = machines.instances(machine_types=["n2-standard-2", "e2-standard-2"])
    assert {row["machine_type"] for row in result["instances"]} == {"e2-standard-2"}


def test_a_zone_without_the_machine_type_is_passed_over(machines: Modules) -> None:
    result = machines.instances(zones=ZONES[1:] + ZONES[:1], machine_types=["h3-standard-88"])
    assert {row["zone"] for row in result["instances"]} == {ZONES[0]}
    assert [row["codes"] for row in result["attempts"]] == [["NO_SUCH_MACHINE_TYPE"]] * 2
    said = machines.failure("instances", hosts=["x-1"], machine_types=["no-such-type"])
    assert f"no-such-type in {ZONES[0]}: NO_SUCH_MACHINE_TYPE" in said


def test_the_best_that_can_be_had_is_kept_where_that_is_asked_for(machines: Modules) -> None:
    machines.server.faults({**STOCKOUT, "fail_count": 1})
    result = machines.instances(best_effort=True, hosts=[*HOSTS, "gffw-compute-a-003"])
    assert len(result["instances"]) == 2
    assert len(result["missing"]) == 1
    machines.server.faults()
    again = machines.instances(best_effort=True, hosts=[*HOSTS, "gffw-compute-a-003"])
    assert changed(again) == [("instance", result["missing"][0], "create")]
    assert again["missing"] == []


def test_a_compact_placement_comes_and_goes_with_its_machines(machines: Modules) -> None:
    planned = machines.instances(compact=True, check=True)
    assert ("policy", "v-placement", "create") in changed(planned)
    made = machines.instances(compact=True)
    assert changed(made)[0] == ("policy", "v-placement", "create")
    [policy] = instance(machines.server, HOSTS[0])["resourcePolicies"]
    assert policy.endswith("regions/us-central1/resourcePolicies/v-placement")
    assert changed(machines.instances(compact=True)) == []
    machines.instances(state="absent", hosts=HOSTS[:1])
    assert left(machines.server) == [f"instances/{HOSTS[1]}", "policies/v-placement"]
    gone = machines.instances(state="absent", hosts=None)
    assert changed(gone)[-1] == ("policy", "v-placement", "delete")


def request_ids(server: ComputeServer) -> list[str]:
    """Return the requestId of every creation of machines so far."""
    paths = "/instances/bulkInsert"
    return [it["query"]["requestId"] for it in requests(server) if it["path"].endswith(paths)]


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


def calls(server: ComputeServer) -> list[dict[str, Any]]:
    """Return every call of Compute Engine so far; a token is somebody else's."""
    return [it for it in requests(server) if it["path"] != "/token"]


def kinds(asked: list[dict[str, Any]]) -> dict[str, int]:
    """Return how many requests of each kind there were, list pages apart."""
    found: dict[str, int] = {}
    for it in asked:
        parts = it["path"].rpartition("/projects/")[2].split("/")
        last = parts[-1] if parts[-1] in ("wait", "bulkInsert") else ""
        page = " page" if it["query"].get("pageToken") else ""
        named = "operations" if "operations" in parts else parts[-1]
        name = f"{it['method']} {last or named}{page}"
        found[name] = found.get(name, 0) + 1
    return found


def test_a_thousand_machines_take_as_many_requests_as_three(compute_server: ComputeServer) -> None:
    counts = []
    for number, cidr in ((3, "10.64.0.0/20"), (1000, "10.80.0.0/20")):
        modules = Modules(compute_server, f"n{number}")
        hosts = [f"n{number}-{index:04}" for index in range(number)]
        before = len(calls(compute_server))
        # As a burst does: quotas and machine types are looked at before the network is made.
        assert len(changed(modules.instances(check=True, hosts=hosts))) == number
        assert not modules.network(subnet_cidr=cidr).get("failed")
        made = modules.instances(hosts=hosts)
        assert len(made["instances"]) == number
        created = calls(compute_server)[before:]
        assert changed(modules.instances(hosts=hosts)) == []
        again = calls(compute_server)[before + len(created) :]
        pages = [it for it in created + again if it["query"].get("pageToken")]
        print(f"{number} machines: {len(created)} requests, {len(again)} again: {kinds(created)}")
        plain = [it for it in created if it not in pages]
        rest = [it for it in again if it not in pages]
        counts.append((kinds(plain), kinds(rest)))
        assert len(plain) <= 26
        assert len(rest) <= 4
        assert len(pages) == (2 if number == 1000 else 0)
        modules.instances(state="absent", hosts=None)
        modules.network(state="absent")
    small, large = (
        {name.replace("n1000", "n3"): count for name, count in part.items()}
        for part in (counts[0][0], counts[1][0])
    )
    assert small == large
    assert sum(counts[0][1].values()) == sum(counts[1][1].values())


def test_machines_have_public_addresses_where_they_are_asked_for(machines: Modules) -> None:
    made = machines.instances(public_address=True, hosts=HOSTS[:1])
    [row] = made["instances"]
    nic = instance(machines.server, HOSTS[0])["networkInterfaces"][0]
    assert row["external_ip"] == nic["accessConfigs"][0]["natIP"] != ""
    [drift] = machines.instances(hosts=HOSTS[:1])["drift"]
    assert (drift["field"], drift["wanted"], drift["found"]) == ("public_address", False, True)


def test_with_os_login_no_key_is_in_the_metadata(machines: Modules) -> None:
    made = machines.instances(os_login=True, ssh_public_key=None, hosts=HOSTS[:1])
    assert changed(made) == [("instance", HOSTS[0], "create")]
    items = instance(machines.server, HOSTS[0])["metadata"]["items"]
    metadata = {item["key"]: item["value"] for item in items}
    assert metadata["enable-oslogin"] == "TRUE"
    assert "ssh-keys" not in metadata
    said = machines.failure("instances", ssh_public_key=None)
    assert said.startswith("ssh_public_key: wanted a value for state=present, found null")
