# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-inventory shows the machines of the specification's burst, or says in one line why it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compute_bodies import FOUNDATION, ZONE, bulk
from compute_server import TOP, ComputeServer

BIN = Path(sys.executable).parent
MACHINES = ["b-001", "b-002", "b-003"]


@pytest.fixture(scope="module")
def machines(compute_server: ComputeServer) -> ComputeServer:
    """A server with machines of burst t, of which the last is stopped, and one of another burst."""
    for path, body in FOUNDATION:
        compute_server.done("POST", path, body)
    roles = {"flux-burst": "t", "flux-burst-role": "gate-way"}
    compute_server.done("POST", f"{ZONE}/instances/bulkInsert", bulk(*MACHINES[1:]))
    first = bulk(MACHINES[0], labels=roles)
    compute_server.done("POST", f"{ZONE}/instances/bulkInsert", first)
    other = bulk("other-001", labels={"flux-burst": "u"})
    compute_server.done("POST", f"{ZONE}/instances/bulkInsert", other)
    compute_server.done("POST", f"{ZONE}/instances/{MACHINES[-1]}/stop")
    return compute_server


class Inventory:
    """An inventory file and its specification."""

    def __init__(self, top: Path, server: ComputeServer) -> None:
        self.top, self.options = top, ""
        self.spec: dict[str, Any] | str = {
            "burst_name": "t",
            "burst_project": server.project,
            "burst_ssh_private_key_file": "{{ where }}/key",
            "burst_compute_endpoint": server.compute_endpoint,
            "burst_iap_endpoint": "wss://relay",
            "burst_credentials_file": str(server.credentials_file),
            "where": "/keys",
            "unrelated": "{{ lookup('ansible.builtin.file', '/nonexistent') }}",
        }

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ansible-inventory."""
        text = self.spec if isinstance(self.spec, str) else json.dumps(self.spec)
        (self.top / "all.yml").write_text(text)
        file = self.top / "gce.yml"
        file.write_text(f"plugin: flux.burst.gce\nspecification: all.yml\n{self.options}")
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".cache" / "collections"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
            "ANSIBLE_NOCOLOR": "true",
            "COLUMNS": "10000",
        }
        return subprocess.run(
            [BIN / "ansible-inventory", "-i", file, *words],
            env={**os.environ, **environment},
            cwd=self.top,
            capture_output=True,
            text=True,
            check=False,
        )

    def found(self, *words: str) -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
        """Return the hosts of each group and the variables of each host."""
        done = self.ask("--list", *words)
        assert done.returncode == 0, done.stderr
        listed = json.loads(done.stdout, object_hook=lambda it: it.get("__ansible_unsafe", it))
        variables = listed.pop("_meta")["hostvars"]
        return {name: sorted(group.get("hosts", [])) for name, group in listed.items()}, variables


@pytest.fixture
def inventory(machines: ComputeServer, tmp_path: Path) -> Iterator[Inventory]:
    """An inventory of burst t."""
    yield Inventory(tmp_path, machines)


def test_a_machine_that_runs_has_all_that_a_connection_needs(
    inventory: Inventory, machines: ComputeServer
) -> None:
    groups, variables = inventory.found()
    assert groups["burst_nodes"] == MACHINES[:2]
    assert "other-001" not in variables
    instance = machines.call("GET", f"{ZONE}/instances/b-001")[1]
    assert variables["b-001"] == {
        "ansible_connection": "flux.burst.iap",
        "ansible_user": "burst",
        "ansible_ssh_private_key_file": "/keys/key",
        "ansible_python_interpreter": "/usr/bin/python3",
        "burst_compute_endpoint": machines.compute_endpoint,
        "burst_credentials_file": str(machines.credentials_file),
        "burst_iap_endpoint": "wss://relay",
        "iap_burst": "t",
        "iap_project": machines.project,
        "iap_via": "iap",
        "iap_zone": "us-central1-a",
        "iap_instance_id": instance["id"],
        "gce_internal_ip": instance["networkInterfaces"][0]["networkIP"],
        "gce_external_ip": "",
        "gce_machine_type": "n2-standard-2",
        "gce_status": "RUNNING",
        "gce_labels": {"flux-burst": "t", "flux-burst-role": "gate-way"},
    }


def test_all_but_one_go_through_the_first_machine_that_runs(
    inventory: Inventory, machines: ComputeServer
) -> None:
    found = inventory.found("-e", "burst_ssh_via=gateway")[1]
    first = machines.call("GET", f"{ZONE}/instances/b-001")[1]
    gateway = {"instance": "b-001", "zone": "us-central1-a", "instance_id": first["id"]}
    assert {found[name]["iap_via"] for name in MACHINES[:2]} == {"gateway"}
    assert [found[name]["iap_gateway"] for name in MACHINES[:2]] == [gateway, gateway]


def test_a_machine_is_in_groups_by_burst_zone_state_and_role(inventory: Inventory) -> None:
    groups = inventory.found()[0]
    for name in ("flux_burst_t", "zone_us_central1_a", "state_running"):
        assert groups[name] == MACHINES[:2]
    assert groups["role_gate_way"] == ["b-001"]
    assert "state_terminated" not in groups


def test_a_machine_that_stopped_is_listed_where_its_state_is_asked_for(
    inventory: Inventory,
) -> None:
    inventory.options = "states: [TERMINATED]\n"
    groups = inventory.found()[0]
    assert groups["burst_nodes"] == groups["state_terminated"] == MACHINES[2:]


def test_every_burst_can_be_listed_and_burst_nodes_is_the_own_one(inventory: Inventory) -> None:
    inventory.options = "bursts: all\n"
    groups = inventory.found()[0]
    assert groups["burst_nodes"] == groups["flux_burst_t"] == MACHINES[:2]
    assert groups["flux_burst_u"] == ["other-001"]


def test_several_projects_are_looked_in(inventory: Inventory) -> None:
    inventory.options = "projects: [sandbox-site, sandbox-project]\n"
    groups, variables = inventory.found()
    assert groups["burst_nodes"] == MACHINES[:2]
    assert variables["b-001"]["iap_project"] == "sandbox-project"


def test_a_listing_is_one_call_however_many_machines_run(
    inventory: Inventory, machines: ComputeServer
) -> None:
    log = machines.state / "requests.jsonl"
    before = len(log.read_text().splitlines())
    inventory.found()
    calls = [json.loads(line)["path"] for line in log.read_text().splitlines()[before:]]
    assert [path for path in calls if path != "/token"] == [
        "/compute/v1/projects/sandbox-project/aggregated/instances"
    ]


def test_what_is_given_on_the_command_line_wins(inventory: Inventory) -> None:
    groups = inventory.found("-e", "burst_name=u")[0]
    assert groups["burst_nodes"] == ["other-001"]


def test_a_burst_without_machines_is_an_empty_group(inventory: Inventory) -> None:
    done = inventory.ask("--graph", "-e", "burst_name=nobody")
    assert (done.returncode, done.stderr) == (0, "")
    assert "@burst_nodes:" in done.stdout


def test_groups_and_variables_can_be_composed(inventory: Inventory) -> None:
    inventory.options = """
