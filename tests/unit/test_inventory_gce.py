# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's variables are what a connection through the tunnel needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible import context
from ansible_collections.flux.burst.plugins.inventory import gce
from ansible_collections.flux.burst.plugins.inventory.gce import (
    common_variables,
    gateways,
    host_variables,
    named,
)
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
    "burst_directory": "/bursts",
    "burst_ssh_private_key_file": None,
    "burst_ssh_via": "iap",
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
        "external_ip": "",
    }
    addressed = {"networkIP": "10.10.0.2", "accessConfigs": [{"natIP": "203.0.113.7"}]}
    assert machine({**REST, "networkInterfaces": [addressed]})["external_ip"] == "203.0.113.7"


def test_a_machine_without_a_network_has_no_address() -> None:
    bare = machine({key: value for key, value in REST.items() if key != "networkInterfaces"})
    assert (bare["internal_ip"], bare["external_ip"]) == ("", "")
    unaddressed = [{"networkIP": "10.10.0.2", "accessConfigs": []}]
    assert machine({**REST, "networkInterfaces": unaddressed})["external_ip"] == ""


def row(**changes: Any) -> dict[str, Any]:
    return {**machine(REST), "project": "my-project", "labels": {"flux-burst": "mine"}, **changes}


def test_a_machine_is_reached_through_the_tunnel() -> None:
    found = {**common_variables(SPEC), **host_variables(row(), SPEC)}
    assert found["ansible_connection"] == "flux.burst.iap"
    assert found["ansible_user"] == "burst"
    assert found["ansible_ssh_private_key_file"] == "/bursts/mine/ssh_key"
    assert (found["burst_directory"], found["iap_burst"]) == ("/bursts", "mine")
    assert found["iap_via"] == "iap"
    assert (found["iap_project"], found["iap_zone"]) == ("my-project", "us-central1-a")
    assert found["iap_instance_id"] == "42"
    assert found["gce_labels"] == {"flux-burst": "mine"}


def test_with_os_login_a_machine_says_who_logs_in() -> None:
    labels = {"flux-burst": "mine", "flux-burst-user": "sa_1234"}
    assert host_variables(row(labels=labels), SPEC)["ansible_user"] == "sa_1234"


def test_a_key_that_is_given_is_every_machines() -> None:
    found = host_variables(row(), {**SPEC, "burst_ssh_private_key_file": "/keys/burst"})
    assert found["ansible_ssh_private_key_file"] == "/keys/burst"


def test_the_gateway_of_a_burst_is_its_first_machine_that_runs() -> None:
    rows = [
        row(name="n-1", status="STAGING", id="1"),
        row(name="n-3", id="3"),
        row(name="n-2", id="2"),
        row(name="o-1", id="4", labels={"flux-burst": "other"}),
    ]
    assert gateways(rows) == {
        ("my-project", "mine"): {"instance": "n-2", "zone": "us-central1-a", "instance_id": "2"},
        ("my-project", "other"): {"instance": "o-1", "zone": "us-central1-a", "instance_id": "4"},
    }


def test_a_name_that_two_machines_have_is_the_own_bursts_and_the_other_has_its_name_in_the_dns() -> (
    None
):
    others = row(labels={"flux-burst": "other"}, project="a-project", zone="us-east1-b")
    rows = [others, row(), row(name="n-2")]
    found = named(rows, "mine")
    assert [name for name, _unused in found] == [
        "n-1",
        "n-2",
        "n-1.us-east1-b.c.a-project.internal",
    ]
    assert found[0][1] == row()
    assert [name for name, _unused in named(rows[:1], "mine")] == ["n-1"]


def test_one_list_is_read_in_each_project_and_nothing_for_each_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[str, str, str]] = []

    class Session:
        def __init__(self, endpoint: str, auth: Auth) -> None:
            assert (endpoint, auth.credentials_file) == (SPEC["burst_compute_endpoint"], None)

        def aggregated(
            self, project: str, kind: str, fields: str, **query: str
        ) -> Iterator[dict[str, Any]]:
            asked.append((project, kind, query["filter"]))
            for name in ("n-2", "n-1"):
                yield {**REST, "name": name, "labels": {"flux-burst": "mine"}}

    monkeypatch.setattr(gce, "GceSession", Session)
    rows = gce.read(SPEC, ["p", "q"], "mine")
    found = [(row["project"], row["name"]) for row in rows]
    assert found == [("p", "n-1"), ("p", "n-2"), ("q", "n-1"), ("q", "n-2")]
    assert sorted(asked) == [
        ("p", "instances", "labels.flux-burst=mine"),
        ("q", "instances", "labels.flux-burst=mine"),
    ]
    asked.clear()
    gce.read(SPEC, ["p"], None)
    assert asked == [("p", "instances", "labels.flux-burst:*")]


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        ({"subset": None}, True),
        ({"list": True}, False),
        ({"graph": True}, False),
        ({"host": "n"}, False),
    ],
)
def test_workers_inherit_the_connection_and_a_listing_does_not_pay_for_it(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], loaded: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(context, "CLIARGS", arguments)
    monkeypatch.setattr(gce.connection_loader, "get", lambda name, **_options: asked.append(name))
    gce.load_connection()
    assert asked == (["flux.burst.iap"] if loaded else [])
