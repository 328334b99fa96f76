# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects as the tables that `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from sandbox.server.kube.kinds import Kind, Object

Column = tuple[str, int, Callable[[Object], Any]]
"""Name, priority (1: with -o wide only) and what its cells hold."""


def age(thing: Object) -> str:
    """Return how old an object is, as kubectl words it."""
    born = datetime.fromisoformat(thing["metadata"]["creationTimestamp"])
    seconds = int((datetime.now(UTC) - born).total_seconds())
    if seconds < 120:
        return f"{seconds}s"
    return f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h"


def _ready(pod: Object) -> str:
    states = pod.get("status", {}).get("containerStatuses", [])
    return f"{sum(it['ready'] for it in states)}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Object) -> str:
    for state in pod.get("status", {}).get("containerStatuses", []):
        if "waiting" in state["state"]:
            return str(state["state"]["waiting"]["reason"])
    return str(pod.get("status", {}).get("phase", "Pending"))


def _address(kind: str) -> Callable[[Object], str]:
    def found(node: Object) -> str:
        every = node.get("status", {}).get("addresses", [])
        return next((it["address"] for it in every if it["type"] == kind), "<none>")

    return found


def _info(name: str) -> Callable[[Object], str]:
    return lambda node: str(node.get("status", {}).get("nodeInfo", {}).get(name, "<unknown>"))


def _node_status(node: Object) -> str:
    found = [
        it["status"] for it in node.get("status", {}).get("conditions", []) if it["type"] == "Ready"
    ]
    return "Ready" if found == ["True"] else "NotReady"


def _ports(service: Object) -> str:
    words = []
    for port in service["spec"].get("ports", []):
        node = f":{port['nodePort']}" if "nodePort" in port else ""
        words.append(f"{port['port']}{node}/{port['protocol']}")
    return ",".join(words) or "<none>"


def _pairs(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _count(name: str) -> Callable[[Object], int]:
    return lambda thing: int(thing.get("status", {}).get(name, 0))


NAME: Column = ("Name", 0, lambda thing: thing["metadata"]["name"])
AGE: Column = ("Age", 0, age)
COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "pods"): (
        NAME,
        ("Ready", 0, _ready),
        ("Status", 0, _pod_status),
        ("Restarts", 0, lambda pod: "0"),
        AGE,
        ("IP", 1, lambda pod: pod.get("status", {}).get("podIP", "<none>")),
        ("Node", 1, lambda pod: pod["spec"].get("nodeName", "<none>")),
        ("Nominated Node", 1, lambda pod: "<none>"),
        ("Readiness Gates", 1, lambda pod: "<none>"),
    ),
    ("", "nodes"): (
        NAME,
        ("Status", 0, _node_status),
        ("Roles", 0, lambda node: "<none>"),
        AGE,
        ("Version", 0, _info("kubeletVersion")),
        ("Internal-IP", 1, _address("InternalIP")),
        ("External-IP", 1, _address("ExternalIP")),
        ("OS-Image", 1, _info("osImage")),
        ("Kernel-Version", 1, _info("kernelVersion")),
        ("Container-Runtime", 1, _info("containerRuntimeVersion")),
    ),
    ("", "services"): (
        NAME,
        ("Type", 0, lambda service: service["spec"]["type"]),
        ("Cluster-IP", 0, lambda service: service["spec"].get("clusterIP", "<none>")),
        ("External-IP", 0, lambda service: "<none>"),
        ("Port(s)", 0, _ports),
        AGE,
        ("Selector", 1, lambda service: _pairs(service["spec"].get("selector"))),
    ),
    ("", "namespaces"): (NAME, ("Status", 0, lambda thing: thing["status"]["phase"]), AGE),
    ("apps", "deployments"): (
        NAME,
        ("Ready", 0, lambda it: f"{_count('readyReplicas')(it)}/{it['spec']['replicas']}"),
        ("Up-to-date", 0, _count("updatedReplicas")),
        ("Available", 0, _count("availableReplicas")),
        AGE,
    ),
    ("batch", "jobs"): (
        NAME,
        ("Completions", 0, lambda job: f"{_count('succeeded')(job)}/{job['spec']['completions']}"),
        AGE,
    ),
}


def _defined_columns(kind: Kind) -> Iterable[Column]:
    def at(path: str) -> Callable[[Object], Any]:
        def found(thing: Object) -> Any:
            value: Any = thing
            for word in path.strip(".").split("."):
                value = value.get(word) if isinstance(value, dict) else None
            return "" if value is None else value

        return found

    yield NAME
    for column in kind.columns:
        date = column["type"] == "date"
        yield column["name"], column.get("priority", 0), age if date else at(column["jsonPath"])
    if not kind.columns:
        yield AGE


def table(kind: Kind, things: list[Object], version: int, include: str = "Metadata") -> Object:
    """Return objects as a Table; include is what of each object is in its row."""
    columns = COLUMNS.get(kind.table) or (
        tuple(_defined_columns(kind)) if kind.custom else (NAME, AGE)
    )
    rows = []
    for thing in things:
        row: Object = {"cells": [cell(thing) for _name, _priority, cell in columns]}
        if include == "Object":
            row["object"] = thing
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": thing["metadata"],
            }
        rows.append(row)
    definitions = [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": priority,
        }
        for name, priority, _unused in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": str(version)},
        "columnDefinitions": definitions,
        "rows": rows,
    }
