# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the caller may do: the IAM permissions that each method needs, and those that are granted.

Where they are from:

- Each method's own ones are those of its page in Google's REST reference, as github.com/iann0036/iam-dataset collects
  them (gcp/map.json).
- Those of an instance's properties are in "Create and start a Compute Engine instance" (required roles), but for
  compute.disks.setLabels, which github.com/JamesWoolfenden/pike found by trying, as it did compute.images.setLabels,
  compute.addresses.setLabels, compute.disks.useReadOnly for an image's source, and compute.networks.updatePolicy for a
  new subnetwork.
- compute.networks.updatePolicy for firewalls.patch and .delete is in the reference, for firewalls.insert in the answer
  that others got, and others measured it for routers.patch.
- iam.serviceAccounts.actAs for setMetadata is in "Compute Engine IAM roles and permissions". Others saw that it is the
  operation that finds it missing, with code SERVICE_ACCOUNT_ACCESS_DENIED and HTTP status 400.
- From memory: compute.networks.updatePolicy for firewalls.update, subnetworks.delete, routers.insert and .delete;
  compute.addresses.use for a NAT's addresses; compute.resourcePolicies.use; that nothing more is asked for scheduling,
  accelerators, reservations, a CPU platform or shielded instances.

What lies in a project of Google's, such as debian-cloud, everybody may read and boot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sandbox.server import catalog
from sandbox.server.errors import forbidden, invalid
from sandbox.server.faults import Rule
from sandbox.server.operations import USER
from sandbox.server.state import Cloud, Key, Resource, parse_reference

if TYPE_CHECKING:
    from sandbox.server.api import Call

Need = tuple[str, str]
"""A permission and the path of the resource that it is needed for."""

READS = {"get": "get", "list": "list", "aggregatedList": "list"}
CHANGES = {
    "addresses.delete": ("compute.addresses.delete",),
    "addresses.insert": ("compute.addresses.create",),
    "disks.delete": ("compute.disks.delete",),
    "firewalls.delete": ("compute.firewalls.delete",),
    "firewalls.insert": ("compute.firewalls.create",),
    "firewalls.patch": ("compute.firewalls.get", "compute.firewalls.update"),
    "firewalls.update": ("compute.firewalls.update",),
    "globalOperations.delete": ("compute.globalOperations.delete",),
    "globalOperations.wait": ("compute.globalOperations.get",),
    "images.delete": ("compute.images.delete",),
    "images.deprecate": ("compute.images.deprecate",),
    "images.getFromFamily": ("compute.images.getFromFamily",),
    "images.insert": ("compute.images.create",),
    "images.patch": ("compute.images.get", "compute.images.update"),
    "images.setLabels": ("compute.images.setLabels",),
    "instances.bulkInsert": ("compute.instances.create",),
    "instances.delete": ("compute.instances.delete",),
    "instances.getGuestAttributes": ("compute.instances.getGuestAttributes",),
    "instances.getSerialPortOutput": ("compute.instances.getSerialPortOutput",),
    "instances.insert": ("compute.instances.create",),
    "instances.setLabels": ("compute.instances.setLabels",),
    "instances.setMetadata": ("compute.instances.setMetadata",),
    "instances.stop": ("compute.instances.stop",),
    "networks.delete": ("compute.networks.delete",),
    "networks.getEffectiveFirewalls": ("compute.networks.getEffectiveFirewalls",),
    "networks.insert": ("compute.networks.create",),
    "regionOperations.delete": ("compute.regionOperations.delete",),
    "regionOperations.wait": ("compute.regionOperations.get",),
    "resourcePolicies.delete": ("compute.resourcePolicies.delete",),
    "resourcePolicies.insert": ("compute.resourcePolicies.create",),
    "routers.delete": ("compute.routers.delete",),
    "routers.insert": ("compute.routers.create",),
    "routers.patch": ("compute.routers.get", "compute.routers.update"),
    "subnetworks.delete": ("compute.subnetworks.delete",),
    "subnetworks.insert": ("compute.subnetworks.create",),
    "subnetworks.setPrivateIpGoogleAccess": ("compute.subnetworks.setPrivateIpGoogleAccess",),
    "zoneOperations.delete": ("compute.zoneOperations.delete",),
    "zoneOperations.wait": ("compute.zoneOperations.get",),
}
"""What methods need whatever is in their bodies, beside those that only get or list."""
PROPERTIES = {
    "labels": "compute.instances.setLabels",
    "metadata": "compute.instances.setMetadata",
    "serviceAccounts": "compute.instances.setServiceAccount",
    "tags": "compute.instances.setTags",
}
PLACES = ("project", "zone", "region")
ACT_AS = "iam.serviceAccounts.actAs"
TUNNEL = "iap.tunnelInstances.accessViaIAP"
PERMISSION = re.compile(r"[a-z]+\.[a-zA-Z]+\.[a-zA-Z]+")


def granted(cloud: Cloud, permission: str) -> bool:
    """Return whether the caller has a permission."""
    return cloud.granted is None or permission in cloud.granted


def grant(cloud: Cloud, body: Any) -> Resource:
    """Grant nothing but {"permissions": [...]}, or all with null; return what is granted. Raises ApiError."""
    everything = isinstance(body, dict) and body.get("permissions", ()) is None
    cloud.granted = None if everything else frozenset(_asked(body))
    return {"permissions": None if cloud.granted is None else sorted(cloud.granted)}


