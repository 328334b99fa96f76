# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances: what a request describes becomes a resource, checked as Compute Engine checks it."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.machines import MachineSpec
from sandbox.server import catalog, disks, images
from sandbox.server.api import Call
from sandbox.server.errors import ApiError, already_exists, forbidden, invalid, required
from sandbox.server.nat import segment
from sandbox.server.resources import fixed
from sandbox.server.state import (
    Cloud,
    Key,
    Resource,
    check_labels,
    check_name,
    fingerprint,
    now,
    parse_reference,
)

RUN_SECONDS = (30, 120 * 24 * 3600)
"""The shortest and longest maxRunDuration."""

BULK_LIMIT = 5000
PUBLIC = ipaddress.IPv4Network("198.18.0.0/15")
"""Where public addresses are from: a range that no network of the internet has."""
ARCHITECTURE = "X86_64"
"""What the sandbox boots: an image of another architecture is a record only."""

COPIED = (
    "description",
    "minCpuPlatform",
    "serviceAccounts",
    "reservationAffinity",
    "advancedMachineFeatures",
    "networkPerformanceConfig",
)


@dataclass(frozen=True)
class Place:
    """Where an instance will be: its subnetwork and the subnetwork's network."""

    subnetwork: Key
    cidr: ipaddress.IPv4Network
    gateway: str
    network: str


def metadata_items(instance: Resource) -> dict[str, str]:
    """Return an instance's metadata: key -> value."""
    items = instance.get("metadata", {}).get("items", ())
    return {item["key"]: item.get("value", "") for item in items}


