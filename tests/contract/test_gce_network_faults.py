# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A teardown outlasts what lets go late, and a check of a site's network does without what it may not read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from compute_server import ComputeServer
from gce_modules import Modules, changed, held

pytestmark = pytest.mark.slow

REGION = "regions/us-central1"
USED = {"status": 400, "code": "resourceInUseByAnotherResource", "message": "It is used by 'x'"}
LATE = {**USED, "code": "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"}
NOT_READY = {"status": 400, "code": "resourceNotReady", "message": "It is not ready"}


@pytest.fixture(autouse=True)
def _no_faults_after(compute_server: ComputeServer) -> Iterator[None]:
    yield
    compute_server.faults()


@pytest.mark.parametrize(
    "rule",
    [
        {"method": "networks.delete", "at": "request", **USED},
        {"method": "addresses.delete", "at": "operation", **LATE},
        {"method": "subnetworks.delete", "at": "request", **NOT_READY},
    ],
)
def test_what_is_in_use_is_deleted_when_it_is_let_go(
    compute_server: ComputeServer, rule: dict[str, Any]
) -> None:
    modules = Modules(compute_server, "f")
    modules.network(nat_addresses=1)
    compute_server.faults({**rule, "times": 2})
    assert len(changed(modules.network(state="absent"))) == 6
    assert held(compute_server) == []


def test_a_failure_of_another_kind_ends_the_teardown_and_the_next_one_ends_the_rest(
    compute_server: ComputeServer,
) -> None:
    modules = Modules(compute_server, "f")
    modules.network()
    compute_server.faults({"method": "routers.delete", "at": "request", "status": 403, "times": 1})
    assert "router f-router" in modules.failure("network", state="absent")
    left = [it for it in held(compute_server) if it.startswith("subnetworks")]
    assert left == []
    assert ("router", "f-router", "delete") in changed(modules.network(state="absent"))
    assert held(compute_server) == []


def test_what_may_not_be_read_of_a_site_network_is_a_warning(compute_server: ComputeServer) -> None:
    host = replace(compute_server, project="sandbox-host")
    host.done("POST", "global/networks", {"name": "vpc", "autoCreateSubnetworks": False})
    body = {"name": "vpc-a", "network": "global/networks/vpc", "ipCidrRange": "10.50.0.0/26"}
    host.done("POST", f"{REGION}/subnetworks", body)
    compute_server.faults(
        {"method": "networks.getEffectiveFirewalls", "at": "request", "status": 403},
        {"method": "routers.list", "at": "request", "status": 403},
    )
    subnetwork = f"projects/sandbox-host/{REGION}/subnetworks/vpc-a"
    warnings = str(Modules(compute_server, "f").network(subnetwork=subnetwork)["warnings"])
    assert "compute.networks.getEffectiveFirewalls not granted" in warnings
    assert "compute.routers.list not granted" in warnings
    host.done("DELETE", f"{REGION}/subnetworks/vpc-a")
    host.done("DELETE", "global/networks/vpc")
