# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a burst: bodies as in Google's REST reference, and what has to change. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_session import last_part
from ansible_collections.flux.burst.plugins.module_utils._reconcile import Change, Stage

IAP_RANGE = "35.235.240.0/20"
# What widens or narrows a firewall and that ours never have.
_UNSET = ("sourceTags", "targetTags", "sourceServiceAccounts", "targetServiceAccounts")
# What Compute Engine can change in place, and what it cannot.
MUTABLE = {
    "subnetwork": ("privateIpGoogleAccess",),
    "firewall": ("priority", "disabled", "sourceRanges", "allowed", *_UNSET),
    "router": ("nats",),
}
FIXED = {
    "network": ("autoCreateSubnetworks",),
    "subnetwork": ("ipCidrRange", "network"),
    "router": ("network",),
    "firewall": ("network", "direction"),
}

Key = tuple[str, str]
"""A kind and a name."""


def description(burst: str) -> str:
    """Return how a resource without labels says whose it is."""
    return f"flux-burst={burst}"


def desired(project: str, burst: str, subnet_cidr: str) -> list[dict[Key, dict[str, Any]]]:
    """Return the resources of a burst's network in stages; those of one stage need nothing of one another."""
    network = f"projects/{project}/global/networks/{burst}-net"
    nat = {
        "name": f"{burst}-nat",
        "natIpAllocateOption": "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    stages: list[dict[str, dict[str, Any]]] = [
        {"network": {"name": f"{burst}-net", "autoCreateSubnetworks": False}},
        {
            "subnetwork": {
                "name": f"{burst}-subnet",
                "network": network,
                "ipCidrRange": subnet_cidr,
                "privateIpGoogleAccess": True,
            },
            "router": {"name": f"{burst}-router", "network": network, "nats": [nat]},
            "firewall iap": _firewall(
                f"{burst}-allow-iap-ssh", network, IAP_RANGE, {"IPProtocol": "tcp", "ports": ["22"]}
            ),
            "firewall internal": _firewall(
                f"{burst}-allow-internal", network, subnet_cidr, {"IPProtocol": "all"}
            ),
        },
    ]
    return [
        {
            (label.split()[0], body["name"]): {**body, "description": description(burst)}
            for label, body in stage.items()
        }
        for stage in stages
    ]


def _firewall(name: str, network: str, source: str, allowed: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "network": network,
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "sourceRanges": [source],
        "allowed": [allowed],
    }


def plan_present(
    stages: Sequence[Mapping[Key, Mapping[str, Any]]], actual: Mapping[Key, Mapping[str, Any]]
) -> list[Stage]:
    """Return what has to be created or changed.

    actual holds the REST resources that exist. Raises GceError for one that is not ours, or that cannot be changed.
    """
    return [
        [change for key, body in stage.items() if (change := _change(key, body, actual.get(key)))]
        for stage in stages
    ]


def _change(key: Key, body: Mapping[str, Any], found: Mapping[str, Any] | None) -> Change | None:
    kind, name = key
    if found is None:
        return Change(kind, name, "create", {}, body)
    if found.get("description") != body["description"]:
        raise GceError(
            f"{kind} {name}: wanted none or one of this burst (description {body['description']}), found one "
            "that somebody else made: choose another burst_name, or delete it."
        )
    for field in FIXED[kind]:
        if _plain(field, found.get(field)) != _plain(field, body[field]):
            raise GceError(
                f"{kind} {name}: wanted {field} {body[field]}, found {found.get(field)}, which Compute Engine "
                "cannot change in place: run the teardown playbook first."
            )
    fields = MUTABLE.get(kind, ())
    before = {field: _shown(field, found, body) for field in fields}
    after = {field: body.get(field, []) for field in fields}
    differing = [name for name in fields if _plain(name, before[name]) != _plain(name, after[name])]
    if not differing:
        return None
    return Change(
        kind,
        name,
        "update",
        {field: before[field] for field in differing},
        {field: after[field] for field in differing},
    )


def _shown(field: str, found: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
    """Of a NAT, show what we set: Compute Engine fills in the rest. It leaves out what is false or empty."""
    if field == "nats":
        wanted = body["nats"][0]
        return [{key: nat.get(key) for key in wanted} for nat in found.get("nats", [])]
    return found.get(field, False if isinstance(body.get(field), bool) else [])


def _plain(field: str, value: Any) -> Any:
    if field == "network":
        return last_part(str(value))
    return sorted(value) if field == "sourceRanges" else value


def plan_absent(burst: str, actual: Mapping[Key, Mapping[str, Any]]) -> list[Stage]:
    """Return what has to be deleted, in the order that Compute Engine demands; what is not ours stays."""
    ours = {
        key: found
        for key, found in actual.items()
        if found.get("description") == description(burst)
    }
    order = (("router", "firewall"), ("subnetwork",), ("network",))
    return [
        [
            Change(kind, name, "delete", {"name": name, "description": description(burst)}, {})
            for kind, name in ours
            if kind in kinds
        ]
        for kinds in order
    ]