def ssh_keys(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return (user, public key) of each line "user:key" of the metadata `ssh-keys`."""
    pairs = [line.partition(":") for line in metadata.get("ssh-keys", "").splitlines()]
    return tuple(
        (user.strip(), key.strip()) for user, _unused, key in pairs if user.strip() and key.strip()
    )


def os_login(instance: Resource) -> bool:
    """Return whether an instance lets in whom OS Login lets in, and nobody else."""
    return metadata_items(instance).get("enable-oslogin", "").lower() in ("true", "1", "y")


def let_in(cloud: Cloud, instance: Resource) -> tuple[tuple[str, str], ...]:
    """Return (user, public key) of everyone whom an instance lets in."""
    return cloud.logins() if os_login(instance) else ssh_keys(metadata_items(instance))


def max_run_seconds(instance: Resource) -> int:
    """Return the maxRunDuration in seconds; 0 is none."""
    duration = instance.get("scheduling", {}).get("maxRunDuration") or {}
    return int(duration.get("seconds", 0))


def guest_attributes_on(instance: Resource) -> bool:
    """Return whether the instance may publish guest attributes."""
    return metadata_items(instance).get("enable-guest-attributes", "").lower() in ("true", "1", "y")


def place_of(call: Call, body: Resource) -> Place:
    """Return the subnetwork that the first network interface names. Raises ApiError."""
    nics = body.get("networkInterfaces") or []
    if not nics:
        why = "At least one network interface is required."
        raise invalid("resource.networkInterfaces", "", why)
    where, nic = "resource.networkInterfaces[0]", nics[0]
    if len(nics) > 1:
        raise invalid("resource.networkInterfaces", len(nics), "The sandbox has one interface.")
    if not nic.get("subnetwork"):
        why = "Network interface must specify a subnet if the network resource is in custom subnet mode."
        raise invalid(f"{where}.subnetwork", "", why)
    field, value = f"{where}.subnetwork", nic["subnetwork"]
    key = call.cloud.referenced(field, value, call.project, "subnetworks")
    region = f"regions/{catalog.ZONES[call.params['zone']]}"
    if key.scope != region:
        why = f"The subnetwork is not in the region of zone {call.params['zone']}."
        raise invalid(field, value, why)
    if call.project not in (key.project, *catalog.SERVICE_PROJECTS.get(key.project, ())):
        raise forbidden("compute.subnetworks.use", key.path)
    subnetwork = call.cloud.find(key)
    assert subnetwork is not None
    named = nic.get("network")
    if named:
        network = call.cloud.referenced(f"{where}.network", named, call.project, "networks")
        if network.link != subnetwork["network"]:
            raise invalid(f"{where}.network", named, "It is not the subnetwork's network.")
    cidr = ipaddress.IPv4Network(subnetwork["ipCidrRange"])
    return Place(key, cidr, subnetwork["gatewayAddress"], subnetwork["network"])


def free_addresses(cloud: Cloud, place: Place, count: int) -> list[str]:
    """Return up to count free addresses of a subnetwork, lowest first.

    The first two and the last two of a range are Google's own.
    """
    taken = {
        nic["networkIP"]
        for _unused, instance in cloud.all("instances")
        for nic in instance["networkInterfaces"]
        if nic["subnetwork"] == place.subnetwork.link
    }
    found: list[str] = []
    for number in range(2, place.cidr.num_addresses - 2):
        if len(found) == count:
            break
        address = str(place.cidr[number])
        if address not in taken:
            found.append(address)
    return found


def machine_type(call: Call, value: object) -> str:
    """Return the link of a machine type. Bulk requests name it, others give a URL. Raises ApiError."""
    text = str(value or "")
    if call.method == "instances.bulkInsert" and "/" not in text:
        text = f"{call.scope}/machineTypes/{text}"
    key = parse_reference(text, call.project)
    if key is None or key.collection != "machineTypes":
        raise invalid("resource.machineType", text, "The URL is malformed.")
    if key not in fixed(key.project, "machineTypes"):
        why = f"Machine type with name '{key.name}' does not exist in zone '{call.params['zone']}'."
        raise invalid("resource.machineType", text, why)
    if key.scope != call.scope:
        raise invalid("resource.machineType", text, "It is in another zone.")
    return key.link


def _accelerators(call: Call, body: Resource) -> list[Resource]:
    """Return the accelerators that a request adds, each with its link. Bulk requests name them."""
    made = []
    for row in body.get("guestAccelerators") or ():
        name = str(row.get("acceleratorType", "")).rpartition("/")[2]
        if name not in catalog.ACCELERATORS:
            why = f"Accelerator type '{name}' does not exist in zone '{call.params['zone']}'."
            raise invalid("resource.guestAccelerators.acceleratorType", name, why)
        link = f"{catalog.BASE}/projects/{call.project}/{call.scope}/acceleratorTypes/{name}"
        made.append({"acceleratorType": link, "acceleratorCount": row["acceleratorCount"]})
    return made


def _policies(call: Call, body: Resource) -> list[str]:
    """Return the links of the resource policies that a request names. Bulk requests name them."""
    region, found = f"regions/{catalog.ZONES[call.params['zone']]}", []
    for value in body.get("resourcePolicies") or ():
        text = value if "/" in value else f"{region}/resourcePolicies/{value}"
        field = "resource.resourcePolicies"
        found.append(call.cloud.referenced(field, text, call.project, "resourcePolicies").link)
    return found


def _image(call: Call, value: object) -> Resource:
    field = "resource.disks[0].initializeParams.sourceImage"
    image = images.named(call, field, value)
    if image["architecture"] != ARCHITECTURE:
        why = f"It is {image['architecture']}, and every machine type of the sandbox is {ARCHITECTURE}."
        raise invalid(field, value, why)
    return image


def _disks(call: Call, body: Resource, name: str) -> list[Resource]:
    disks = body.get("disks") or []
    if not any(disk.get("boot") for disk in disks):
        raise invalid("resource.disks", "", "Boot disk must be specified.")
    made = []
    for index, disk in enumerate(disks):
        parameters = disk.get("initializeParams") or {}
        image = _image(call, parameters.get("sourceImage", "")) if disk.get("boot") else None
        size = parameters.get("diskSizeGb") or disk.get("diskSizeGb") or "10"
        if image and int(size) < int(image["diskSizeGb"]):
            why = f"Requested disk size cannot be smaller than the image size ({image['diskSizeGb']} GB)"
            raise invalid(f"resource.disks[{index}].initializeParams.diskSizeGb", size, why)
        label = name if index == 0 else f"{name}-{index}"
        made.append(
            {
                "kind": "compute#attachedDisk",
                "type": disk.get("type", "PERSISTENT"),
                "mode": disk.get("mode", "READ_WRITE"),
                "source": f"{catalog.BASE}/projects/{call.project}/{call.scope}/disks/{label}",
                "deviceName": disk.get("deviceName", f"persistent-disk-{index}"),
                "index": index,
                "boot": bool(disk.get("boot")),
                "autoDelete": bool(disk.get("autoDelete")),
                "interface": disk.get("interface", "SCSI"),
                "diskSizeGb": str(size),
                "architecture": ARCHITECTURE,
            }
        )
    return made


def _scheduling(body: Resource) -> Resource:
    given = dict(body.get("scheduling") or {})
    stays = given.get("onHostMaintenance", "MIGRATE") == "MIGRATE"
    name = str(body.get("machineType")).rpartition("/")[2]
    if stays and (body.get("guestAccelerators") or catalog.SIZES[name].accelerators):
        why = "Instances with guest accelerators do not support live migration."
        raise invalid("resource.scheduling.onHostMaintenance", "MIGRATE", why)
    spot = given.get("provisioningModel") == "SPOT" or bool(given.get("preemptible"))
    seconds = max_run_seconds(body)
    field = "resource.scheduling.maxRunDuration"
    if given.get("maxRunDuration") and not RUN_SECONDS[0] <= seconds <= RUN_SECONDS[1]:
        why = f"Must be from {RUN_SECONDS[0]} to {RUN_SECONDS[1]} seconds."
        raise invalid(field, seconds, why)
    if seconds and given.get("instanceTerminationAction") not in ("DELETE", "STOP"):
        why = "Instance termination action must be specified when max run duration is."
        raise invalid("resource.scheduling.instanceTerminationAction", "", why)
    return {
        "onHostMaintenance": "TERMINATE" if spot else "MIGRATE",
        "automaticRestart": not spot,
        "preemptible": spot,
        "provisioningModel": "SPOT" if spot else "STANDARD",
        **given,
    }


def check_metadata(metadata: Resource | None) -> Resource:
    """Return metadata with its fingerprint. Raises ApiError."""
    items = list((metadata or {}).get("items") or ())
    keys = [item.get("key") for item in items]
    for key in keys:
        if not key or keys.count(key) > 1:
            why = "Duplicate metadata key." if key else "A key is needed."
            raise invalid("resource.metadata.items.key", key, why)
    made: Resource = {"kind": "compute#metadata", "fingerprint": fingerprint(items)}
    return made | ({"items": items} if items else {})


def _public_address(key: Key) -> str:
    """Return a machine's ephemeral public address. Nothing routes to it."""
    offset = zlib.crc32(key.path.encode()) % PUBLIC.num_addresses
    return str(PUBLIC.network_address + offset)


def _nic(key: Key, body: Resource, place: Place, address: str) -> Resource:
    given = body["networkInterfaces"][0]
    nic: Resource = {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": place.network,
        "subnetwork": place.subnetwork.link,
        "networkIP": address,
        "stackType": "IPV4_ONLY",
        **({"nicType": given["nicType"]} if "nicType" in given else {}),
    }
    if given.get("accessConfigs"):
        nic["accessConfigs"] = [
            {
                "kind": "compute#accessConfig",
                "type": "ONE_TO_ONE_NAT",
                "name": "external-nat",
                "natIP": _public_address(key),
                **it,
            }
            for it in given["accessConfigs"]
        ]
    return {**nic, "fingerprint": fingerprint(nic)}


def check(call: Call, body: Resource) -> None:
    """Check all of a description that is the same for every instance of a request. Raises ApiError."""
    if not body.get("machineType"):
        raise required("resource.machineType")
    machine_type(call, body["machineType"])
    _disks(call, body, "check")
    _scheduling(body)
    _accelerators(call, body)
    _policies(call, body)
    check_metadata(body.get("metadata"))
    check_labels(body.get("labels"))


def build(call: Call, key: Key, body: Resource, place: Place, address: str) -> Resource:
    """Return the instance that a checked body describes, in status PROVISIONING."""
    labels = check_labels(body.get("labels"))
    tags = list(body.get("tags", {}).get("items", ()))
    accelerators, policies = _accelerators(call, body), _policies(call, body)
    fields = {
        "zone": f"{catalog.BASE}/projects/{call.project}/{call.scope}",
        "status": "PROVISIONING",
        "machineType": machine_type(call, body["machineType"]),
        "cpuPlatform": "Intel Cascade Lake",
        "canIpForward": bool(body.get("canIpForward")),
        "deletionProtection": bool(body.get("deletionProtection")),
        "startRestricted": False,
        "disks": _disks(call, body, key.name),
        "networkInterfaces": [_nic(key, body, place, address)],
        "metadata": check_metadata(body.get("metadata")),
        "tags": {"fingerprint": fingerprint(tags), **({"items": tags} if tags else {})},
        "labelFingerprint": fingerprint(labels),
        "scheduling": _scheduling(body),
        "shieldedInstanceConfig": {
            "enableSecureBoot": False,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
            **(body.get("shieldedInstanceConfig") or {}),
        },
        "shieldedInstanceIntegrityPolicy": {"updateAutoLearnPolicy": True},
        "lastStartTimestamp": now(),
        **({"labels": labels} if labels else {}),
        **({"guestAccelerators": accelerators} if accelerators else {}),
        **({"resourcePolicies": policies} if policies else {}),
        **{name: body[name] for name in COPIED if name in body},
    }
    instance = call.cloud.new(key, "instance", fields)
    return {**instance, "fingerprint": fingerprint(instance)}


def machine_spec(cloud: Cloud, key: Key, instance: Resource, place: Place) -> MachineSpec:
    """Return the machine to boot for an instance."""
    image = disks.boot_image(cloud, key, instance)
    return MachineSpec(
        project=key.project,
        name=key.name,
        segment=segment(place.subnetwork),
        address=instance["networkInterfaces"][0]["networkIP"],
        prefix=place.cidr.prefixlen,
        gateway=place.gateway,
        ssh_keys=let_in(cloud, instance),
        accounts=() if image else cloud.accounts,
        files={} if image else cloud.files,
        image=image,
    )


def vacant(call: Call, wanted: list[tuple[str, str]]) -> list[Key]:
    """Return the keys of instances to make: (name, the field that says so) each. Raises ApiError."""
    taken = {key.name: key for key in call.cloud.table(call.project, "instances")}
    keys = []
    for name, field in wanted:
        key = call.key(check_name(name, field))
        if taken.get(name) == key:
            raise already_exists(key.path)
        if name in taken:
            # A machine's hostname is its name, and the backend knows it by project and name.
            why = f"The sandbox has it in {taken[name].scope} already, and one of a name in a project."
            raise invalid(field, name, why)
        keys.append(key)
    return keys


def bulk_names(body: Resource) -> list[tuple[str, str]]:
    """Return the names that a bulk request asks for, with the field that says so. Raises ApiError."""
    named: Mapping[str, Any] = body.get("perInstanceProperties") or {}
    pattern, count = str(body.get("namePattern") or ""), int(body.get("count") or len(named))
    if not 1 <= count <= BULK_LIMIT:
        raise invalid("resource.count", count, f"Must be from 1 to {BULK_LIMIT}.")
    if named:
        if pattern or count != len(named):
            why = "Must be the number of perInstanceProperties, and no namePattern with them."
            raise invalid("resource.count", count, why)
        return [(name, "resource.perInstanceProperties.name") for name in named]
    marks = "#" * pattern.count("#")
    if not marks or marks not in pattern:
        why = "Must have one sequence of # characters."
        raise invalid("resource.namePattern", pattern, why)
    names = [pattern.replace(marks, str(n).zfill(len(marks))) for n in range(1, count + 1)]
    return [(name, "resource.namePattern") for name in names]


def exhausted(subnetwork: Key) -> ApiError:
    """Return the error of a subnetwork that has no address left."""
    return ApiError(400, "invalid", f"IP space of '{subnetwork.path}' is exhausted.")
