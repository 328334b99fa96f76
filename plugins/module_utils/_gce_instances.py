# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a burst: bodies as in Google's REST reference, and what has to change. Nothing here asks anybody."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_network import description
from ansible_collections.flux.burst.plugins.module_utils._gce_place import Place
from ansible_collections.flux.burst.plugins.module_utils._gce_session import LABEL, last_part
from ansible_collections.flux.burst.plugins.module_utils._spec import duration, one_region

NAMESPACE = uuid.UUID("6f3a2f0e-58f5-4d57-9f19-2f1f8c6f6a11")
ALIVE = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING")
DEAD = ("PENDING_STOP", "STOPPING", "STOPPED", "TERMINATED")
# What is read of a machine that is managed here.
FIELDS = (
    "id,name,zone,status,creationTimestamp,machineType,labels,labelFingerprint,metadata,tags(items),"
    "networkInterfaces(networkIP,subnetwork,accessConfigs/natIP),scheduling,disks(diskSizeGb),serviceAccounts(email),"
    "guestAccelerators,minCpuPlatform"
)
PREEMPTED = "compute.instances.preempted"

Instances = Mapping[str, Mapping[str, Any]]
"""REST resources with FIELDS, by name."""


def request_id(burst: str, zone: str, body: Mapping[str, Any], attempt: int) -> str:
    """Return the requestId of a creation: the same for the same request, so a repeat makes no second set of machines.

    Google remembers an id for an hour and answers with the operation that it began. For that hour, an old operation
    that failed (no capacity), or whose machines were deleted since, would be all that a new run gets; who finds one
    that is over counts the attempt up.
    """
    parts = [burst, zone, json.dumps(body, sort_keys=True), str(attempt)]
    return str(uuid.uuid5(NAMESPACE, "/".join(parts)))


