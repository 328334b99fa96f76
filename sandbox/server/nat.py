# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Routers with Cloud NAT, and what they let out."""

from __future__ import annotations

import ipaddress

from sandbox.server import catalog, changes
from sandbox.server.api import Call, serve
from sandbox.server.errors import invalid, required
from sandbox.server.state import Cloud, Key, Resource, check_name

NAT_ADDRESS = "203.0.113.20"
"""Where machines behind an automatic NAT come from."""

LISTED = "LIST_OF_SUBNETWORKS"
NAT_DEFAULTS: Resource = {
    "autoNetworkTier": "PREMIUM",
    "enableDynamicPortAllocation": False,
    "enableEndpointIndependentMapping": False,
    "endpointTypes": ["ENDPOINT_TYPE_VM"],
    "type": "PUBLIC",
}


def segment(subnetwork: Key) -> str:
    """Return the L2 segment of a subnetwork."""
    return f"{subnetwork.project}/{subnetwork.name}"


def wanted(cloud: Cloud) -> dict[str, str]:
    """Return what is let out: segment -> source address."""
    found = {}
    for router_key, router in cloud.all("routers"):
        for key, subnetwork in cloud.table(router_key.project, "subnetworks").items():
            same = key.scope == router_key.scope and subnetwork["network"] == router["network"]
            for nat in router.get("nats", ()) if same else ():
                if _covers(nat, subnetwork):
                    found[segment(key)] = _source(cloud, nat)
    return found


def _covers(nat: Resource, subnetwork: Resource) -> bool:
    if nat["sourceSubnetworkIpRangesToNat"] != LISTED:
        return True
    return any(entry["name"] == subnetwork["selfLink"] for entry in nat.get("subnetworks", ()))


def _source(cloud: Cloud, nat: Resource) -> str:
    for key, address in cloud.all("addresses"):
        if key.link in nat.get("natIps", ()):
            return str(address["address"])
    return NAT_ADDRESS


async def refresh(cloud: Cloud) -> None:
    """Make the machines' network let out what the routers say."""
    async with cloud.nat_lock:
        new = wanted(cloud)
        for name in sorted(cloud.nat.keys() | new.keys()):
            if cloud.nat.get(name) != new.get(name):
                await cloud.thread(cloud.backend.set_nat, name, new.get(name))
        cloud.nat = new


def _link(call: Call, field: str, value: object, collection: str) -> str:
    return call.cloud.referenced(field, value, call.project, collection).link


def _nats(call: Call, value: list[Resource]) -> list[Resource]:
    return [_nat(call, f"resource.nats[{index}]", nat) for index, nat in enumerate(value)]


def _nat(call: Call, where: str, nat: Resource) -> Resource:
    """Return a NAT as Google keeps it, its references as links. Raises ApiError."""
    check_name(nat.get("name"), f"{where}.name")
    for name in ("natIpAllocateOption", "sourceSubnetworkIpRangesToNat"):
        if name not in nat:
            raise required(f"{where}.{name}")
    if (nat["natIpAllocateOption"] == "MANUAL_ONLY") != bool(nat.get("natIps")):
        why = "NAT IPs are given with natIpAllocateOption MANUAL_ONLY, and only then."
        raise invalid(f"{where}.natIps", nat.get("natIps", ""), why)
    new: Resource = {**NAT_DEFAULTS, **nat}
    if nat.get("natIps"):
        new["natIps"] = [_link(call, f"{where}.natIps", it, "addresses") for it in nat["natIps"]]
    if nat["sourceSubnetworkIpRangesToNat"] == LISTED:
        field, entries = f"{where}.subnetworks.name", list(nat.get("subnetworks", ()))
        names = [_link(call, field, entry.get("name"), "subnetworks") for entry in entries]
        new["subnetworks"] = [
            dict(entry, name=name) for entry, name in zip(entries, names, strict=True)
        ]
    return new


@serve("routers.insert", "POST", "regions/{region}/routers")
async def insert_router(call: Call) -> Resource:
    """Make a router."""
    key, body = call.vacant(), call.body
    if "network" not in body:
        raise required("resource.network")
    fields: Resource = {
        "network": _link(call, "resource.network", body["network"], "networks"),
        "region": f"{catalog.BASE}/projects/{call.project}/{call.scope}",
        "encryptedInterconnectRouter": False,
        **{name: body[name] for name in ("description", "bgp") if name in body},
    }
    if body.get("nats"):
        fields["nats"] = _nats(call, body["nats"])
    router = call.cloud.new(key, "router", fields)
    return changes.insert(call, key, router, lambda: refresh(call.cloud))


@serve("routers.patch", "PATCH", "regions/{region}/routers/{router}")
async def patch_router(call: Call) -> Resource:
    """Change a router; nats replaces the whole list."""
    key, router = call.settled()
    names = ("description", "bgp", "nats")
    new = changes.merged(router, {name: call.body[name] for name in names if name in call.body})
    if "nats" in new:
        new["nats"] = _nats(call, new["nats"])
        if not new["nats"]:
            del new["nats"]
    return changes.change(call, "patch", key, new, lambda: refresh(call.cloud))


@serve("routers.delete", "DELETE", "regions/{region}/routers/{router}")
async def delete_router(call: Call) -> Resource:
    """Delete a router with its NATs."""
    key, _unused = call.settled()
    return changes.delete(call, key, lambda: refresh(call.cloud))


def in_ranges(address: str, ranges: list[str]) -> bool:
    """Return whether an IPv4 address is in one of the CIDR ranges."""
    found = ipaddress.IPv4Address(address)
    return any(":" not in it and found in ipaddress.IPv4Network(it) for it in ranges)
