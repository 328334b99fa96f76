# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: those that are always there, and those made from the boot disks of stopped machines."""

from __future__ import annotations

from sandbox.machines import MachineError
from sandbox.server import changes
from sandbox.server.api import Call, serve
from sandbox.server.errors import ApiError, OperationError, in_use, invalid, not_found, stale
from sandbox.server.resources import fixed
from sandbox.server.state import (
    Cloud,
    Key,
    Resource,
    check_labels,
    check_name,
    fingerprint,
    parse_reference,
)

COPIED = ("description", "family", "guestOsFeatures", "licenses", "shieldedInstanceInitialState")
PATCHED = ("family", "description", "deprecated")


def all_images(cloud: Cloud, project: str) -> dict[Key, Resource]:
    """Return a project's images."""
    return {**fixed(project, "images"), **cloud.table(project, "images")}


def newest(cloud: Cloud, project: str, family: str) -> Resource | None:
    """Return the image that a family stands for: the newest that is ready and not deprecated."""
    ready = [
        image
        for image in all_images(cloud, project).values()
        if image.get("family") == family
        and image["status"] == "READY"
        and "deprecated" not in image
    ]
    # Ids only grow, and those of the fixed ones are below all others, whatever the clock says.
    return max(ready, key=lambda image: int(image["id"]), default=None)


def named(call: Call, field: str, value: object) -> Resource:
    """Return the image that a request's field names, by name or by family. Raises ApiError."""
    key = parse_reference(value, call.project)
    if key is None or key.collection not in ("images", "imageFamilyViews"):
        raise invalid(field, value, "The URL is malformed.")
    name = key.name.removeprefix("family/")
    if key.name != name or key.collection == "imageFamilyViews":
        found = newest(call.cloud, key.project, name)
    else:
        found = all_images(call.cloud, key.project).get(key)
    if found is None:
        raise invalid(field, value, "The referenced image resource cannot be found.")
    if found["status"] != "READY":
        raise ApiError(400, "resourceNotReady", f"The resource '{key.path}' is not ready")
    return found


def _made(call: Call) -> tuple[Key, Resource]:
    """Return the image in the path, which somebody has made. Raises ApiError."""
    if call.key() in fixed(call.project, "images"):
        why = f"'{call.key().path}' is one of the sandbox's own images, which stay as they are"
        raise ApiError(403, "forbidden", why)
    return call.settled()


@serve("images.getFromFamily", "GET", "global/images/family/{family}")
async def get_image_from_family(call: Call) -> Resource:
    """Return the newest image of a family."""
    family = call.params["family"]
    found = newest(call.cloud, call.project, family)
    if found is None:
        raise not_found(f"projects/{call.project}/global/images/family/{family}")
    return found


def _source(call: Call) -> tuple[Key, Resource, Key]:
    """Return the source disk with its key, and the stopped instance's whose boot disk it is. Raises ApiError."""
    field, value = "resource.sourceDisk", call.body.get("sourceDisk", "")
    key = call.cloud.referenced(field, value, call.project, "disks")
    disk = call.cloud.find(key)
    assert disk is not None
    users = [parse_reference(user, call.project) for user in disk.get("users", ())]
    for user in users:
        instance = call.cloud.find(user)
        if user is None or instance is None:
            continue
        if instance["status"] != "TERMINATED" or user in call.cloud.busy:
            if call.query.get("forceCreate", "").lower() == "true":
                raise invalid(field, value, "The sandbox makes images of stopped machines only.")
            raise in_use("disk", key.path, user.path)
        if any(it["source"] == key.link and it["boot"] for it in instance["disks"]):
            return key, disk, user
    raise invalid(field, value, "The sandbox has the contents of instances' boot disks only.")


@serve("images.insert", "POST", "global/images")
async def insert_image(call: Call) -> Resource:
    """Make an image of the boot disk of a stopped machine; the operation is done when it can be booted."""
    body, key = call.body, call.key(check_name(call.body.get("name")))
    if key in fixed(call.project, "images"):
        raise ApiError(409, "alreadyExists", f"The resource '{key.path}' already exists")
    key = call.vacant()
    disk_key, disk, instance = _source(call)
    labels = check_labels(body.get("labels"))
    if "family" in body:
        check_name(body["family"], "resource.family")
    image = call.cloud.new(
        key,
        "image",
        {
            "status": "PENDING",
            "sourceType": "RAW",
            "sourceDisk": disk_key.link,
            "sourceDiskId": disk["id"],
            "architecture": body.get("architecture", disk["architecture"]),
            "diskSizeGb": disk["sizeGb"],
            "archiveSizeBytes": "0",
            "storageLocations": body.get("storageLocations", ["us"]),
            "labelFingerprint": fingerprint(labels),
            **({"labels": labels} if labels else {}),
            **{name: body[name] for name in COPIED if name in body},
        },
    )

    async def save() -> None:
        try:
            async with call.cloud.machine(instance):
                size = await call.cloud.thread(
                    call.cloud.backend.save_image, instance.project, instance.name, image["id"]
                )
        except MachineError as error:
            raise OperationError("INTERNAL_ERROR", f"sandbox: {error}", 503) from error
        image.update(status="READY", archiveSizeBytes=str(size))

    return changes.insert(call, key, image, save)


@serve("images.delete", "DELETE", "global/images/{image}")
async def delete_image(call: Call) -> Resource:
    """Delete an image; machines that were booted from it go on."""
    key, image = _made(call)

    async def drop() -> None:
        await call.cloud.thread(call.cloud.backend.delete_image, image["id"])

    return changes.delete(call, key, drop)


def _change(call: Call, verb: str, key: Key, image: Resource, patch: Resource) -> Resource:
    """Change an image at once, as several changes may be under way together, and return the operation."""

    async def work(operation: Resource) -> None:
        await call.operations.elapse(operation)

    new = changes.merged(image, patch)
    image.clear()
    image.update(new)
    return call.operations.start(verb, key, work)


@serve("images.patch", "PATCH", "global/images/{image}")
async def patch_image(call: Call) -> Resource:
    """Change family, description or deprecation, which is all that can be."""
    key, image = _made(call)
    given = {name: call.body[name] for name in PATCHED if name in call.body}
    return _change(call, "patch", key, image, given)


@serve("images.deprecate", "POST", "global/images/{image}/deprecate")
async def deprecate_image(call: Call) -> Resource:
    """Say that an image is not to be used any more, or (state ACTIVE, or none) that it is again."""
    key, image = _made(call)
    active = call.body.get("state", "ACTIVE") == "ACTIVE"
    return _change(call, "deprecate", key, image, {"deprecated": None if active else call.body})


@serve("images.setLabels", "POST", "global/images/{resource}/setLabels")
async def set_image_labels(call: Call) -> Resource:
    """Replace the labels; the fingerprint has to be the current one."""
    key, image = _made(call)
    labels = check_labels(call.body.get("labels"))
    if call.body.get("labelFingerprint") != image["labelFingerprint"]:
        raise stale("Labels")
    new: Resource = {"labels": labels or None, "labelFingerprint": fingerprint(labels)}
    return _change(call, "setLabels", key, image, new)
