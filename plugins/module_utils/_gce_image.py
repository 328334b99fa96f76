# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: bodies as in Google's REST reference, and what has to change. Nothing here asks anybody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, SpecError
from ansible_collections.flux.burst.plugins.module_utils._gce_session import last_part

LABEL = "flux-burst-image"
"""Says for which burst an image was made. It is not the machines' label: an image outlives its burst."""
STOPPED = "TERMINATED"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DISK = re.compile(r"(?:https://[^/]+/compute/v1/)?(projects/[^/]+/zones/[^/]+/disks/[^/]+)")
IMAGE_FIELDS = (
    "id,name,family,architecture,status,labels,labelFingerprint,description,creationTimestamp,"
    "diskSizeGb,archiveSizeBytes,deprecated,sourceDisk,sourceDiskId,selfLink"
)


@dataclass(frozen=True)
class Actual:
    """What there is, as REST resources: the image of that name, its source, the project's images of our label."""

    image: Mapping[str, Any] | None = None
    instance: Mapping[str, Any] | None = None
    disk: Mapping[str, Any] | None = None
    ours: Sequence[Mapping[str, Any]] = ()


def check(params: Mapping[str, Any]) -> None:
    """Raise SpecError for what Compute Engine would refuse only after the machine was stopped."""
    for option in ("name", "family"):
        if params[option] is not None and not NAME.fullmatch(params[option]):
            raise SpecError(
                f"{option}: wanted lower case letters, digits and dashes, beginning with a letter, at most 63, found "
                f"'{params[option]}'."
            )
    if params["source_disk"] and not DISK.fullmatch(params["source_disk"]):
        raise SpecError(
            "source_disk: wanted projects/PROJECT/zones/ZONE/disks/DISK, found "
            f"'{params['source_disk']}'."
        )
    if params["keep"] is not None and params["keep"] < 1:
        raise SpecError(f"keep: wanted 1 or more, as the new image counts, found {params['keep']}.")
    if params["keep"] is not None and not params["family"]:
        raise SpecError("keep: wanted a family, whose older images are deleted, found none.")


