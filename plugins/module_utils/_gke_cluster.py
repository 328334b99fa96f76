# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GKE cluster: its body as in Google's REST reference, and what has to change. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._changes import Change
from ansible_collections.flux.burst.plugins.module_utils._gce_session import last_part

POOL = "default-pool"
"""What Kubernetes Engine calls the node pool of a cluster that is created without naming one."""
MUTABLE = ("nodes", "network_policy", "intranode_visibility", "workload_pool", "labels")
FIXED = ("machine_type", "tags", "network", "subnetwork", "service_account")

Settings = dict[str, Any]
"""What the options say of a cluster, and what a cluster has of it: MUTABLE and FIXED by name."""


def workload_pool(project: str) -> str:
    """Return the workload identity pool that every project has."""
    return f"{project}.svc.id.goog"


def wanted(params: Mapping[str, Any]) -> Settings:
    """Return what a module's options say of a cluster; None is what they leave to Kubernetes Engine."""
    found = {name: params.get(name) for name in (*MUTABLE, *FIXED)}
    found["workload_pool"] = workload_pool(params["project"]) if params["workload_identity"] else ""
    found["tags"] = sorted(params["tags"])
    return found


def body(name: str, settings: Settings) -> dict[str, Any]:
    """Return the resource to create."""
    node: dict[str, Any] = {
        "machineType": settings["machine_type"],
        "tags": settings["tags"],
        "oauthScopes": ["https://www.googleapis.com/auth/cloud-platform"],
    }
    if settings["service_account"]:
        node["serviceAccount"] = settings["service_account"]
    made: dict[str, Any] = {
        "name": name,
        "initialNodeCount": settings["nodes"],
        "nodeConfig": node,
        "networkConfig": {"enableIntraNodeVisibility": settings["intranode_visibility"]},
        # Addresses of pods that the network knows; without them the nodes' routes are used up by the pods.
        "ipAllocationPolicy": {"useIpAliases": True},
        "resourceLabels": settings["labels"] or {},
    }
    if settings["network_policy"]:
        made["networkPolicy"] = {"enabled": True, "provider": "CALICO"}
        made["addonsConfig"] = {"networkPolicyConfig": {"disabled": False}}
    if settings["workload_pool"]:
        made["workloadIdentityConfig"] = {"workloadPool": settings["workload_pool"]}
        node["workloadMetadataConfig"] = {"mode": "GKE_METADATA"}
    for name in ("network", "subnetwork"):
        if settings[name]:
            made[name] = settings[name]
    return made


def found(cluster: Mapping[str, Any]) -> Settings:
    """Return what a cluster has, from its REST resource."""
    pool = _pool(cluster)
    node = pool.get("config") or cluster.get("nodeConfig") or {}
    return {
        "nodes": pool.get("initialNodeCount", cluster.get("currentNodeCount", 0)),
        "network_policy": bool(cluster.get("networkPolicy", {}).get("enabled")),
        "intranode_visibility": bool(
            cluster.get("networkConfig", {}).get("enableIntraNodeVisibility")
        ),
        "workload_pool": cluster.get("workloadIdentityConfig", {}).get("workloadPool", ""),
        "labels": dict(cluster.get("resourceLabels", {})),
        "machine_type": node.get("machineType", ""),
        "tags": sorted(node.get("tags", [])),
        "network": cluster.get("network", ""),
        "subnetwork": cluster.get("subnetwork", ""),
        "service_account": node.get("serviceAccount", ""),
    }


def _pool(cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    pools = cluster.get("nodePools") or [{}]
    return next((pool for pool in pools if pool.get("name") == POOL), pools[0])


def differing(want: Settings, have: Settings, names: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """Return what is not as wanted: by name, what is there and what is wanted."""
    return {
        name: (have[name], want[name])
        for name in names
        if want[name] is not None and _plain(name, have[name]) != _plain(name, want[name])
    }


def _plain(name: str, value: Any) -> Any:
    return last_part(str(value)) if name in ("network", "subnetwork") else value


def plan(name: str, want: Settings, cluster: Mapping[str, Any] | None) -> list[Change]:
    """Return what has to be done so that a cluster is as wanted; cluster is its REST resource, or None."""
    if cluster is None:
        return [Change("cluster", name, "create", {}, body(name, want))]
    changes = differing(want, found(cluster), MUTABLE)
    if not changes:
        return []
    before = {key: pair[0] for key, pair in changes.items()}
    after = {key: pair[1] for key, pair in changes.items()}
    return [Change("cluster", name, "update", before, after)]


def requests(change: Change, cluster: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the requests that make an update, in their order: verb, what follows the cluster's path, and body.

    Kubernetes Engine takes one change at a time.
    """
    after = change.after
    made: list[tuple[str, str, dict[str, Any]]] = []
    if "workload_pool" in after:
        pool = {"workloadPool": after["workload_pool"]}
        made.append(("PUT", "", {"update": {"desiredWorkloadIdentityConfig": pool}}))
    if "intranode_visibility" in after:
        config = {"enabled": after["intranode_visibility"]}
        made.append(("PUT", "", {"update": {"desiredIntraNodeVisibilityConfig": config}}))
    if "network_policy" in after:
        on = after["network_policy"]
        addon = {"networkPolicyConfig": {"disabled": not on}}
        steps = [
            ("POST", ":setAddons", {"addonsConfig": addon}),
            ("POST", ":setNetworkPolicy", {"networkPolicy": {"enabled": on, "provider": "CALICO"}}),
        ]
        # The addon is there before what needs it, and gone after.
        made += steps if on else steps[::-1]
    if "labels" in after:
        labels = {
            "resourceLabels": after["labels"],
            "labelFingerprint": cluster.get("labelFingerprint", ""),
        }
        made.append(("POST", ":setResourceLabels", labels))
    if "nodes" in after:
        pool_name = _pool(cluster).get("name", POOL)
        made.append(("POST", f"/nodePools/{pool_name}:setSize", {"nodeCount": after["nodes"]}))
    return made
