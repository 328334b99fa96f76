# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a burst: bodies as in Google's REST reference, and what has to change. Nothing here asks anybody."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, SpecError
from ansible_collections.flux.burst.plugins.module_utils._gce_session import LABEL, last_part
from ansible_collections.flux.burst.plugins.module_utils._reconcile import Change
from ansible_collections.flux.burst.plugins.module_utils._spec import region, seconds

NAMESPACE = uuid.UUID("6f3a2f0e-58f5-4d57-9f19-2f1f8c6f6a11")
ALIVE = ("PROVISIONING", "STAGING", "RUNNING")


def request_id(burst: str, network_id: str, body: Mapping[str, Any], attempt: int) -> str:
    """Return the requestId of a creation: the same for the same request, so a repeat makes no second set of machines.

    Google remembers an id for an hour and answers with the operation that it began. network_id differs after a
    teardown. For that hour, an old operation that failed (no capacity), or whose machines were deleted since, would
    be all that a new run gets; who finds one that is over counts the attempt up.
    """
    parts = [burst, network_id, json.dumps(body, sort_keys=True), str(attempt)]
    return str(uuid.uuid5(NAMESPACE, "/".join(parts)))


def labels(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that every machine of a burst carries."""
    return {**params["labels"], LABEL: params["burst"]}


def metadata(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that every machine of a burst has. It never holds a secret."""
    return {
        "block-project-ssh-keys": "TRUE",
        "enable-guest-attributes": "TRUE",
        "enable-oslogin": "FALSE",
        "ssh-keys": f"{params['ssh_user']}:{params['ssh_public_key'].strip()}",
    }


def bulk_body(params: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """Return the body of instances.bulkInsert: without minCount, it is all of them or none."""
    subnetwork = f"projects/{params['project']}/regions/{region(params['zone'])}/subnetworks/{params['burst']}-subnet"
    disk = {"sourceImage": params["image"], "diskSizeGb": str(params["disk_size_gb"])}
    return {
        "count": str(len(hosts)),
        "perInstanceProperties": {host: {} for host in hosts},
        "instanceProperties": {
            "machineType": params["machine_type"],
            "disks": [{"boot": True, "autoDelete": True, "initializeParams": disk}],
            # Without accessConfigs a machine has no public address.
            "networkInterfaces": [{"subnetwork": subnetwork}],
            "labels": labels(params),
            "metadata": {"items": _items(metadata(params))},
            "scheduling": {
                "maxRunDuration": {"seconds": str(_fuse(params["max_run_duration"]))},
                "instanceTerminationAction": "DELETE",
            },
        },
    }


def _fuse(text: str) -> int:
    try:
        return seconds(text)
    except ValueError:
        raise SpecError(
            f"max_run_duration: wanted a number with s, m, h or d, such as 4h, found '{text}'."
        ) from None


def _items(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(pairs.items())]


def found_metadata(instance: Mapping[str, Any]) -> dict[str, str]:
    """Return an instance's metadata as a mapping."""
    return {item["key"]: item.get("value", "") for item in instance["metadata"].get("items", [])}


def plan_present(
    params: Mapping[str, Any], existing: Mapping[str, Mapping[str, Any]]
) -> list[Change]:
    """Return what has to be created or changed; existing holds the REST resources of the burst's machines by name.

    Raises GceError for machines that exist and do not run.
    """
    stopped = [
        f"{name} {instance['status']}"
        for name, instance in existing.items()
        if name in params["hosts"] and instance["status"] not in ALIVE
    ]
    if stopped:
        raise GceError(
            f"wanted machines that run, found {', '.join(stopped)}: run the teardown playbook, then burst again."
        )
    changes = []
    for host in params["hosts"]:
        change = (
            _change(params, host, existing[host]) if host in existing else _creation(params, host)
        )
        if change:
            changes.append(change)
    return changes


def _creation(params: Mapping[str, Any], host: str) -> Change:
    _fuse(params["max_run_duration"])
    after = {
        "zone": params["zone"],
        "machine_type": params["machine_type"],
        "image": params["image"],
        "labels": labels(params),
        "max_run_duration": params["max_run_duration"],
    }
    return Change("instance", host, "create", {}, after)


def _change(params: Mapping[str, Any], host: str, instance: Mapping[str, Any]) -> Change | None:
    wanted = {"labels": labels(params), "metadata": metadata(params)}
    have = {"labels": instance.get("labels", {}), "metadata": found_metadata(instance)}
    before = {part: {key: have[part].get(key, "") for key in wanted[part]} for part in wanted}
    differing = [part for part in wanted if before[part] != wanted[part]]
    if not differing:
        return None
    return Change(
        "instance",
        host,
        "update",
        {part: before[part] for part in differing},
        {part: wanted[part] for part in differing},
    )


def labels_body(instance: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of instances.setLabels that keeps the labels that are not ours."""
    return {
        "labelFingerprint": instance["labelFingerprint"],
        "labels": {**instance.get("labels", {}), **wanted},
    }


def metadata_body(instance: Mapping[str, Any], wanted: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of instances.setMetadata that keeps the entries that are not ours."""
    return {
        "fingerprint": instance["metadata"]["fingerprint"],
        "items": _items({**found_metadata(instance), **wanted}),
    }


def warnings(params: Mapping[str, Any], existing: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what differs and cannot be changed while a machine runs."""
    return [
        f"{name}: wanted {what} {params[option]}, found {found}: it keeps that until a teardown."
        for name, instance in existing.items()
        if name in params["hosts"]
        for option, what, field in (
            ("machine_type", "machine type", "machineType"),
            ("zone", "zone", "zone"),
        )
        if (found := last_part(instance[field])) != params[option]
    ]


def plan_absent(
    existing: Mapping[str, Mapping[str, Any]], hosts: Sequence[str] | None = None
) -> list[Change]:
    """Return the deletions, of all or of some hosts.

    A machine that is stopping is among them: it may only be stopped.
    """
    return [
        Change(
            "instance",
            name,
            "delete",
            {
                "zone": last_part(instance["zone"]),
                "machine_type": last_part(instance["machineType"]),
            },
            {},
        )
        for name, instance in existing.items()
        if hosts is None or name in hosts
    ]