def labels(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that an image of ours carries."""
    return {**params["labels"], LABEL: params["burst"]}


def body(params: Mapping[str, Any], source_disk: str) -> dict[str, Any]:
    """Return the body of images.insert."""
    features = [{"type": feature} for feature in params["guest_os_features"]]
    optional = {
        "family": params["family"],
        "description": params["description"],
        "architecture": params["architecture"],
        "storageLocations": params["storage_locations"],
        "guestOsFeatures": features,
    }
    return {
        "name": params["name"],
        "sourceDisk": source_disk,
        "labels": labels(params),
        **{field: value for field, value in optional.items() if value},
    }


def disk_path(url: str) -> str:
    """Return a disk's path from any form of its URL."""
    found = DISK.fullmatch(url)
    return found[1] if found else url


def boot_disk(instance: Mapping[str, Any]) -> str:
    """Return the path of an instance's boot disk."""
    disks = instance.get("disks", [])
    found = next(
        (str(disk["source"]) for disk in disks if disk.get("boot") and "source" in disk), ""
    )
    if not found:
        raise GceError(
            f"wanted the boot disk of instance {instance['name']}, found none: give source_disk instead."
        )
    return disk_path(found)


def plan_present(params: Mapping[str, Any], actual: Actual) -> list[Stage]:
    """Return what has to be done: stop the machine, make or change the image, delete older ones.

    Raises GceError for an image of that name that is another one, or a source that cannot be used.
    """
    if actual.image is not None:
        return [_changes(params, actual.image, actual.disk), _superseded(params, actual)]
    if actual.disk is None:
        wanted = params["source_disk"] or (
            f"instance {params['source_instance']} in zone {params['zone']}"
        )
        raise GceError(
            f"image {params['name']}: wanted {wanted} to make it from, found none: create the machine first."
        )
    made = body(params, disk_path(actual.disk["selfLink"]))
    creation = Change("image", params["name"], "create", {}, made)
    return [_stop(params, actual.instance), [creation], _superseded(params, actual)]


def _stop(params: Mapping[str, Any], instance: Mapping[str, Any] | None) -> Stage:
    if instance is None or instance["status"] == STOPPED:
        return []
    name = params["source_instance"]
    if not params["stop_instance"]:
        raise GceError(
            f"image {params['name']}: wanted instance {name} stopped, found it {instance['status']}: stop it, or set "
            "stop_instance."
        )
    return [Change("instance", name, "update", {"status": instance["status"]}, {"status": STOPPED})]


def _changes(
    params: Mapping[str, Any], image: Mapping[str, Any], disk: Mapping[str, Any] | None
) -> list[Change]:
    name = params["name"]
    if image["status"] in ("FAILED", "DELETING"):
        raise GceError(
            f"image {name}: wanted none or one that is READY, found it {image['status']}: delete it, or choose "
            "another name."
        )
    wrong = _other(params, image, disk)
    if wrong:
        raise GceError(
            f"image {name}: {wrong}, which is not replaced: choose another name, or delete it."
        )
    own = image.get("labels", {})
    before = {
        "labels": {key: own.get(key, "") for key in labels(params)},
        **{field: image.get(field, "") for field in ("family", "description") if params[field]},
    }
    after = {field: params[field] for field in before} | {"labels": labels(params)}
    differing = [field for field in before if before[field] != after[field]]
    if not differing:
        return []
    old, new = ({field: side[field] for field in differing} for side in (before, after))
    return [Change("image", name, "update", old, new)]


def _other(
    params: Mapping[str, Any], image: Mapping[str, Any], disk: Mapping[str, Any] | None
) -> str:
    """Return how an image differs in what cannot be changed, or "". Its source need not be there any more."""
    wanted, found = params["architecture"], image.get("architecture", "")
    if wanted and wanted != found:
        return f"wanted architecture {wanted}, found one of {found or 'none'}"
    # A disk of the same name may have been made again.
    if disk and disk["id"] != image.get("sourceDiskId"):
        path = disk_path(disk["selfLink"])
        return f"wanted one of disk {path} with id {disk['id']}, found one of another disk"
    return ""


def _superseded(params: Mapping[str, Any], actual: Actual) -> Stage:
    """Return the deletion of the family's older images that were made for this burst, beyond `keep`."""
    if params["keep"] is None:
        return []
    ours = [
        image
        for image in newest_first(actual.ours)
        if image["name"] != params["name"]
        and image.get("family") == params["family"]
        and image.get("labels", {}).get(LABEL) == params["burst"]
    ]
    return [_deletion(image) for image in ours[params["keep"] - 1 :]]


def _deletion(image: Mapping[str, Any]) -> Change:
    shown = {field: image[field] for field in ("family", "creationTimestamp") if field in image}
    return Change("image", image["name"], "delete", shown, {})


def plan_absent(image: Mapping[str, Any] | None) -> list[Stage]:
    """Return the deletion of the image, where there is one."""
    return [[_deletion(image)] if image else []]


def labels_body(image: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of images.setLabels that keeps the labels that are not ours."""
    return {
        "labelFingerprint": image["labelFingerprint"],
        "labels": {**image.get("labels", {}), **wanted},
    }


def newest_first(images: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return images by their age."""
    return sorted(
        images, key=lambda image: datetime.fromisoformat(image["creationTimestamp"]), reverse=True
    )


def row(image: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image as our modules return it, from its REST resource."""
    link = str(image["selfLink"])
    return {
        "name": image["name"],
        "id": image["id"],
        "link": link[link.index("projects/") :],
        "family": image.get("family", ""),
        "architecture": image.get("architecture", ""),
        "status": image["status"],
        "deprecated": image.get("deprecated", {}).get("state", ""),
        "description": image.get("description", ""),
        "labels": image.get("labels", {}),
        "source_disk": last_part(image.get("sourceDisk", "")),
        "created": image["creationTimestamp"],
        "disk_size_gb": int(image.get("diskSizeGb", 0)),
        "archive_bytes": int(image.get("archiveSizeBytes", 0)),
    }


def newest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the name of the image that a family stands for, of its rows with the newest first; "" for none."""
    usable = (row["name"] for row in rows if row["status"] == "READY" and not row["deprecated"])
    return next(usable, "")


def list_filter(family: str | None, test: str | None) -> str:
    """Return the filter of images.list."""
    parts = [f"family={family}"] if family else []
    parts += [f"({test})"] if test else []
    return " AND ".join(parts)
