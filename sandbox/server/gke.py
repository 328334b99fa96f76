# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Container API's clusters look like, their nodes, and what changes of them do."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from sandbox.server import catalog
from sandbox.server.errors import ApiError, required
from sandbox.server.kube import discovery
from sandbox.server.kube.controllers import condition
from sandbox.server.state import Key, Resource, check_labels

BASE = "https://container.googleapis.com/v1"
NODE_CONFIG = {
    "machineType": "e2-medium",
    "diskSizeGb": 100,
    "diskType": "pd-balanced",
    "imageType": "COS_CONTAINERD",
    "serviceAccount": "default",
    "metadata": {"disable-legacy-endpoints": "true"},
}
IDS = ("bootID", "machineID", "systemUUID")

Place = tuple[str, str, str]
"""Project, location and name of a cluster or of an operation."""


def now() -> str:
    """Return the time as GKE writes it."""
    return datetime.now(UTC).isoformat()


def scope(location: str) -> str:
    """Return the kind of place that a location is."""
    return "zones" if location in catalog.ZONES else "regions"


def resource(place: Place, wanted: Resource, network: Key) -> Resource:
    """Return a new cluster as wanted, with what GKE fills in. Raises ApiError."""
    project, location, name = place
    zones = [location] if location in catalog.ZONES else list(catalog.REGIONS[location][:3])
    region = catalog.ZONES[zones[0]]
    link = f"{BASE}/projects/{project}/{scope(location)}/{location}/clusters/{name}"
    subnetwork = wanted.get("subnetwork", network.name).rpartition("/")[2]
    count = wanted.get("initialNodeCount", 0)
    pools = wanted.get("nodePools") or [
        {
            "name": "default-pool",
            "initialNodeCount": count,
            "config": wanted.get("nodeConfig", {}),
        }
    ]
    shown = [
        {
            **pool,
            "config": {**NODE_CONFIG, **pool.get("config", {})},
            "locations": zones,
            "selfLink": f"{link}/nodePools/{pool['name']}",
            "status": "PROVISIONING",
            "version": discovery.GKE.removeprefix("v"),
        }
        for pool in pools
    ]
    every = sum(pool.get("initialNodeCount", 0) * len(zones) for pool in pools)
    return {
        **wanted,
        "resourceLabels": check_labels(wanted.get("resourceLabels"), "cluster.resource_labels"),
        "name": name,
        "id": uuid.uuid4().hex,
        "selfLink": link,
        "location": location,
        "zone": location,
        "locations": zones,
        "network": network.name,
        "subnetwork": subnetwork,
        "networkConfig": {
            **wanted.get("networkConfig", {}),
            "network": network.path,
            "subnetwork": f"projects/{project}/regions/{region}/subnetworks/{subnetwork}",
        },
        "nodePools": shown,
        "nodeConfig": shown[0]["config"],
        "initialNodeCount": pools[0].get("initialNodeCount", 0),
        "currentNodeCount": every,
        "currentMasterVersion": discovery.GKE.removeprefix("v"),
        "currentNodeVersion": discovery.GKE.removeprefix("v"),
        "initialClusterVersion": discovery.GKE.removeprefix("v"),
        "clusterIpv4Cidr": "10.116.0.0/14",
        "servicesIpv4Cidr": "34.118.224.0/20",
        "createTime": now(),
        "status": "PROVISIONING",
        "labelFingerprint": uuid.uuid4().hex[:8],
    }


def node(name: str, zone: str, pool: Resource, project: str) -> Resource:
    """Return a node of a pool."""
    region = catalog.ZONES[zone]
    return {
        "metadata": {
            "name": name,
            "labels": {
                **pool["config"].get("labels", {}),
                "beta.kubernetes.io/arch": "amd64",
                "cloud.google.com/gke-nodepool": pool["name"],
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": pool["config"]["machineType"],
                "topology.kubernetes.io/region": region,
                "topology.kubernetes.io/zone": zone,
            },
        },
        "spec": {"providerID": f"gce://{project}/{zone}/{name}", "podCIDR": "10.116.0.0/24"},
    }


def node_status(name: str, inner: str, outer: str) -> Resource:
    """Return a node\'s status, with its addresses."""
    return {
        "addresses": [
            {"type": "InternalIP", "address": inner},
            {"type": "ExternalIP", "address": outer},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [condition("Ready", "KubeletReady", "kubelet is posting ready status")],
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
        "allocatable": {"cpu": "3920m", "memory": "13Gi", "pods": "110"},
        "nodeInfo": {
            "architecture": "amd64",
            "operatingSystem": "linux",
            "osImage": "Container-Optimized OS from Google",
            "kernelVersion": "6.6.0+",
            "containerRuntimeVersion": "containerd://2.0.0",
            "kubeletVersion": discovery.GKE,
            "kubeProxyVersion": discovery.GKE,
            **{word: str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{word}.{name}")) for word in IDS},
        },
    }


def set_labels(cluster: Resource, body: Resource) -> None:
    """Replace a cluster's labels. Raises ApiError."""
    if body.get("labelFingerprint") != cluster["labelFingerprint"]:
        why = "Labels could not be set due to fingerprint mismatch."
        raise ApiError(400, "failedPrecondition", why)
    labels = check_labels(body.get("resourceLabels"), "resource_labels")
    cluster.update(resourceLabels=labels, labelFingerprint=uuid.uuid4().hex[:8])


def set_network_policy(cluster: Resource, body: Resource) -> None:
    """Switch network policy on or off; its addon has to be there. Raises ApiError."""
    wanted = body.get("networkPolicy")
    if not wanted:
        raise required("network_policy")
    addon = cluster.get("addonsConfig", {}).get("networkPolicyConfig", {})
    if wanted.get("enabled") and addon.get("disabled", True):
        why = "Network Policy Addon must be enabled before enabling Network Policy Enforcement."
        raise ApiError(400, "failedPrecondition", why)
    cluster["networkPolicy"] = wanted


def set_addons(cluster: Resource, body: Resource) -> None:
    """Change the addons that the body names."""
    cluster["addonsConfig"] = {**cluster.get("addonsConfig", {}), **body.get("addonsConfig", {})}


def update(cluster: Resource, body: Resource) -> None:
    """Make the one change that a ClusterUpdate names. Raises ApiError."""
    wanted = body.get("update") or {}
    if len(wanted) != 1:
        raise ApiError(400, "badRequest", "Must specify exactly one update.")
    if "desiredWorkloadIdentityConfig" in wanted:
        cluster["workloadIdentityConfig"] = wanted["desiredWorkloadIdentityConfig"]
    elif "desiredIntraNodeVisibilityConfig" in wanted:
        on = bool(wanted["desiredIntraNodeVisibilityConfig"].get("enabled"))
        cluster["networkConfig"]["enableIntraNodeVisibility"] = on
    else:
        raise ApiError(501, "notImplemented", f"The sandbox does not serve {next(iter(wanted))}")