def tested(cloud: Cloud, body: Any) -> Resource:
    """Return which of {"permissions": [...]} are granted, as projects.testIamPermissions does. Raises ApiError."""
    found = [permission for permission in _asked(body) if granted(cloud, permission)]
    return {"permissions": found} if found else {}


def _asked(body: Any) -> list[str]:
    given = body.get("permissions") if isinstance(body, dict) else None
    if not isinstance(given, list):
        raise invalid("permissions", given, "Must be a list of permissions.")
    for permission in given:
        if not isinstance(permission, str) or not PERMISSION.fullmatch(permission):
            raise invalid("permissions", permission, "Must be a permission, without wildcards.")
    return given


def check(call: Call) -> None:
    """Raise ApiError where the caller lacks a permission that a call needs, the first one."""
    if call.cloud.granted is None:
        return
    for permission, path in needed(call):
        if path.split("/")[1] in catalog.NUMBERS and not granted(call.cloud, permission):
            raise forbidden(permission, path)


def refused_later(call: Call) -> Rule | None:
    """Return how a call's operation fails where the caller may not act as a machine's service account."""
    for email in _accounts(call) if not granted(call.cloud, ACT_AS) else ():
        message = (
            f"The user does not have access to service account '{email}'.  User: '{USER}'.  Ask a project owner to "
            "grant you the iam.serviceAccountUser role on the service account"
        )
        code = "SERVICE_ACCOUNT_ACCESS_DENIED"
        return Rule(call.method, "operation", status=400, code=code, message=message)
    return None


def _accounts(call: Call) -> list[str]:
    """Return the service accounts of the machines that a call makes or sets metadata of."""
    if call.method == "instances.setMetadata":
        machine = call.existing()[1]
    else:
        machine = _described(call) if call.method in CREATIONS else {}
    return [str(account.get("email")) for account in machine.get("serviceAccounts", ())]


def needed(call: Call) -> Iterator[Need]:
    """Yield what a call needs."""
    collection, _unused, verb = call.method.partition(".")
    own = _own_path(call)
    if verb in READS:
        yield f"compute.{collection}.{READS[verb]}", own
        return
    for permission in CHANGES[call.method]:
        yield permission, own
    if call.method in REFERRING:
        yield from REFERRING[call.method](call, own)


def _own_path(call: Call) -> str:
    """Return the path of the resource that a call is about; the project's where it is about none, or many."""
    named = [value for name, value in call.params.items() if name not in PLACES]
    made = call.body.get("perInstanceProperties") or [call.body.get("name")]
    name = (named or list(made))[0]
    return call.key(name).path if name else f"projects/{call.project}"


def _path(call: Call, value: object, otherwise: str) -> str:
    """Return the path of a resource that a body refers to."""
    key = parse_reference(value, call.project)
    return otherwise if key is None else key.path


def _described(call: Call) -> Resource:
    """Return the properties of the machines that a call makes."""
    if call.method == "instances.bulkInsert":
        properties: Resource = call.body.get("instanceProperties") or {}
        return properties
    return call.body


def _instance(call: Call, own: str) -> Iterator[Need]:
    body = _described(call)
    region = f"regions/{catalog.ZONES[call.params['zone']]}"
    for nic in body.get("networkInterfaces", ()):
        subnetwork = _path(call, nic.get("subnetwork"), own)
        yield "compute.subnetworks.use", subnetwork
        if nic.get("accessConfigs"):
            yield "compute.subnetworks.useExternalIp", subnetwork
    for disk in body.get("disks", ()):
        made = disk.get("initializeParams") or {}
        disk_path = own.replace("/instances/", "/disks/")
        yield "compute.disks.create", disk_path
        if made.get("labels"):
            yield "compute.disks.setLabels", disk_path
        if made.get("sourceImage"):
            yield "compute.images.useReadOnly", _path(call, made["sourceImage"], own)
    for name, permission in PROPERTIES.items():
        if body.get(name):
            yield permission, own
    for policy in body.get("resourcePolicies", ()):
        # Bulk requests name them.
        path = Key(call.project, region, "resourcePolicies", policy.rpartition("/")[2]).path
        yield "compute.resourcePolicies.use", path


def _image(call: Call, own: str) -> Iterator[Need]:
    if call.body.get("sourceDisk"):
        yield "compute.disks.useReadOnly", _path(call, call.body["sourceDisk"], own)
    if call.body.get("labels"):
        yield "compute.images.setLabels", own


def _address(call: Call, own: str) -> Iterator[Need]:
    if call.body.get("labels"):
        yield "compute.addresses.setLabels", own


def _network_part(call: Call, own: str) -> Iterator[Need]:
    """What lies in a network changes it: the network that the body names, or that the part is in."""
    there = None if call.method.endswith(".insert") else call.cloud.find(call.key())
    network = (there or call.body).get("network")
    if network:
        yield "compute.networks.updatePolicy", _path(call, network, own)
    for nat in call.body.get("nats") or ():
        for address in nat.get("natIps") or ():
            yield "compute.addresses.use", _path(call, address, own)


CREATIONS = ("instances.insert", "instances.bulkInsert")
REFERRING: dict[str, Callable[[Call, str], Iterator[Need]]] = {
    **dict.fromkeys(CREATIONS, _instance),
    "images.insert": _image,
    "addresses.insert": _address,
    **{
        f"{kind}.{verb}": _network_part
        for kind in ("firewalls", "routers", "subnetworks")
        for verb in ("insert", "patch", "update", "delete")
    },
}
"""What else methods need, by what their bodies, or the resources in their paths, refer to."""
