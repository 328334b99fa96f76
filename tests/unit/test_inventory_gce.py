# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's variables are what a connection through the tunnel needs."""

from __future__ import annotations

from ansible_collections.flux.burst.plugins.inventory.gce import host_variables
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
