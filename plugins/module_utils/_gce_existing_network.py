# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A network that the site has already, and whether machines of a burst can live in it. Nothing here asks anybody."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, SpecError
from ansible_collections.flux.burst.plugins.module_utils._gce_network import (
    IAP_RANGE,
    check_range,
    partial,
)

SSH_PORT = 22
Rule = Mapping[str, Any]


def network_path(value: str, project: str) -> str:
    """Return the path of a network that is given by name, path or URL. Raises SpecError."""
    path = partial(value)
    if "/" not in path:
        return f"projects/{project}/global/networks/{path}"
    if not re.fullmatch(r"projects/[^/]+/global/networks/[^/]+", path):
        raise SpecError(
            f"network: wanted a name or projects/PROJECT/global/networks/NAME, found {value!r}."
        )
    return path


def subnetwork_path(value: str, region: str, network: str | None, project: str) -> str:
    """Return the path of a subnetwork; a bare name lies in the network's project. Raises SpecError."""
    path = partial(value)
    if "/" not in path:
        owner = network_path(network, project).split("/")[1] if network else project
        return f"projects/{owner}/regions/{region}/subnetworks/{path}"
    found = re.fullmatch(r"projects/[^/]+/regions/([^/]+)/subnetworks/[^/]+", path)
    if not found:
        raise SpecError(
            "subnetwork: wanted a name or projects/PROJECT/regions/REGION/subnetworks/NAME, "
            f"found {value!r}."
        )
    if found[1] != region:
        raise SpecError(
            f"subnetwork: wanted one in region {region}, found {path}: choose burst_zones in {found[1]}, "
            "or another burst_subnetwork."
        )
    return path


def check_subnetwork(
    path: str, found: Mapping[str, Any], network: str | None, machines: int
) -> None:
    """Raise GceError unless a subnetwork takes a burst's machines; network is the path that was asked for."""
    lies_in = partial(found.get("network", ""))
    if not lies_in:
        raise GceError(
            f"{path}: wanted the network that it lies in, found none: see that subnetwork."
        )
    if network and lies_in != network:
        raise GceError(
            f"{path}: wanted it in network {network}, found it in {lies_in}: correct burst_network, or leave it out."
        )
    purpose = found.get("purpose", "PRIVATE")
    if purpose != "PRIVATE":
        raise GceError(
            f"{path}: wanted a subnetwork for machines, found one with purpose {purpose}: choose another "
            "burst_subnetwork."
        )
    check_range(found["ipCidrRange"], machines, path)


def egress_warning(
    path: str, found: Mapping[str, Any], routers: Sequence[Mapping[str, Any]]
) -> str:
    """Return "" where machines without a public address reach Google's APIs or the internet, else what they lack."""
    if found.get("privateIpGoogleAccess") or any(
        _covers(nat, path)
        for router in routers
        if partial(router.get("network", "")) == partial(found["network"])
        for nat in router.get("nats", [])
    ):
        return ""
    return (
        f"{path}: wanted private Google access or a NAT, found neither: its machines reach only what routes of "
        "the network lead to; turn one of them on if the image or the lead needs more."
    )


def _covers(nat: Mapping[str, Any], path: str) -> bool:
    if nat.get("sourceSubnetworkIpRangesToNat") != "LIST_OF_SUBNETWORKS":
        return True
    return any(partial(entry.get("name", "")) == path for entry in nat.get("subnetworks", []))


def check_ssh(
    path: str, effective: Mapping[str, Any], tags: Sequence[str], source: str = IAP_RANGE
) -> None:
    """Raise GceError unless SSH from a range, by default the Identity-Aware Proxy's, reaches machines with these tags.

    effective is the answer of networks.getEffectiveFirewalls. Of the network's own rules, the one with the least
    priority that fits decides. A policy's rule that allows it is enough; what a policy denies, the tunnel finds.
    """
    hits = []
    for rule in effective.get("firewalls", []):
        if not _concerns(rule, tags):
            continue
        ranges, denied = rule.get("sourceRanges", []), rule.get("denied", [])
        if _ssh_among(rule.get("allowed", []), "IPProtocol") and _holds(ranges, source):
            hits.append((rule.get("priority", 1000), True))
        if _ssh_among(denied, "IPProtocol") and _touches(ranges, source):
            hits.append((rule.get("priority", 1000), False))
    # Of two rules with one priority the one that denies wins.
    if min(hits, default=(0, False))[1]:
        return
    policies = effective.get("firewallPolicys", [])
    if any(_allows(rule, source) for policy in policies for rule in policy.get("rules", [])):
        return
    raise GceError(
        f"{path}: wanted a firewall rule that lets tcp:22 in from {source}, found {len(hits) or 'no'} rule(s) that "
        "decide it and none that allows: ask the network's owner for one (gcloud compute firewall-rules create ... "
        f"--allow tcp:22 --source-ranges {source})."
    )


def _concerns(rule: Rule, tags: Sequence[str]) -> bool:
    if rule.get("direction") != "INGRESS" or rule.get("disabled"):
        return False
    if rule.get("targetServiceAccounts"):
        return False
    return not rule.get("targetTags") or bool(set(tags) & set(rule["targetTags"]))


def _allows(rule: Rule, source: str) -> bool:
    match = rule.get("match", {})
    targeted = rule.get("targetSecureTags") or rule.get("targetServiceAccounts")
    return (
        rule.get("action") == "allow"
        and rule.get("direction") == "INGRESS"
        and not rule.get("disabled")
        and not targeted
        and _ssh_among(match.get("layer4Configs", []), "ipProtocol")
        and _holds(match.get("srcIpRanges", []), source)
    )


def _ssh_among(entries: Sequence[Rule], protocol: str) -> bool:
    return any(
        str(entry.get(protocol, "")).lower() in ("all", "tcp", "6")
        and _port_among(entry.get("ports", []))
        for entry in entries
    )


def _port_among(ports: Sequence[str]) -> bool:
    bounds = [(low, high or low) for low, _unused, high in (port.partition("-") for port in ports)]
    return not ports or any(int(low) <= SSH_PORT <= int(high) for low, high in bounds)


def _networks(ranges: Sequence[str]) -> list[ipaddress.IPv4Network]:
    return [ipaddress.IPv4Network(text) for text in ranges if ":" not in text]


def _holds(ranges: Sequence[str], source: str) -> bool:
    return any(ipaddress.IPv4Network(source).subnet_of(network) for network in _networks(ranges))


def _touches(ranges: Sequence[str], source: str) -> bool:
    return any(ipaddress.IPv4Network(source).overlaps(network) for network in _networks(ranges))
