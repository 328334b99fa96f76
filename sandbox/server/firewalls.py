# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firewall rules, and what they let in."""

from __future__ import annotations

import ipaddress

from sandbox.server import changes
from sandbox.server.api import Call, serve
from sandbox.server.errors import ApiError, invalid, required
from sandbox.server.nat import in_ranges
from sandbox.server.state import Cloud, Resource

CHANGEABLE = (
    "allowed",
    "denied",
    "description",
    "disabled",
    "logConfig",
    "priority",
    "sourceRanges",
    "destinationRanges",
    "sourceTags",
    "targetTags",
)


def _ranges(field: str, ranges: list[str]) -> None:
    for index, text in enumerate(ranges):
        try:
            ipaddress.ip_network(text)
        except ValueError:
            why = "Must be a valid CIDR address range."
            raise invalid(f"resource.{field}[{index}]", text, why) from None


def _rules(field: str, rules: list[Resource]) -> list[Resource]:
    checked = []
    for index, rule in enumerate(rules):
        where = f"resource.{field}[{index}]"
        if "IPProtocol" not in rule:
            raise required(f"{where}.IPProtocol")
        for text in rule.get("ports", ()):
            low, _unused, high = text.partition("-")
            ends = [end for end in (low, high or low) if end.isdigit() and int(end) <= 65535]
            if len(ends) != 2 or int(ends[0]) > int(ends[1]):
                why = "Must be a port or a range of ports."
                raise invalid(f"{where}.ports", text, why)
        checked.append({**rule, "IPProtocol": str(rule["IPProtocol"]).lower()})
    return checked


def _checked(rule: Resource) -> Resource:
    """Return a rule as Google keeps it. Raises ApiError."""
    if bool(rule.get("allowed")) == bool(rule.get("denied")):
        raise ApiError(
            400, "invalid", "Exactly one of resource.allowed and resource.denied is needed."
        )
    new = dict(rule)
    for field in ("allowed", "denied"):
        if rule.get(field):
            new[field] = _rules(field, rule[field])
    for field in ("sourceRanges", "destinationRanges"):
        _ranges(field, rule.get(field, []))
    if not 0 <= rule["priority"] <= 65535:
        raise invalid("resource.priority", rule["priority"], "Must be from 0 to 65535.")
    sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
    if rule["direction"] == "INGRESS" and not any(rule.get(name) for name in sources):
        new["sourceRanges"] = ["0.0.0.0/0"]
    return new


def _fields(call: Call, network: str) -> Resource:
    names = (*CHANGEABLE, "direction")
    return {
        "network": network,
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "logConfig": {"enable": False},
        **{name: call.body[name] for name in names if name in call.body},
    }


@serve("firewalls.insert", "POST", "global/firewalls")
async def insert_firewall(call: Call) -> Resource:
    """Make a rule."""
    key, value = call.vacant(), call.body.get("network", "global/networks/default")
    network = call.cloud.referenced("resource.network", value, call.project, "networks")
    fields = _checked(_fields(call, network.link))
    return changes.insert(call, key, call.cloud.new(key, "firewall", fields))


@serve("firewalls.patch", "PATCH", "global/firewalls/{firewall}")
async def patch_firewall(call: Call) -> Resource:
    """Change the given fields of a rule."""
    key, rule = call.settled()
    given = {name: call.body[name] for name in CHANGEABLE if name in call.body}
    return changes.change(call, "patch", key, _checked(changes.merged(rule, given)))


@serve("firewalls.update", "PUT", "global/firewalls/{firewall}")
async def update_firewall(call: Call) -> Resource:
    """Replace a rule."""
    key, rule = call.settled()
    kept = {name: value for name, value in rule.items() if name not in CHANGEABLE}
    return changes.change(call, "update", key, _checked({**kept, **_fields(call, rule["network"])}))


@serve("firewalls.delete", "DELETE", "global/firewalls/{firewall}")
async def delete_firewall(call: Call) -> Resource:
    """Delete a rule."""
    key, _unused = call.settled()
    return changes.delete(call, key)


def _port_in(ports: list[str], port: int) -> bool:
    bounds = [(part.partition("-")[0], part.partition("-")[2]) for part in ports]
    return not ports or any(int(low) <= port <= int(high or low) for low, high in bounds)


def lets_in(cloud: Cloud, instance: Resource, source: str, port: int) -> bool:
    """Return whether tcp from an address to an instance's port is allowed; the default is no."""
    tags = set(instance.get("tags", {}).get("items", ()))
    network = instance["networkInterfaces"][0]["network"]
    hits = []
    for _unused, rule in cloud.all("firewalls"):
        if rule["network"] != network or rule["direction"] != "INGRESS" or rule["disabled"]:
            continue
        if rule.get("targetTags") and not tags & set(rule["targetTags"]):
            continue
        if not in_ranges(source, rule.get("sourceRanges", [])):
            continue
        for entry in (*rule.get("allowed", ()), *rule.get("denied", ())):
            if entry["IPProtocol"] in ("all", "tcp", "6") and _port_in(
                entry.get("ports", []), port
            ):
                # Of two rules with one priority the one that denies wins.
                hits.append((rule["priority"], "allowed" in rule))
    return min(hits, default=(0, False))[1]
