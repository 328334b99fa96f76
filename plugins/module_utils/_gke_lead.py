# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lead of a MiniCluster is: its pod, that pod's node, the node's address, the port of the service.

The functions decide on the JSON of Kubernetes' API; `find` alone asks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

INDEX_LABELS = ("job-index", "batch.kubernetes.io/job-completion-index")
"""The Flux Operator's, and the one that Kubernetes gives to every pod of an indexed job."""
ADDRESS_TYPES = {"external": "ExternalIP", "internal": "InternalIP"}
RUNNING = "Running"
PAUSE = 1.0

Json = Mapping[str, Any]


class LeadError(BurstError):
    """There is no lead that a burst could reach; `passing` says that it may come by itself."""

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class Reads(Protocol):
    """What is asked of a cluster."""

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods with some labels."""

    def node(self, name: str) -> dict[str, Any]:
        """Return a node."""

    def service(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a service; None where there is none."""


def service_of(minicluster: str) -> str:
    """Return the name of the service that leads to a MiniCluster's lead."""
    return f"{minicluster}-lead"


def find(
    cluster: Reads, namespace: str, minicluster: str, service: str, address: str, timeout: float
) -> dict[str, Any]:
    """Return where the lead is; wait so many seconds for its pod to run. Raises LeadError, KubeError."""
    end = time.monotonic() + timeout
    while True:
        try:
            pod = lead_pod(cluster.pods(namespace, f"job-name={minicluster}"), minicluster)
            break
        except LeadError as error:
            if not error.passing or time.monotonic() > end:
                raise
        time.sleep(PAUSE)
    node = cluster.node(pod["spec"]["nodeName"])
    port = node_port(cluster.service(namespace, service), service, namespace, pod)
    return {
        "pod": pod["metadata"]["name"],
        "container": container(pod, minicluster),
        "namespace": namespace,
        "hostname": f"{minicluster}-0",
        "node": node["metadata"]["name"],
        "address": node_address(node, address),
        "port": port,
    }


def lead_pod(pods: Sequence[Json], minicluster: str) -> Json:
    """Return the pod with index 0, the newest that runs. Raises LeadError with the state of the newest other."""
    first = [pod for pod in pods if _index(pod) == "0"]
    newest = sorted(first, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))[::-1]
    # A pod that is told to stop is Running until it has.
    living = [pod for pod in newest if not pod["metadata"].get("deletionTimestamp")]
    running = [pod for pod in living if pod.get("status", {}).get("phase") == RUNNING]
    if running:
        return running[0]
    wanted = f"wanted a running pod with index 0 of MiniCluster {minicluster}"
    if not newest:
        others = f"no such pod among {len(pods)}" if pods else "no pod"
        raise LeadError(
            f"{wanted}, found {others}: create it by playbooks/lead_gke.yml; where it exists, see what the Flux "
            "Operator says (kubectl describe minicluster, kubectl logs of its controller).",
            passing=True,
        )
    pod = (living or newest)[0]
    name = pod["metadata"]["name"]
    raise LeadError(
        f"{wanted}, found {name} {state(pod)}: see kubectl describe pod {name}, and run again.",
        passing=True,
    )


def _index(pod: Json) -> str:
    labels = pod["metadata"].get("labels", {})
    return next((str(labels[name]) for name in INDEX_LABELS if name in labels), "")


def state(pod: Json) -> str:
    """Return the phase of a pod, and why it does not run, as far as Kubernetes says."""
    status = pod.get("status", {})
    said = [str(status[key]) for key in ("reason", "message") if status.get(key)]
    for each in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        stopped = each.get("state", {}).get("waiting") or each.get("state", {}).get("terminated")
        # A container that is over as it should says "Completed", and has no part in this.
        if stopped and stopped.get("exitCode") != 0:
            said += [str(stopped[key]) for key in ("reason", "message") if stopped.get(key)]
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            said += [str(condition[key]) for key in ("reason", "message") if condition.get(key)]
    phase = "Terminating" if pod["metadata"].get("deletionTimestamp") else status.get("phase")
    why = ": ".join(dict.fromkeys(" ".join(word.split()).rstrip(".") for word in said))
    return f"{phase} ({why})" if why else str(phase)


def container(pod: Json, minicluster: str) -> str:
    """Return the container that runs Flux: the Flux Operator calls it as the MiniCluster."""
    names = [str(each["name"]) for each in pod["spec"]["containers"]]
    return minicluster if minicluster in names else names[0]


def node_address(node: Json, kind: str) -> str:
    """Return a node's external or internal address. Raises LeadError."""
    addresses = node.get("status", {}).get("addresses", [])
    for each in addresses:
        if each["type"] == ADDRESS_TYPES[kind]:
            return str(each["address"])
    found = ", ".join(f"{each['type']} {each['address']}" for each in addresses) or "none"
    raise LeadError(
        f"wanted an {kind} address of node {node['metadata']['name']}, found {found}: "
        + (
            "a private cluster has none; where the machines reach its network, set lead_gke_address to internal, "
            "or let a load balancer lead to the service and set burst_lead_address to it."
            if kind == "external"
            else "see kubectl get nodes -o wide."
        )
    )


def node_port(service: Json | None, name: str, namespace: str, pod: Json) -> int:
    """Return the port at every node behind which a pod is. Raises LeadError."""
    if service is None:
        raise LeadError(
            f"wanted service {name} in namespace {namespace}, found none: create it by playbooks/lead_gke.yml."
        )
    spec = service["spec"]
    ports = [int(each["nodePort"]) for each in spec.get("ports", []) if each.get("nodePort")]
    if not ports:
        raise LeadError(
            f"wanted service {name} of type NodePort, found {spec.get('type', 'ClusterIP')} without a node's port: "
            "delete it and run playbooks/lead_gke.yml."
        )
    labels = pod["metadata"].get("labels", {})
    selector = spec.get("selector") or {}
    missing = [f"{key}={value}" for key, value in selector.items() if labels.get(key) != value]
    if missing or not selector:
        raise LeadError(
            f"wanted service {name} to lead to pod {pod['metadata']['name']}, found that it selects "
            f"{', '.join(missing) or 'nothing'}, which the pod has not: correct its selector."
        )
    return ports[0]
