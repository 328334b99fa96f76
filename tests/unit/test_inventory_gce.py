# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's variables are what a connection through the tunnel needs."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.inventory import gce
from ansible_collections.flux.burst.plugins.inventory.gce import host_variables
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_session import machine

REST = {
    "id": "42",
    "name": "n-1",
    "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a",
    "status": "RUNNING",
    "machineType": "https://www.googleapis.com/compute/v1/projects/p/zones/z/machineTypes/n2-standard-4",
    "networkInterfaces": [{"networkIP": "10.10.0.2"}],
}
SPEC = {
    "burst_project": "my-project",
    "burst_ssh_user": "burst",
    "burst_ssh_private_key_file": "/keys/burst",
    "burst_credentials_file": None,
    "burst_impersonate_service_account": None,
    "burst_compute_endpoint": "https://compute.googleapis.com",
    "burst_iap_endpoint": "wss://tunnel.cloudproxy.app",
    "burst_iap_ca_file": None,
}


def test_a_machine_is_its_rest_resource_without_urls() -> None:
    assert machine(REST) == {
        "name": "n-1",
        "id": "42",
        "zone": "us-central1-a",
        "status": "RUNNING",
        "machine_type": "n2-standard-4",
        "internal_ip": "10.10.0.2",
    }


def test_a_machine_is_reached_through_the_tunnel_with_its_own_keys() -> None:
    found = host_variables(SPEC, {**machine(REST), "host_keys": {"ssh-ed25519": "AAAA"}})
    assert found["ansible_connection"] == "flux.burst.iap"
    assert found["ansible_user"] == "burst"
    assert found["ansible_ssh_private_key_file"] == "/keys/burst"
    assert (found["iap_project"], found["iap_zone"]) == ("my-project", "us-central1-a")
    assert (found["iap_instance_id"], found["iap_host_keys"]) == ("42", {"ssh-ed25519": "AAAA"})


def test_a_machine_without_published_keys_has_none_in_the_inventory() -> None:
    assert "iap_host_keys" not in host_variables(SPEC, {**machine(REST), "host_keys": {}})


def test_keys_are_read_from_machines_that_run_and_no_machine_on_its_way_out_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statuses = ["RUNNING", "STAGING", "STOPPING", "TERMINATED"]
    asked: list[str] = []

    class Session:
        def __init__(self, endpoint: str, auth: Auth) -> None:
            assert (endpoint, auth.credentials_file) == (SPEC["burst_compute_endpoint"], None)

        def instances(self, project: str, burst: str) -> list[dict[str, Any]]:
            assert (project, burst) == ("my-project", "mine")
            return [{**REST, "name": status.lower(), "status": status} for status in statuses]

        def host_keys(self, project: str, zone: str, instance: str) -> dict[str, str]:
            asked.append(instance)
            return {"ssh-ed25519": "AAAA"}

    monkeypatch.setattr(gce, "GceSession", Session)
    rows = gce.read({**SPEC, "burst_name": "mine"})
    found = {row["name"]: row["host_keys"] for row in rows}
    assert found == {"running": {"ssh-ed25519": "AAAA"}, "staging": {}}
    assert asked == ["running"]
