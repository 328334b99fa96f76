# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request bodies of a burst's network and machines, for contract tests."""

from __future__ import annotations

from typing import Any

REGION, ZONE = "regions/us-central1", "zones/us-central1-a"
NAT = {
    "name": "t-nat",
    "natIpAllocateOption": "AUTO_ONLY",
    "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
}
FIREWALL = {
    "name": "t-ssh",
    "network": "global/networks/t-net",
    "direction": "INGRESS",
    "sourceRanges": ["35.235.240.0/20"],
    "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
}
FOUNDATION: list[tuple[str, dict[str, Any]]] = [
    ("global/networks", {"name": "t-net", "autoCreateSubnetworks": False, "description": "test"}),
    (
        f"{REGION}/subnetworks",
        {"name": "t-subnet", "network": "global/networks/t-net", "ipCidrRange": "10.10.0.0/24"},
    ),
    (f"{REGION}/routers", {"name": "t-router", "network": "global/networks/t-net", "nats": [NAT]}),
    ("global/firewalls", FIREWALL),
    (f"{REGION}/addresses", {"name": "t-address"}),
]
PARTS = (
    f"{REGION}/addresses/t-address",
    "global/firewalls/t-ssh",
    f"{REGION}/routers/t-router",
    f"{REGION}/subnetworks/t-subnet",
    "global/networks/t-net",
)
"""What FOUNDATION makes, in an order in which it can be deleted."""


def properties(**changes: Any) -> dict[str, Any]:
    """Return the description of a machine, as bulkInsert takes it."""
    image = "projects/sandbox-project/global/images/family/flux-fw-bursted-x86-64"
    return {
        "machineType": "n2-standard-2",
        "labels": {"flux-burst": "t"},
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {"sourceImage": image, "diskSizeGb": "20"},
            }
        ],
        "networkInterfaces": [{"subnetwork": f"{REGION}/subnetworks/t-subnet"}],
        "metadata": {
            "items": [
                {"key": "enable-guest-attributes", "value": "TRUE"},
                {"key": "ssh-keys", "value": "burst:ssh-ed25519 AAAA burst"},
            ]
        },
        "scheduling": {
            "maxRunDuration": {"seconds": "3600"},
            "instanceTerminationAction": "DELETE",
        },
        **changes,
    }


def bulk(*names: str, **changes: Any) -> dict[str, Any]:
    """Return a bulkInsert request for machines by name."""
    return {
        "perInstanceProperties": {name: {} for name in names},
        "instanceProperties": properties(**changes),
    }


def single(name: str, **changes: Any) -> dict[str, Any]:
    """Return an insert request for one machine."""
    kind = f"{ZONE}/machineTypes/n2-standard-2"
    return {"name": name, **properties(machineType=kind, **changes)}
