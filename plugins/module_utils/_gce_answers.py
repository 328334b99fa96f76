# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the fields look like that we read of Compute Engine's and OS Login's answers, by Google's discovery documents.

A field of one name has one type wherever it occurs, so that an answer is looked through without knowing its kind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._answers import (
    LONGEST,
    NUMBER,
    Each,
    Readable,
    misfit,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import printable

OBJECTS = [dict]
TEXTS = [str]


def _long(text: str) -> None:
    if abs(int(text)) >= 1 << 64:
        raise ValueError(text)


def _name(text: str) -> None:
    if not text:
        raise ValueError(text)


def _time(text: str) -> None:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError(text)


def _ports(text: str) -> None:
    for part in text.split("-", 1):
        int(part)


def _link(text: str) -> None:
    text.index("projects/")


LONG = (Readable(str, _long, "a whole number"), int)
"""What JSON has as a text, as JavaScript's numbers are too short for it."""
NAME = Readable(str, _name, "a name")
TIME = Readable(str, _time, "a time")
RANGES = [Readable(str, ipaddress.ip_network, "a range of addresses")]
LOOSE = (None, dict, OBJECTS)
"""Shapes that say nothing of the fields within, which are looked at then."""
FIELDS: Mapping[str, Any] = {
    "accelerators": [{"guestAcceleratorCount": int, "guestAcceleratorType?": str}],
    "accessConfigs": OBJECTS,
    "address": str,
    "allowed": OBJECTS,
    "architecture": str,
    "archiveSizeBytes": LONG,
    "contents": str,
    "creationTimestamp": TIME,
    "denied": OBJECTS,
    "deprecated": {"state?": str},
    "description": str,
    "direction": str,
    "diskSizeGb": LONG,
    "disks": OBJECTS,
    "email": str,
    "family": str,
    "fingerprint": str,
    "firewallPolicys": OBJECTS,
    "firewalls": OBJECTS,
    "guestAccelerators": [{"acceleratorCount": int, "acceleratorType": str}],
    "guestCpus": int,
    "id": LONG,
    "insertTime": TIME,
    "ipCidrRange": Readable(str, ipaddress.IPv4Network, "a range of IPv4 addresses"),
    "labelFingerprint": str,
    "labels": Each(str),
    # Its metadata is another than an instance's.
    "logConfig": Each(object),
    "lastStartTimestamp": TIME,
    "lastStopTimestamp": TIME,
    "layer4Configs": OBJECTS,
    "machineType": str,
    "match": dict,
    "maxRunDuration": {"seconds?": LONG},
    "memoryMb": int,
    "metadata": {"fingerprint": str, "items?": [{"key": str, "value?": str}]},
    "minCpuPlatform": str,
    "name": NAME,
    "natIP": str,
    "nats": [
        {
            "natIps?": TEXTS,
            "sourceSubnetworkIpRangesToNat?": str,
            "subnetworks?": [{"name?": str}],
        }
    ],
    "network": str,
    "networkIP": str,
    "networkInterfaces": OBJECTS,
    "nextPageToken": str,
    "ports": [Readable(str, _ports, "a port or a range of ports")],
    "posixAccounts": [{"username": str}],
    "priority": int,
    "purpose": str,
    "queryValue": {"items?": [{"key": str, "value": str}]},
    "quotas": [{"metric": str, "limit": NUMBER, "usage": NUMBER}],
    "region": str,
    "rules": OBJECTS,
    "scheduling": dict,
    "selfLink": Readable(str, _link, "a link to a resource"),
    "serviceAccounts": OBJECTS,
    "sourceDisk": str,
    "sourceRanges": RANGES,
    "srcIpRanges": RANGES,
    "sshPublicKeys": Each({"key": str, "fingerprint": str, "expirationTimeUsec?": LONG}),
    "status": str,
    "subnetwork": str,
    "tags": {"items?": TEXTS},
    "targetLink": str,
    "targetTags": TEXTS,
    "users": TEXTS,
    "zone": str,
}
ALWAYS = {
    "creationTimestamp",
    "guestCpus",
    "id",
    "insertTime",
    "ipCidrRange",
    "labelFingerprint",
    "machineType",
    "memoryMb",
    "metadata",
    "name",
    "networkInterfaces",
    "selfLink",
    "status",
    "targetLink",
    "zone",
}
"""Fields that a resource that has them always has; Google leaves out others that are empty or false."""


def asked(fields: str) -> list[str]:
    """Return which fields a partial response must have, of those that it was asked for."""
    depth, names = 0, [""]
    for each in fields:
        depth += (each == "(") - (each == ")")
        if depth == 0 and each == ",":
            names.append("")
        elif depth == 0 and each != ")":
            names[-1] += each
    return [name for name in names if name in ALWAYS]


def wrong(answer: Any, where: str = "the answer") -> str:
    """Return what in an answer is not as Google gives it, "" where all is."""
    if isinstance(answer, list):
        parts = ((each, f"{where}[{place}]") for place, each in enumerate(answer))
        return next(filter(None, (wrong(each, name) for each, name in parts)), "")
    if not isinstance(answer, dict):
        return ""
    for key, value in answer.items():
        name = f"{where}.{printable(key, LONGEST)}"
        shape = FIELDS.get(key)
        said = misfit(value, shape, name) if shape else ""
        if not said and shape in LOOSE:
            said = wrong(value, name)
        if said:
            return said
    return ""


def lacking(resource: Mapping[str, Any], needed: list[str], where: str) -> str:
    """Return which field a resource should have and has not, "" where it has all."""
    return next((f"{where} has no {name}" for name in needed if name not in resource), "")
