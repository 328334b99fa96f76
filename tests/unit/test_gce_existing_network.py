# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's own subnetwork is taken where machines can live in it, and what it lacks is said."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, SpecError
from ansible_collections.flux.burst.plugins.module_utils._gce_existing_network import (
    check_ssh,
    check_subnetwork,
    egress_warning,
    network_path,
    subnetwork_path,
)

BASE = "https://www.googleapis.com/compute/v1"
HOST = "projects/my-host/global/networks/hpc"
SUBNET = "projects/my-host/regions/us-central1/subnetworks/hpc-a"
FOUND = {"network": f"{BASE}/{HOST}", "ipCidrRange": "10.0.0.0/24", "purpose": "PRIVATE"}
IAP = "35.235.240.0/20"


@pytest.mark.parametrize(
    ("value", "network", "path"),
    [
        ("mine", None, "projects/own-project/regions/us-central1/subnetworks/mine"),
        ("mine", "net", "projects/own-project/regions/us-central1/subnetworks/mine"),
        ("hpc-a", HOST, SUBNET),
        (SUBNET, None, SUBNET),
        (f"{BASE}/{SUBNET}", HOST, SUBNET),
    ],
)
def test_a_subnetwork_is_named_by_name_path_or_url(
    value: str, network: str | None, path: str
) -> None:
    assert subnetwork_path(value, "us-central1", network, "own-project") == path


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("projects/my-host/regions/us-east1/subnetworks/a", "wanted one in region us-central1"),
        ("regions/us-central1/subnetworks/a", "wanted a name or projects/"),
        ("projects/my-host/global/networks/hpc", "wanted a name or projects/"),
    ],
)
def test_a_subnetwork_that_cannot_be_is_told(value: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        subnetwork_path(value, "us-central1", None, "own-project")


def test_a_network_is_named_by_name_path_or_url() -> None:
    assert network_path("net", "own-project") == "projects/own-project/global/networks/net"
    assert network_path(f"{BASE}/{HOST}", "own-project") == HOST
    with pytest.raises(SpecError, match="wanted a name or projects/"):
        network_path("global/networks/net", "own-project")


@pytest.mark.parametrize(
    ("fields", "network", "machines", "said"),
    [
        ({}, None, 252, ""),
        ({}, HOST, 0, ""),
        ({"purpose": None}, HOST, 0, ""),
        ({}, "projects/my-host/global/networks/other", 0, "correct burst_network"),
        ({}, None, 253, "found 252 in 10.0.0.0/24"),
        ({"purpose": "REGIONAL_MANAGED_PROXY"}, None, 0, "purpose REGIONAL_MANAGED_PROXY"),
    ],
)
def test_a_subnetwork_must_lie_in_the_network_and_hold_the_machines(
    fields: dict[str, Any], network: str | None, machines: int, said: str
) -> None:
    found = {key: value for key, value in {**FOUND, **fields}.items() if value}
    if not said:
        check_subnetwork(SUBNET, found, network, machines)
        return
    with pytest.raises(GceError, match=said):
        check_subnetwork(SUBNET, found, network, machines)


def router(network: str = HOST, **nat: Any) -> dict[str, Any]:
    given = {"sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES", **nat}
    return {"network": f"{BASE}/{network}", "nats": [given]}


LISTED = {"sourceSubnetworkIpRangesToNat": "LIST_OF_SUBNETWORKS"}


@pytest.mark.parametrize(
    ("fields", "routers", "reaches"),
    [
        ({"privateIpGoogleAccess": True}, [], True),
        ({}, [router()], True),
        ({}, [router(**LISTED, subnetworks=[{"name": f"{BASE}/{SUBNET}"}])], True),
        ({}, [router(**LISTED, subnetworks=[{"name": f"{BASE}/{SUBNET}-b"}])], False),
        ({}, [router("projects/my-host/global/networks/other")], False),
        ({}, [{"network": f"{BASE}/{HOST}"}], False),
        ({"privateIpGoogleAccess": False}, [], False),
    ],
)
def test_machines_reach_others_by_private_access_or_a_nat(
    fields: dict[str, Any], routers: list[dict[str, Any]], reaches: bool
) -> None:
    said = egress_warning(SUBNET, {**FOUND, **fields}, routers)
    assert (said == "") is reaches


def rule(**fields: Any) -> dict[str, Any]:
    return {
        "direction": "INGRESS",
        "priority": 1000,
        "sourceRanges": [IAP],
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
        **fields,
    }


def denial(**fields: Any) -> dict[str, Any]:
    return rule(allowed=[], denied=[{"IPProtocol": "all"}], **fields)


def policy(**fields: Any) -> dict[str, Any]:
    match = {"srcIpRanges": [IAP], "layer4Configs": [{"ipProtocol": "tcp", "ports": ["22"]}]}
    return {"rules": [{"action": "allow", "direction": "INGRESS", "match": match, **fields}]}


@pytest.mark.parametrize(
    ("rules", "policies", "reached"),
    [
        ([rule()], [], True),
        ([rule(sourceRanges=["0.0.0.0/0"], allowed=[{"IPProtocol": "all"}])], [], True),
        ([rule(allowed=[{"IPProtocol": "tcp", "ports": ["20-30"]}])], [], True),
        ([rule(targetTags=["hpc"])], [], True),
        ([rule(), denial(priority=2000)], [], True),
        ([], [policy()], True),
        ([], [], False),
        ([rule(disabled=True)], [], False),
        ([rule(direction="EGRESS")], [], False),
        ([rule(targetTags=["web"])], [], False),
        ([rule(targetServiceAccounts=["a@b"])], [], False),
        ([rule(sourceRanges=["10.0.0.0/8", "fd00::/8"])], [], False),
        ([rule(sourceRanges=["35.235.241.0/24"])], [], False),
        ([rule(allowed=[{"IPProtocol": "tcp", "ports": ["80", "443"]}])], [], False),
        ([rule(allowed=[{"IPProtocol": "udp"}])], [], False),
        ([rule(), denial()], [], False),
        ([rule(), denial(priority=10, sourceRanges=["35.235.241.0/24"])], [], False),
        ([], [policy(action="deny")], False),
        ([], [policy(targetServiceAccounts=["a@b"])], False),
    ],
)
def test_some_rule_must_let_ssh_in_from_iap(
    rules: list[dict[str, Any]], policies: list[dict[str, Any]], reached: bool
) -> None:
    effective = {"firewalls": rules, "firewallPolicys": policies}
    if reached:
        check_ssh(HOST, effective, ["hpc"])
        return
    with pytest.raises(GceError, match=r"wanted a firewall rule that lets tcp:22 in from 35\.235"):
        check_ssh(HOST, effective, ["hpc"])


def test_where_ssh_comes_from_elsewhere_that_range_must_be_let_in() -> None:
    office = rule(sourceRanges=["203.0.113.0/24"])
    check_ssh(HOST, {"firewalls": [office]}, [], "203.0.113.7/32")
    for rules in ([rule()], [office, denial(sourceRanges=["203.0.113.7/32"])]):
        with pytest.raises(GceError, match=r"lets tcp:22 in from 203\.0\.113\.7/32"):
            check_ssh(HOST, {"firewalls": rules}, [], "203.0.113.7/32")