def labels(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels that every machine of a burst carries."""
    return {**params["labels"], LABEL: params["burst"]}


def metadata(params: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata that every machine of a burst has. It never holds a secret."""
    made = {"block-project-ssh-keys": "TRUE", "enable-guest-attributes": "TRUE"}
    if params["os_login"]:
        return {**made, "enable-oslogin": "TRUE"}
    keys = f"{params['ssh_user']}:{params['ssh_public_key'].strip()}"
    return {**made, "enable-oslogin": "FALSE", "ssh-keys": keys}


def placement_name(burst: str) -> str:
    """Return the name of the burst's compact placement."""
    return f"{burst}-placement"


def placement_body(burst: str) -> dict[str, Any]:
    """Return the body of resourcePolicies.insert for machines that shall be near one another."""
    return {
        "name": placement_name(burst),
        "description": description(burst),
        "groupPlacementPolicy": {"collocation": "COLLOCATED"},
    }


def placement(burst: str, region: str, action: Literal["create", "delete"]) -> Change:
    """Return the creation or the deletion of a compact placement."""
    shown = {"region": region, "collocation": "COLLOCATED"}
    before, after = ({}, shown) if action == "create" else (shown, {})
    return Change("policy", placement_name(burst), action, before, after)


def subnetwork(params: Mapping[str, Any]) -> str:
    """Return the partial URL of the machines' subnetwork; by default the one that gce_network makes."""
    own = f"regions/{one_region(params['zones'])}/subnetworks/{params['burst']}-subnet"
    return params["subnetwork"] or f"projects/{params['project']}/{own}"


def bulk_body(params: Mapping[str, Any], hosts: Sequence[str], place: Place) -> dict[str, Any]:
    """Return the body of instances.bulkInsert: without minCount, it is all of them or none."""
    return {
        "count": str(len(hosts)),
        **({"minCount": "1"} if params["best_effort"] else {}),
        "perInstanceProperties": {host: {} for host in hosts},
        "instanceProperties": {
            "machineType": place.machine_type,
            "disks": [_disk(params)],
            "networkInterfaces": [_nic(params)],
            "labels": labels(params),
            "metadata": {"items": _items(metadata(params))},
            "scheduling": _scheduling(params, place),
            **_optional(params),
        },
    }


def _nic(params: Mapping[str, Any]) -> dict[str, Any]:
    public = {"accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "external-nat"}]}
    return {"subnetwork": subnetwork(params), **(public if params["public_address"] else {})}


def _disk(params: Mapping[str, Any]) -> dict[str, Any]:
    made = {
        "sourceImage": params["image"],
        "diskSizeGb": str(params["disk_size_gb"]),
        "diskType": params["disk_type"],
        # One that is left behind is found by them.
        "labels": labels(params),
    }
    return {"boot": True, "autoDelete": True, "initializeParams": made}


def _scheduling(params: Mapping[str, Any], place: Place) -> dict[str, Any]:
    stays = not (params["spot"] or place.has_gpus or params["compact"])
    return {
        "maxRunDuration": {"seconds": str(fuse(params["max_run_duration"]))},
        "instanceTerminationAction": "DELETE",
        **({"provisioningModel": "SPOT"} if params["spot"] else {}),
        # Machines that Compute Engine cannot move while they run.
        **({} if stays else {"onHostMaintenance": "TERMINATE", "automaticRestart": False}),
    }


def _optional(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that are there only where they are asked for."""
    made: dict[str, Any] = {}
    if params["tags"]:
        made["tags"] = {"items": sorted(params["tags"])}
    if params["service_account"]:
        made["serviceAccounts"] = [
            {"email": params["service_account"], "scopes": params["service_account_scopes"]}
        ]
    if params["accelerator_type"]:
        made["guestAccelerators"] = [
            {
                "acceleratorType": params["accelerator_type"],
                "acceleratorCount": params["accelerator_count"],
            }
        ]
    if params["min_cpu_platform"]:
        made["minCpuPlatform"] = params["min_cpu_platform"]
    if params["compact"]:
        made["resourcePolicies"] = [placement_name(params["burst"])]
    if params["shielded"]:
        made["shieldedInstanceConfig"] = {
            "enableSecureBoot": True,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        }
    if params["reservation"] == "none":
        made["reservationAffinity"] = {"consumeReservationType": "NO_RESERVATION"}
    elif params["reservation"] != "any":
        made["reservationAffinity"] = {
            "consumeReservationType": "SPECIFIC_RESERVATION",
            "key": "compute.googleapis.com/reservation-name",
            "values": [params["reservation"]],
        }
    return made


def fuse(text: str) -> int:
    """Return a machine's longest life in seconds. Raises SpecError."""
    return duration("max_run_duration", text)


def _items(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in sorted(pairs.items())]


def found_metadata(instance: Mapping[str, Any]) -> dict[str, str]:
    """Return an instance's metadata as a mapping."""
    return {item["key"]: item.get("value", "") for item in instance["metadata"].get("items", [])}


def plan_present(params: Mapping[str, Any], existing: Instances) -> list[Stage]:
    """Return what has to be deleted because it runs no more, and then created or changed.

    Raises GceError for machines in a state that somebody put them into, such as SUSPENDED.
    """
    fuse(params["max_run_duration"])
    wanted = [(host, existing[host]) for host in params["hosts"] if host in existing]
    odd = [f"{name} {it['status']}" for name, it in wanted if it["status"] not in ALIVE + DEAD]
    if odd:
        raise GceError(
            f"wanted machines that run, found {', '.join(odd)}: let them run, or run the teardown playbook."
        )
    dead = {name: instance for name, instance in wanted if instance["status"] in DEAD}
    changes = []
    for host in params["hosts"]:
        if host in existing and host not in dead:
            change = _change(params, host, existing[host])
            changes += [change] if change else []
        else:
            changes.append(_creation(params, host))
    return [plan_absent(dead), changes]


def _creation(params: Mapping[str, Any], host: str) -> Change:
    after = {
        "zones": params["zones"],
        "machine_types": params["machine_types"],
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


def drift(params: Mapping[str, Any], existing: Instances) -> list[dict[str, Any]]:
    """Return what differs and cannot be changed while a machine runs: rows of name, field, wanted and found.

    One of several machine types or zones is as wanted as the first. The image is not among it: an instance does not
    tell from which one its disk was made.
    """
    return [
        {"name": host, "field": field, "wanted": wanted, "found": found}
        for host in params["hosts"]
        if host in existing and existing[host]["status"] in ALIVE
        for field, wanted, found in _fixed(params, existing[host])
        if found != wanted and not (isinstance(wanted, list) and found in wanted)
    ]


def _boot_gb(instance: Mapping[str, Any]) -> int:
    disks = instance.get("disks") or [{}]
    return int(disks[0].get("diskSizeGb", 0))


def _fixed(
    params: Mapping[str, Any], instance: Mapping[str, Any]
) -> Iterable[tuple[str, Any, Any]]:
    scheduling = instance.get("scheduling", {})
    accounts = instance.get("serviceAccounts") or [{}]
    accelerators = [
        f"{row['acceleratorCount']} {last_part(row['acceleratorType'])}"
        for row in instance.get("guestAccelerators", ())
    ]
    added = params["accelerator_count"] if params["accelerator_type"] else 0
    yield "machine_types", params["machine_types"], last_part(instance["machineType"])
    yield "zones", params["zones"], last_part(instance["zone"])
    nic = (instance.get("networkInterfaces") or [{}])[0]
    yield "public_address", params["public_address"], bool(nic.get("accessConfigs"))
    yield "spot", params["spot"], scheduling.get("provisioningModel") == "SPOT"
    yield (
        "max_run_duration",
        f"{fuse(params['max_run_duration'])}s",
        f"{scheduling.get('maxRunDuration', {}).get('seconds', 0)}s",
    )
    yield "disk_size_gb", params["disk_size_gb"], _boot_gb(instance)
    yield "service_account", params["service_account"] or "", accounts[0].get("email", "")
    tags = sorted(instance.get("tags", {}).get("items", ()))
    yield "tags", " ".join(sorted(params["tags"])), " ".join(tags)
    yield "min_cpu_platform", params["min_cpu_platform"] or "", instance.get("minCpuPlatform", "")
    yield (
        "accelerator_type",
        f"{added} {params['accelerator_type']}" if added else "",
        ", ".join(accelerators),
    )
    yield (
        "subnetwork",
        last_part(subnetwork(params)),
        last_part(nic.get("subnetwork", "")),
    )


def drift_diff(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of drift as ansible-playbook --diff prints it."""
    title = f"instance {row['name']}, which keeps it until a teardown"
    return {
        "before_header": title,
        "after_header": title,
        "before": {row["field"]: row["found"]},
        "after": {row["field"]: row["wanted"]},
    }


def losses(
    params: Mapping[str, Any], existing: Instances, preemptions: Iterable[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Return which machines were there and are no more, and why: rows of name and why.

    preemptions are the operations of that kind. A name that is missing counts as lost where others of the set exist
    and it was preempted since the first of these began; without that it may never have been.
    """
    present = {host: existing[host] for host in params["hosts"] if host in existing}
    began = min((it["creationTimestamp"] for it in present.values()), default="")
    times = {last_part(row["targetLink"]): row["insertTime"] for row in preemptions}
    found = []
    for host in params["hosts"]:
        instance = present.get(host)
        when = times.get(host, "")
        if instance is None and present and _since(when, began):
            found.append({"name": host, "why": f"was preempted at {when} and deleted"})
        elif instance is not None and instance["status"] in DEAD:
            preempted = _since(when, instance["creationTimestamp"])
            why = f"was preempted at {when}" if preempted else "died or was stopped"
            found.append({"name": host, "why": f"{why}, and is {instance['status']}"})
    return found


def _since(when: str, began: str) -> bool:
    """Return whether one RFC 3339 time is after another; "" is never."""
    if not when:
        return False
    return datetime.fromisoformat(when) >= datetime.fromisoformat(began)


def plan_absent(existing: Instances, hosts: Sequence[str] | None = None) -> list[Change]:
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
