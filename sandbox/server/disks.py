# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks: they come with instances and go with them, unless autoDelete is false.

What is on a disk is in its machine, so one that outlives its instance is a record only.
"""

from __future__ import annotations

from sandbox.server import catalog, changes, images
from sandbox.server.api import Call, serve
from sandbox.server.errors import in_use
from sandbox.server.resources import fixed
from sandbox.server.state import (
    Cloud,
    Key,
    Resource,
    check_labels,
    fingerprint,
    parse_reference,
)


def attach(call: Call, instance: Resource, body: Resource) -> None:
    """Write down the disks of a new instance, which its checked description describes."""
    for attached, given in zip(instance["disks"], body["disks"], strict=True):
        key = parse_reference(attached["source"], call.project)
        assert key is not None
        parameters = given.get("initializeParams") or {}
        # A bulk request names it, a single one gives its URL.
        kind = parameters.get("diskType", "pd-balanced").rpartition("/")[2]
        source, labels = parameters.get("sourceImage"), check_labels(parameters.get("labels"))
        image = images.named(call, "resource.disks", source) if source else None
        place = f"{catalog.BASE}/projects/{key.project}/{key.scope}"
        fields: Resource = {
            "zone": place,
            "sizeGb": attached["diskSizeGb"],
            "status": "READY",
            "type": f"{place}/diskTypes/{kind}",
            "architecture": attached["architecture"],
            "labelFingerprint": fingerprint(labels),
            **({"labels": labels} if labels else {}),
            "users": [instance["selfLink"]],
            **({"sourceImage": image["selfLink"], "sourceImageId": image["id"]} if image else {}),
        }
        call.cloud.put(key, call.cloud.new(key, "disk", fields))


def boot_image(cloud: Cloud, key: Key, instance: Resource) -> str:
    """Return by what id the backend has the image that an instance boots from; "" for the fixed ones."""
    source = next(disk["source"] for disk in instance["disks"] if disk["boot"])
    disk = cloud.find(parse_reference(source, key.project)) or {}
    image = parse_reference(disk.get("sourceImage"), key.project)
    always = image is None or image in fixed(image.project, "images")
    # Its content may be gone by now, which the backend says.
    return "" if always else str(disk["sourceImageId"])


def remove_instance(cloud: Cloud, key: Key) -> None:
    """Drop an instance and the disks that go with it; the others are free then. Idempotent."""
    instance = cloud.find(key) or {}
    cloud.remove(key)
    for attached in instance.get("disks", ()):
        disk_key = parse_reference(attached["source"], key.project)
        disk = cloud.find(disk_key)
        if disk_key is None or disk is None:
            continue
        if attached["autoDelete"]:
            cloud.remove(disk_key)
        else:
            disk.pop("users", None)


@serve("disks.delete", "DELETE", "zones/{zone}/disks/{disk}")
async def delete_disk(call: Call) -> Resource:
    """Delete a disk that no instance has."""
    key, disk = call.settled()
    for user in disk.get("users", ()):
        raise in_use("disk", key.path, user.partition("/v1/")[2])
    return changes.delete(call, key)
