# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a burst: bodies as in Google's REST reference, and what has to change. Nothing here asks anybody."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_session import LABEL, last_part

IAP_RANGE = "35.235.240.0/20"
RESERVED = 4
"""Compute Engine keeps the first two and the last two addresses of a range for itself."""
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
    "address": ("addressType",),
    "subnetwork": ("ipCidrRange", "network"),
    "router": ("network",),
    "firewall": ("network", "direction"),
}

Key = tuple[str, str]
"""A kind and a name."""


@dataclass(frozen=True)
class Foundation:
    """What one or several bursts stand on. So many nat_addresses are reserved; with 0 Google picks and changes them.

    SSH is let in from ssh_ranges.
    """

    project: str
    name: str
    region: str
    subnet_cidr: str
    nat_addresses: int = 0
    ssh_ranges: tuple[str, ...] = (IAP_RANGE,)

    @property
    def network(self) -> str:
        """The path of the network."""
        return f"projects/{self.project}/global/networks/{self.name}-net"

    @property
    def place(self) -> str:
        """The path of the region."""
        return f"projects/{self.project}/regions/{self.region}"

    @property
    def subnetwork(self) -> str:
        """The path of the subnetwork."""
        return f"{self.place}/subnetworks/{self.name}-subnet"


def partial(url: str) -> str:
    """Return a resource's URL as a path from projects/."""
    return url[max(url.find("projects/"), 0) :]


def description(foundation: str) -> str:
    """Return how a resource says whose it is, where Compute Engine takes no labels when it is made."""
    return f"flux-burst={foundation}"


def check_range(cidr: str, machines: int, name: str) -> None:
    """Raise GceError unless a range holds so many machines; name says whose range it is."""
    room = max(ipaddress.IPv4Network(cidr).num_addresses - RESERVED, 0)
    if room < machines:
        raise GceError(
            f"{name}: wanted addresses for {machines} machines, found {room} in {cidr}: take a wider range."
        )


def desired(foundation: Foundation) -> list[dict[Key, dict[str, Any]]]:
    """Return the resources of a foundation in stages; those of one stage need nothing of one another."""
    name, network = foundation.name, foundation.network
    addresses = [f"{name}-nat-{number + 1}" for number in range(foundation.nat_addresses)]
    nat: dict[str, Any] = {
        "name": f"{name}-nat",
        "natIpAllocateOption": "MANUAL_ONLY" if addresses else "AUTO_ONLY",
        "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES",
    }
    if addresses:
        nat["natIps"] = [f"{foundation.place}/addresses/{address}" for address in addresses]
    stages: list[dict[str, dict[str, Any]]] = [
        {
            "network": {"name": f"{name}-net", "autoCreateSubnetworks": False},
            **{f"address {it}": {"name": it, "addressType": "EXTERNAL"} for it in addresses},
        },
        {
            "subnetwork": {
                "name": f"{name}-subnet",
                "network": network,
                "ipCidrRange": foundation.subnet_cidr,
                "privateIpGoogleAccess": True,
            },
            "router": {"name": f"{name}-router", "network": network, "nats": [nat]},
            "firewall iap": firewall(
                f"{name}-allow-iap-ssh",
                network,
                foundation.ssh_ranges,
                {"IPProtocol": "tcp", "ports": ["22"]},
            ),
            "firewall internal": firewall(
                f"{name}-allow-internal", network, [foundation.subnet_cidr], {"IPProtocol": "all"}
            ),
        },
    ]
    return [
        {
            (label.split()[0], body["name"]): {**body, "description": description(name)}
            for label, body in stage.items()
        }
        for stage in stages
    ]


def firewall(
    name: str, network: str, sources: Sequence[str], allowed: dict[str, Any]
) -> dict[str, Any]:
    """Return a rule that lets something in from some ranges."""
    return {
        "name": name,
        "network": network,
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "sourceRanges": list(sources),
        "allowed": [allowed],
    }


def plan_present(
    stages: Sequence[Mapping[Key, Mapping[str, Any]]], actual: Mapping[Key, Mapping[str, Any]]
) -> list[Stage]:
    """Return what has to be created or changed, and at last which NAT addresses are ours and needed no more.

    actual holds the REST resources that exist. Raises GceError for one that is not ours, or that cannot be changed.
    """
    wanted = {key: body for stage in stages for key, body in stage.items()}
    ours = {body["description"] for body in wanted.values()}
    changes: list[Stage] = [
        [change for key, body in stage.items() if (change := _change(key, body, actual.get(key)))]
        for stage in stages
    ]
    surplus = [
        Change(
            kind, name, "delete", {"name": name, "region": last_part(found.get("region", ""))}, {}
        )
        for (kind, name), found in actual.items()
        if kind == "address" and (kind, name) not in wanted and found.get("description") in ours
    ]
    return [*changes, surplus]


def _change(key: Key, body: Mapping[str, Any], found: Mapping[str, Any] | None) -> Change | None:
    kind, name = key
    if found is None:
        return Change(kind, name, "create", {}, body)
    if found.get("description") != body["description"]:
        raise GceError(
            f"{kind} {name}: wanted none or one of this burst (description {body['description']}), found one "
            "that somebody else made: choose another burst_name or burst_foundation, or delete it."
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
        shown = [{key: nat.get(key) for key in wanted} for nat in found.get("nats", [])]
        return [
            {**nat, "natIps": [partial(it) for it in nat["natIps"] or []]}
            if "natIps" in nat
            else nat
            for nat in shown
        ]
    return found.get(field, False if isinstance(body.get(field), bool) else [])


def _plain(field: str, value: Any) -> Any:
    if field == "network":
        return last_part(str(value))
    if field == "nats":
        return [
            {**nat, "natIps": sorted(last_part(it) for it in nat.get("natIps") or [])}
            for nat in value
        ]
    return sorted(value) if field == "sourceRanges" else value


ORDER = (("subnetwork",), ("router", "firewall"), ("address", "network"))
"""What is deleted when. Machines keep only their subnetwork from being deleted: with it first, a foundation goes whole
or, where another burst has just moved in, stays whole."""


def plan_absent(name: str, found: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Return what has to be deleted of a foundation, wherever it is; what is not ours stays.

    found are REST resources with their kind ("network", ...) and region ("" where they have none).
    """
    ours = [it for it in found if it.get("description") == description(name)]
    return [
        [
            Change(
                it["kind"], it["name"], "delete", {key: it[key] for key in ("name", "region")}, {}
            )
            for it in ours
            if it["kind"] in kinds
        ]
        for kinds in ORDER
    ]


def users(network: str, instances: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the names of the machines in a network by burst; network is its path.

    A machine that is stopping by its own time limit is not counted: it leaves without anybody's doing.
    """
    found: dict[str, list[str]] = {}
    for instance in instances:
        inside = any(
            str(nic.get("network", "")).endswith(f"/{network}")
            for nic in instance.get("networkInterfaces", [])
        )
        if inside and instance.get("status") != "STOPPING":
            burst = instance.get("labels", {}).get(LABEL, "")
            found.setdefault(burst, []).append(instance["name"])
    return found
