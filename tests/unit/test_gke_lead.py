# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which pod is the lead, why there is none, and where it is reached."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gke_lead
from ansible_collections.flux.burst.plugins.module_utils._gke_lead import (
    LeadError,
    container,
    find,
    lead_pod,
    node_address,
    node_port,
    state,
)

SERVICE = {
    "spec": {
        "type": "NodePort",
        "selector": {"job-name": "flux-sample", "job-index": "0"},
        "ports": [{"port": 8050, "nodePort": 30093}],
    }
}
NODE = {
    "metadata": {"name": "gke-1"},
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "10.128.0.83"},
            {"type": "ExternalIP", "address": "34.171.113.254"},
        ]
    },
}


def pod(name: str, index: str = "0", phase: str = "Running", **more: Any) -> dict[str, Any]:
    """A pod of MiniCluster flux-sample; more goes into its metadata or, as `status`, into that."""
    status = {"phase": phase, **more.pop("status", {})}
    labels = {"job-name": "flux-sample", "job-index": index}
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "creationTimestamp": "2026-11-26T10:00:00Z",
            **more,
        },
        "spec": {"nodeName": "gke-1", "containers": [{"name": "flux-sample"}]},
        "status": status,
    }


class Cluster:
    """A cluster whose pods are one list after the other."""

    def __init__(self, *pods: list[dict[str, Any]], node: Any = None, service: Any = None) -> None:
        self.answers, self._node, self._service = list(pods), node or NODE, service or SERVICE
        self.asked: list[str] = []

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        self.asked.append(f"{namespace} {selector}")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def node(self, name: str) -> Any:
        assert name == self._node["metadata"]["name"]
        return self._node

    def service(self, namespace: str, name: str) -> Any:
        assert (namespace, name) == ("hpc", "flux-sample-lead")
        return self._service


def found(cluster: Cluster, address: str = "external", timeout: float = 0) -> dict[str, Any]:
    return find(cluster, "hpc", "flux-sample", "flux-sample-lead", address, timeout)


def test_the_lead_is_its_pod_with_its_node_s_address_and_the_service_s_port() -> None:
    cluster = Cluster([pod("flux-sample-1-x", "1"), pod("flux-sample-0-x")])
    assert found(cluster) == {
        "pod": "flux-sample-0-x",
        "container": "flux-sample",
        "namespace": "hpc",
        "hostname": "flux-sample-0",
        "node": "gke-1",
        "address": "34.171.113.254",
        "port": 30093,
    }
    assert cluster.asked == ["hpc job-name=flux-sample"]
    assert found(cluster, "internal")["address"] == "10.128.0.83"


def test_a_pod_that_moved_is_followed_and_the_newest_that_runs_is_taken() -> None:
    old = pod("flux-sample-0-old", deletionTimestamp="2026-11-26T11:00:00Z")
    new = pod("flux-sample-0-new", creationTimestamp="2026-11-26T11:00:01Z")
    older = pod("flux-sample-0-older", creationTimestamp="2026-11-25T11:00:01Z")
    pending = pod("flux-sample-0-p", phase="Pending", creationTimestamp="2026-11-26T12:00:00Z")
    assert (
        lead_pod([older, old, new, pending], "flux-sample")["metadata"]["name"]
        == new["metadata"]["name"]
    )
    assert lead_pod([older, new][::-1], "flux-sample") is new
    with pytest.raises(LeadError, match=r"found flux-sample-0-old Terminating: see"):
        lead_pod([old], "flux-sample")


def test_the_index_is_also_read_where_only_kubernetes_has_set_it() -> None:
    bare = pod("flux-sample-0-x")
    bare["metadata"]["labels"] = {"batch.kubernetes.io/job-completion-index": "0"}
    assert lead_pod([bare], "flux-sample") is bare


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "Pending"}, "Pending"),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/4 nodes are available:\n4 Insufficient cpu.",
                    },
                    {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
                ],
            },
            "Pending (Unschedulable: 0/4 nodes are available: 4 Insufficient cpu)",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
                ],
                "containerStatuses": [
                    {
                        "state": {
                            "waiting": {"reason": "ImagePullBackOff", "message": "no such image"}
                        }
                    }
                ],
            },
            "Pending (ImagePullBackOff: no such image)",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            "Failed (Evicted: The node was low on memory)",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [
                    {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
                ],
            },
            "Failed (Error)",
        ),
    ],
)
def test_why_a_pod_does_not_run_is_told_in_kubernetes_words(
    status: dict[str, Any], said: str
) -> None:
    assert state({"metadata": {}, "status": status}) == said


def test_no_pod_is_told_apart_from_pods_without_a_first() -> None:
    with pytest.raises(LeadError, match=r"found no pod: create it by playbooks/lead_gke.yml"):
        lead_pod([], "flux-sample")
    with pytest.raises(LeadError, match="found no such pod among 1"):
        lead_pod([pod("flux-sample-1-x", "1")], "flux-sample")


def test_a_pod_that_does_not_run_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gke_lead, "PAUSE", 0)
    pending = [pod("flux-sample-0-x", phase="Pending")]
    cluster = Cluster([], pending, [pod("flux-sample-0-x")])
    assert found(cluster, timeout=60)["pod"] == "flux-sample-0-x"
    assert len(cluster.asked) == 3
    with pytest.raises(LeadError, match="found flux-sample-0-x Pending"):
        found(Cluster(pending))


def test_a_node_without_such_an_address_is_told_with_those_that_it_has() -> None:
    private = {
        "metadata": {"name": "gke-1"},
        "status": {"addresses": NODE["status"]["addresses"][:1]},
    }
    with pytest.raises(
        LeadError, match=r"found InternalIP 10.128.0.83: a private cluster has none"
    ):
        node_address(private, "external")
    with pytest.raises(
        LeadError, match=r"wanted an internal address of node gke-1, found none: see"
    ):
        node_address({"metadata": {"name": "gke-1"}}, "internal")


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (None, "wanted service s in namespace hpc, found none: create it"),
        ({"spec": {"ports": [{"port": 8050}]}}, "of type NodePort, found ClusterIP without"),
        (
            {"spec": {**SERVICE["spec"], "selector": {"job-index": "1"}}},
            "found that it selects job-index=1, which the pod has not",
        ),
        ({"spec": {**SERVICE["spec"], "selector": None}}, "found that it selects nothing"),
    ],
)
def test_a_service_that_does_not_lead_to_the_pod_is_told(service: Any, said: str) -> None:
    with pytest.raises(LeadError, match=said):
        node_port(service, "s", "hpc", pod("flux-sample-0-x"))


def test_the_container_is_the_one_named_as_the_minicluster_else_the_first() -> None:
    two = {"spec": {"containers": [{"name": "sidecar"}, {"name": "flux-sample"}]}}
    assert container(two, "flux-sample") == "flux-sample"
    assert container(two, "other") == "sidecar"
