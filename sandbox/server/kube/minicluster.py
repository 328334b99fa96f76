# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a MiniCluster's objects look like: its job, its headless service and its pods, as the Flux Operator makes them.

After github.com/flux-framework/flux-operator, controllers/flux, of 2026.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from sandbox.server.kube.controllers import owner
from sandbox.server.kube.kinds import KINDS, Kind, Object
from sandbox.server.kube.store import suffix

VIEW_IMAGE = "ghcr.io/converged-computing/flux-view-ubuntu:tag-noble"
MINICLUSTERS = ("flux-framework.org", "miniclusters")
LEAD_PORT = 8050


@dataclass(frozen=True)
class MiniCluster:
    """A MiniCluster as its machines need it: hostlist is the hosts that its brokers know, in the order of ranks."""

    namespace: str
    name: str
    size: int
    max_size: int
    hostlist: str
    service: str

    @property
    def domain(self) -> str:
        """What follows a pod's name in its full name."""
        return f"{self.service}.{self.namespace}.svc.cluster.local"


def read(thing: Object) -> MiniCluster:
    """Return what a MiniCluster object says, with the operator's defaults."""
    spec, name = thing["spec"], thing["metadata"]["name"]
    size = int(spec.get("size", 1))
    most = int(spec.get("maxSize") or size)
    hosts = spec.get("flux", {}).get("bursting", {}).get("hostlist", "")
    own = f"{name}-[0-{most - 1}]" if most > 1 else f"{name}-[0]"
    service = spec.get("network", {}).get("headlessName", "flux-service")
    return MiniCluster(thing["metadata"]["namespace"], name, size, most, hosts or own, service)


def job(kind: Kind, thing: Object) -> Object:
    """Return the indexed Job of a MiniCluster."""
    mini = read(thing)
    return {
        "metadata": {
            "name": mini.name,
            "labels": thing["spec"].get("jobLabels", {}),
            "ownerReferences": [owner(kind, thing)],
        },
        "spec": {
            "backoffLimit": 100,
            "completions": mini.size,
            "parallelism": mini.size,
            "completionMode": "Indexed",
            "activeDeadlineSeconds": thing["spec"].get("deadlineSeconds", 31500000),
            "template": {"metadata": {"labels": _labels(thing)}, "spec": _pod_spec(thing)},
        },
    }


def headless(kind: Kind, thing: Object) -> Object:
    """Return the service that gives a MiniCluster's pods their names."""
    mini = read(thing)
    return {
        "metadata": {"name": mini.service, "ownerReferences": [owner(kind, thing)]},
        "spec": {"clusterIP": "None", "selector": {"job-name": mini.name}},
    }


def pod(made: Object, index: int, node: str) -> Object:
    """Return the pod of an index of a MiniCluster's job."""
    name, uid = made["metadata"]["name"], made["metadata"]["uid"]
    template = copy.deepcopy(made["spec"]["template"])
    word = str(index)
    completion = "batch.kubernetes.io/job-completion-index"
    return {
        "metadata": {
            "name": f"{name}-{index}-{suffix()}",
            "labels": {
                **template["metadata"]["labels"],
                "job-name": name,
                "controller-uid": uid,
                "batch.kubernetes.io/job-name": name,
                "batch.kubernetes.io/controller-uid": uid,
                completion: word,
                "job-index": word,
            },
            "annotations": {completion: word},
            "ownerReferences": [owner(KINDS["batch", "jobs"], made)],
        },
        "spec": {**template["spec"], "hostname": f"{name}-{index}", "nodeName": node},
    }


def _labels(thing: Object) -> dict[str, str]:
    name = thing["metadata"]["name"]
    return {
        **thing["spec"].get("pod", {}).get("labels", {}),
        "app": "flux-operator",
        "app.kubernetes.io/name": name,
        "hpa-selector": name,
        "namespace": thing["metadata"]["namespace"],
    }


def _pod_spec(thing: Object) -> Object:
    mini, spec = read(thing), thing["spec"]
    config = f"{mini.name}-entrypoint"
    mounts: list[Object] = [
        {"name": "flux-operator-home", "mountPath": "/home/flux-operator"},
        {"name": "flux-view", "mountPath": "/mnt/flux"},
        {"name": config, "mountPath": "/flux_operator/", "readOnly": True},
    ]
    view = {
        "name": "flux-view",
        "image": spec.get("flux", {}).get("container", {}).get("image", VIEW_IMAGE),
        "command": ["/bin/bash", "/flux_operator/flux-init.sh"],
        "volumeMounts": mounts,
    }
    volumes = [
        *({"name": name, "emptyDir": {}} for name in ("flux-operator-home", "flux-view")),
        {"name": config, "configMap": {"name": config}},
    ]
    containers = [
        _container(mini, index, container, len(spec["containers"]), mounts)
        for index, container in enumerate(spec["containers"])
    ]
    return {
        "subdomain": mini.service,
        "setHostnameAsFQDN": False,
        "restartPolicy": "OnFailure",
        "schedulerName": "default-scheduler",
        "serviceAccountName": spec.get("pod", {}).get("serviceAccountName", "default"),
        "initContainers": [view],
        "containers": containers,
        "volumes": volumes,
    }


def _container(
    mini: MiniCluster, index: int, container: Object, count: int, mounts: list[Object]
) -> Object:
    runs = container.get("runFlux") or count == 1
    name = mini.name if runs else container.get("name", f"container-{index}")
    environment = container.get("environment", {})
    command = {"command": ["/bin/bash", f"/flux_operator/wait-{index}.sh"]} if runs else {}
    return {
        "name": name,
        "image": container["image"],
        **command,
        "workingDir": container.get("workingDir", ""),
        "env": [{"name": key, "value": value} for key, value in sorted(environment.items())],
        "resources": container.get("resources", {}),
        "volumeMounts": mounts,
        "stdin": True,
        "tty": True,
    }
