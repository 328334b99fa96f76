# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API server and its controllers fill in: services, deployments, namespaces."""

from __future__ import annotations

from typing import Any

from sandbox.server.kube.errors import invalid
from sandbox.server.kube.kinds import KINDS, Kind, Object
from sandbox.server.kube.store import Store, now, suffix

SERVICES = ("", "services")
NODE_PORTS = range(30000, 32768)
CLUSTER_IPS = "34.118.224."


def fill(store: Store, kind: Kind, thing: Object, before: Object | None) -> None:
    """Fill in what is left out of an object, or refuse it. Raises KubeError."""
    if kind.table == SERVICES:
        _service(store, thing, before)
    elif kind.table == ("", "namespaces"):
        thing["status"] = {"phase": "Active"}
        thing.setdefault("spec", {"finalizers": ["kubernetes"]})
        name = thing["metadata"]["name"]
        thing["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    elif kind.table == ("apps", "deployments"):
        _deployment(thing)
    elif kind.plural == "customresourcedefinitions":
        _definition(thing)


def _service(store: Store, thing: Object, before: Object | None) -> None:
    spec, name = thing.setdefault("spec", {}), thing["metadata"]["name"]
    spec.setdefault("type", "ClusterIP")
    if spec.get("clusterIP") != "None":
        used = {it["spec"].get("clusterIP") for it in store.all(SERVICES)}
        old = before["spec"].get("clusterIP") if before else None
        free = (f"{CLUSTER_IPS}{number}" for number in range(2, 255))
        spec.setdefault("clusterIP", old or next(it for it in free if it not in used))
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    ports = spec.get("ports", [])
    if not ports and spec["clusterIP"] != "None":
        raise invalid("Service", name, [("spec.ports", "Required value")])
    for port in ports:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
        _node_ports(store, thing, before)
    else:
        for index, port in enumerate(ports):
            if port.pop("nodePort", None) and before is None:
                why = "Forbidden: may not be used when `type` is 'ClusterIP'"
                raise invalid("Service", name, [(f"spec.ports[{index}].nodePort", why)])
    thing.setdefault("status", {"loadBalancer": {}})


def _node_ports(store: Store, thing: Object, before: Object | None) -> None:
    name, ports = thing["metadata"]["name"], thing["spec"]["ports"]
    own = {
        port["port"]: port.get("nodePort")
        for port in (before or {}).get("spec", {}).get("ports", ())
    }
    uid = thing["metadata"]["uid"]
    taken = {
        port.get("nodePort")
        for other in store.all(SERVICES)
        if other["metadata"]["uid"] != uid
        for port in other["spec"].get("ports", ())
    }
    for index, port in enumerate(ports):
        field = f"spec.ports[{index}].nodePort"
        wanted = port.get("nodePort") or own.get(port["port"])
        if wanted is None:
            wanted = next(number for number in NODE_PORTS if number not in taken)
        if wanted not in NODE_PORTS:
            why = "Invalid value: {}: provided port is not in the valid range. The range of valid ports is 30000-32767"
            raise invalid("Service", name, [(field, why.format(wanted))])
        if wanted in taken:
            why = f"Invalid value: {wanted}: provided port is already allocated"
            raise invalid("Service", name, [(field, why)])
        port["nodePort"] = wanted
        taken.add(wanted)


def _deployment(thing: Object) -> None:
    spec, name = thing.get("spec", {}), thing["metadata"]["name"]
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    wanted = spec.get("selector", {}).get("matchLabels", {})
    if not wanted or any(labels.get(key) != value for key, value in wanted.items()):
        why = "Invalid value: `selector` does not match template `labels`"
        raise invalid("Deployment", name, [("spec.template.metadata.labels", why)])
    if not spec["template"].get("spec", {}).get("containers"):
        raise invalid("Deployment", name, [("spec.template.spec.containers", "Required value")])
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    rolling = {"maxSurge": "25%", "maxUnavailable": "25%"}
    spec.setdefault("strategy", {"type": "RollingUpdate", "rollingUpdate": rolling})
    template = spec["template"]["spec"]
    template.setdefault("restartPolicy", "Always")
    for container in template["containers"]:
        container.setdefault("imagePullPolicy", "Always")


def _definition(thing: Object) -> None:
    names = thing["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", f"{names['kind']}List")
    whole = f"{names['plural']}.{thing['spec']['group']}"
    if thing["metadata"]["name"] != whole:
        why = f"Invalid value: must be spec.names.plural+'.'+spec.group: {whole}"
        raise invalid(
            "CustomResourceDefinition", thing["metadata"]["name"], [("metadata.name", why)]
        )
    stored = [version["name"] for version in thing["spec"]["versions"] if version.get("storage")]
    conditions = [
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    old = thing.get("status", {})
    thing["status"] = {
        "acceptedNames": names,
        "conditions": old.get("conditions", conditions),
        "storedVersions": stored,
    }


def condition(kind: str, reason: str, message: str, true: bool = True) -> dict[str, Any]:
    """Return a condition of an object's status."""
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    }


def roll_out(store: Store, deployment: Object) -> None:
    """Make a deployment's pods run, and its status say so, as its controller does."""
    kind, pods = KINDS["apps", "deployments"], KINDS["", "pods"]
    metadata, spec = deployment["metadata"], deployment["spec"]
    owned = [
        pod
        for pod in store.all(pods.table, metadata["namespace"])
        if any(it["uid"] == metadata["uid"] for it in pod["metadata"].get("ownerReferences", ()))
    ]
    for pod in owned[spec["replicas"] :]:
        store.remove(pods, pod)
    for _unused in range(spec["replicas"] - len(owned)):
        template = spec["template"]
        made = store.create(
            pods,
            metadata["namespace"],
            {
                "metadata": {
                    **template["metadata"],
                    "name": f"{metadata['name']}-{suffix(9)}-{suffix()}",
                    "ownerReferences": [owner(kind, deployment)],
                },
                "spec": template["spec"],
            },
        )
        store.set_status(
            pods, made, {"phase": "Running", "conditions": ready_conditions(), **containers(made)}
        )
    ready = spec["replicas"]
    minimum = condition(
        "Available", "MinimumReplicasAvailable", "Deployment has minimum availability."
    )
    known = deployment.get("status", {}).get("conditions", [minimum])
    store.set_status(
        kind,
        deployment,
        {
            "observedGeneration": metadata["generation"],
            "replicas": ready,
            "updatedReplicas": ready,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "conditions": known,
        },
    )


def owner(kind: Kind, thing: Object) -> dict[str, Any]:
    """Return what an object that belongs to another says of it."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": thing["metadata"]["name"],
        "uid": thing["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def ready_conditions() -> list[dict[str, Any]]:
    """Return the conditions of a pod that runs."""
    words = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return [
        {"type": word, "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
        for word in words
    ]


def containers(pod: Object, running: bool = True) -> dict[str, Any]:
    """Return the part of a pod's status that tells of its containers."""
    state = (
        {"running": {"startedAt": now()}}
        if running
        else {"waiting": {"reason": "ContainerCreating"}}
    )
    return {
        "startTime": now(),
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": running,
                "started": running,
                "restartCount": 0,
                "state": state,
                "lastState": {},
            }
            for container in pod["spec"]["containers"]
        ],
    }