keyed_groups: [{key: gce_machine_type, prefix: type}]
groups: {first: inventory_hostname.endswith('001')}
compose: {ansible_host: gce_internal_ip}
"""
    groups, variables = inventory.found()
    assert groups["type_n2_standard_2"] == MACHINES[:2]
    assert groups["first"] == ["b-001"]
    assert variables["b-001"]["ansible_host"] == variables["b-001"]["gce_internal_ip"]


def test_a_cache_spares_the_reading_until_it_is_flushed(
    inventory: Inventory, tmp_path: Path
) -> None:
    inventory.options = (
        f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {tmp_path}/cache\n"
    )
    first = inventory.found()
    # Another burst's machines are another entry.
    assert inventory.found("-e", "burst_name=u")[0]["burst_nodes"] == ["other-001"]
    assert isinstance(inventory.spec, dict)
    inventory.spec["burst_credentials_file"] = "/nonexistent.json"
    cached = inventory.found()
    assert cached[0] == first[0]
    assert inventory.ask("--list", "--flush-cache").returncode != 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("just text", "wanted a mapping of burst_* variables, found"),
        ({"burst_ssh_private_key_file": "{{ nowhere }}/key"}, "burst_ssh_private_key_file: "),
        ({"burst_credentials_file": "/nonexistent.json"}, "/nonexistent.json"),
        ({"burst_compute_endpoint": "http://127.0.0.1:9"}, "Connection refused"),
        ({"burst_project": "nobodys"}, "burst_project"),
    ],
)
def test_what_is_wrong_is_told_once(
    inventory: Inventory, changed: str | dict[str, str], said: str
) -> None:
    if isinstance(changed, dict):
        assert isinstance(inventory.spec, dict)
        inventory.spec.update(changed)
    else:
        inventory.spec = changed
    done = inventory.ask("--graph")
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_of_another_name_is_not_ours(inventory: Inventory) -> None:
    inventory.ask("--graph")
    (inventory.top / "hosts.yml").write_text((inventory.top / "gce.yml").read_text())
    done = inventory.ask("--graph", "-i", str(inventory.top / "hosts.yml"))
    assert done.returncode != 0
    assert "could not be verified by inventory plugin" in " ".join(done.stderr.split())
