# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks, subnetworks and reserved addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from sandbox.server import catalog, changes
from sandbox.server.api import Call, serve
from sandbox.server.errors import ApiError, in_use, invalid, required
from sandbox.server.nat import refresh
from sandbox.server.state import Cloud, Key, Resource, check_labels, fingerprint

FIRST_EXTERNAL = ipaddress.IPv4Address("203.0.113.21")


def users_of(cloud: Cloud, network: Key) -> Iterator[Key]:
    """Yield what keeps a network from being deleted."""
    for collection in ("subnetworks", "firewalls", "routers"):
        for key, resource in cloud.table(network.project, collection).items():
            if resource["network"] == network.link:
                yield key


def show_subnetworks(cloud: Cloud, link: str) -> None:
    """Write a network's list of subnetworks anew."""
    for key, network in cloud.all("networks"):
        if key.link == link:
            table = cloud.table(key.project, "subnetworks")
            found = [it["selfLink"] for it in table.values() if it["network"] == link]
            network.pop("subnetworks", None)
            network.update({"subnetworks": sorted(found)} if found else {})


@serve("networks.insert", "POST", "global/networks")
async def insert_network(call: Call) -> Resource:
    """Make a network in custom subnet mode."""
    key, body = call.vacant(), call.body
    if body.get("autoCreateSubnetworks") is not False:
        why = "The sandbox has custom subnet mode only: set it to false."
        raise invalid("resource.autoCreateSubnetworks", body.get("autoCreateSubnetworks", ""), why)
    network = call.cloud.new(
        key,
        "network",
        {
            "autoCreateSubnetworks": False,
            "routingConfig": body.get("routingConfig", {"routingMode": "REGIONAL"}),
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
            **{name: body[name] for name in ("description", "mtu") if name in body},
        },
    )
    network["selfLinkWithId"] = f"{key.link.rsplit('/', 1)[0]}/{network['id']}"
    return changes.insert(call, key, network)


@serve("networks.delete", "DELETE", "global/networks/{network}")
async def delete_network(call: Call) -> Resource:
    """Delete a network that nothing uses."""
    key, _unused = call.settled()
    for user in users_of(call.cloud, key):
        raise in_use("network", key.path, user.path)
    return changes.delete(call, key)


@serve(
    "networks.getEffectiveFirewalls",
    "GET",
    "global/networks/{network}/getEffectiveFirewalls",
)
async def effective_firewalls(call: Call) -> Resource:
    """Return the rules of a network. The sandbox has no firewall policies."""
    key, _unused = call.existing()
    rules = call.cloud.table(key.project, "firewalls").values()
    found = [rule for rule in rules if rule["network"] == key.link]
    return {"firewalls": found} if found else {}


def _cidr(value: object) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(value)
        if not 4 <= network.prefixlen <= 29:
            raise ValueError
    except ValueError:
        why = "Must be a valid CIDR address range with a prefix from /4 to /29."
        raise invalid("resource.ipCidrRange", value, why) from None
    return network


@serve("subnetworks.insert", "POST", "regions/{region}/subnetworks")
async def insert_subnetwork(call: Call) -> Resource:
    """Make a subnetwork."""
    key, body = call.vacant(), call.body
    for name in ("network", "ipCidrRange"):
        if name not in body:
            raise required(f"resource.{name}")
    network = call.cloud.referenced("resource.network", body["network"], call.project, "networks")
    cidr = _cidr(body["ipCidrRange"])
    for other, resource in call.cloud.table(call.project, "subnetworks").items():
        taken = ipaddress.IPv4Network(resource["ipCidrRange"])
        if resource["network"] == network.link and taken.overlaps(cidr):
            where = f"subnetwork '{other.name}' in region '{other.scope.split('/')[1]}'"
            raise ApiError(
                400, "invalid", f"Invalid IPCidrRange: {cidr} conflicts with existing {where}."
            )
    fields = {
        "network": network.link,
        "ipCidrRange": str(cidr),
        "gatewayAddress": str(cidr[1]),
        "region": f"{catalog.BASE}/projects/{call.project}/{call.scope}",
        "privateIpGoogleAccess": body.get("privateIpGoogleAccess", False),
        "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
        "purpose": body.get("purpose", "PRIVATE"),
        "stackType": "IPV4_ONLY",
        **({"description": body["description"]} if "description" in body else {}),
    }
    subnetwork = call.cloud.new(key, "subnetwork", fields)
    subnetwork["fingerprint"] = fingerprint(subnetwork)

    async def then() -> None:
        show_subnetworks(call.cloud, network.link)
        await refresh(call.cloud)

    return changes.insert(call, key, subnetwork, then)


@serve(
    "subnetworks.setPrivateIpGoogleAccess",
    "POST",
    "regions/{region}/subnetworks/{subnetwork}/setPrivateIpGoogleAccess",
)
async def set_private_access(call: Call) -> Resource:
    """Let a subnetwork's machines reach Google's APIs without an external address, or not."""
    key, subnetwork = call.settled()
    new = {**subnetwork, "privateIpGoogleAccess": bool(call.body.get("privateIpGoogleAccess"))}
    return changes.change(call, "setPrivateIpGoogleAccess", key, new)


@serve("subnetworks.delete", "DELETE", "regions/{region}/subnetworks/{subnetwork}")
async def delete_subnetwork(call: Call) -> Resource:
    """Delete a subnetwork without instances."""
    key, subnetwork = call.settled()
    for user, instance in call.cloud.all("instances"):
        if any(nic["subnetwork"] == key.link for nic in instance["networkInterfaces"]):
            raise in_use("subnetwork", key.path, user.path)

    async def then() -> None:
        show_subnetworks(call.cloud, subnetwork["network"])
        await refresh(call.cloud)

    return changes.delete(call, key, then)


def _free_address(call: Call, wanted: object) -> str:
    taken = {it["address"] for _unused, it in call.cloud.all("addresses")}
    if wanted:
        if wanted in taken:
            raise invalid("resource.address", wanted, "Specified IP address is in-use.")
        return str(wanted)
    return next(str(it) for n in range(200) if str(it := FIRST_EXTERNAL + n) not in taken)


@serve("addresses.insert", "POST", "regions/{region}/addresses")
async def insert_address(call: Call) -> Resource:
    """Reserve an external address."""
    key, body = call.vacant(), call.body
    if body.get("addressType", "EXTERNAL") != "EXTERNAL":
        raise invalid("resource.addressType", body["addressType"], "The sandbox has EXTERNAL only.")
    labels = check_labels(body.get("labels"))
    fields = {
        "address": _free_address(call, body.get("address")),
        "addressType": "EXTERNAL",
        "networkTier": body.get("networkTier", "PREMIUM"),
        "region": f"{catalog.BASE}/projects/{call.project}/{call.scope}",
        "status": "RESERVED",
        "labelFingerprint": fingerprint(labels),
        **({"labels": labels} if labels else {}),
        **({"description": body["description"]} if "description" in body else {}),
    }
    return changes.insert(call, key, call.cloud.new(key, "address", fields))


@serve("addresses.delete", "DELETE", "regions/{region}/addresses/{address}")
async def delete_address(call: Call) -> Resource:
    """Release an address."""
    key, _unused = call.settled()
    for user, router in call.cloud.table(call.project, "routers").items():
        if any(key.link in nat.get("natIps", ()) for nat in router.get("nats", ())):
            raise in_use("address", key.path, user.path)
    return changes.delete(call, key)
