# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules make, repair and delete what they say, as processes of their own against the sandbox's Compute Engine."""

from __future__ import annotations

from typing import Any

import pytest
from compute_server import ComputeServer
from gce_modules import Modules, changed, held

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def modules(compute_server: ComputeServer) -> Modules:
    """Modules for burst t."""
    return Modules(compute_server)


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("network", {"state": "maybe"}, "present, absent"),
        ("network", {"subnet_cidr": "10.10.0.0/33"}, "subnet_cidr"),
        ("network", {"region": "mars-north1"}, "mars-north1"),
        ("network", {"project": "nobodys"}, "nobodys"),
        ("network", {"credentials_file": "/nonexistent.json"}, "/nonexistent.json"),
        ("network", {"compute_endpoint": "http://127.0.0.1:9"}, "Connection refused"),
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
