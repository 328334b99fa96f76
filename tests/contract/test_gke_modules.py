# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of a lead in GKE against the sandbox's Container and Kubernetes APIs."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compute_server import TOP, ComputeServer
from gce_modules import Modules, changed, ran
from kube_cluster import MINICLUSTER, OPERATOR, SERVICE, Kubectl, text, until

TOKEN_PROGRAM = (
    TOP / ".cache/collections/ansible_collections/flux/burst/plugins/module_utils/_kube_token.py"
)
OPTIONS: dict[str, Any] = {
    "name": "flux-cluster",
    "location": "us-central1-a",
    "nodes": 2,
    "machine_type": "n2-standard-4",
    "tags": ["flux-cluster"],
    "labels": {"team": "hpc"},
    "timeout": 60,
}
LEAD = {**SERVICE, "metadata": {"name": "flux-sample-lead", "namespace": "default"}}


class Gke:
    """Runs the modules against a server."""

    def __init__(self, server: ComputeServer) -> None:
        self.server, self.modules = server, Modules(server, "")

    def cluster(self, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run gke_cluster."""
        given = {**OPTIONS, "container_endpoint": self.server.compute_endpoint, **options}
        return self.modules.run("gke_cluster", check=check, **given)

    def lead(self, kubectl: Kubectl, **options: Any) -> dict[str, Any]:
        """Run gke_lead_info, which takes nothing of Google's."""
        given = {"kubeconfig": str(kubectl.kubeconfig), "minicluster": "flux-sample", **options}
        found = ran("gke_lead_info", given)
        assert "\n" not in found.get("msg", "")
        return found


@pytest.fixture
def gke(compute_server: ComputeServer) -> Iterator[Gke]:
    """A project without a cluster."""
    made = Gke(compute_server)
    yield made
    compute_server.grant(None)
    assert not made.cluster(state="absent").get("failed")


@pytest.fixture
def kubectl(gke: Gke, tmp_path: Path) -> Kubectl:
    """kubectl for a cluster with the operator, whose kubeconfig names our program as the role's does."""
    made = gke.cluster()
    program = ["-P", str(TOKEN_PROGRAM), "--directory", str(tmp_path)]
    program += ["--credentials-file", str(gke.server.credentials_file)]
    exec_ = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never",
        "command": sys.executable,
        "args": program,
    }
    server = {
        "server": f"https://{made['endpoint']}",
        "certificate-authority-data": made["ca_certificate"],
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "c", "user": {"exec": exec_}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(content))
    found = Kubectl(path)
    found.done("apply", "-f", "-", stdin=OPERATOR)
    return found


def test_check_mode_create_again_change_again_delete_again(gke: Gke) -> None:
    create, update, delete = (
        [("cluster", "flux-cluster", action)] for action in ("create", "update", "delete")
    )
    planned = gke.cluster(check=True)
    assert changed(planned) == create
    assert (planned["endpoint"], planned["status"]) == ("", "")
    made = gke.cluster()
    assert changed(made) == create
    assert (made["status"], made["network"], made["tags"]) == (
        "RUNNING",
        "default",
        ["flux-cluster"],
    )
    assert base64.b64decode(made["ca_certificate"]).startswith(b"-----BEGIN CERTIFICATE")
    assert changed(gke.cluster()) == []
    other = {
        "network_policy": False,
        "intranode_visibility": False,
        "workload_identity": False,
        "nodes": 3,
        "labels": {"team": "other"},
    }
    planned = gke.cluster(check=True, **other)
    assert changed(planned) == update
    assert planned["diff"][0]["after"] == {
        "network_policy": False,
        "intranode_visibility": False,
        "workload_pool": "",
        "nodes": 3,
        "labels": {"team": "other"},
    }
    assert changed(gke.cluster(**other)) == update
    assert changed(gke.cluster(**other)) == []
    assert changed(gke.cluster(check=True, state="absent")) == delete
    assert changed(gke.cluster(state="absent")) == delete
    gone = gke.cluster(state="absent")
    assert (changed(gone), gone["endpoint"]) == ([], "")


def test_what_cannot_be_changed_is_warned_of_and_kept(gke: Gke) -> None:
    gke.cluster()
    found = gke.cluster(
        machine_type="n2-standard-8", tags=["other"], network="default", subnetwork="other"
    )
    assert changed(found) == []
    assert [it["option"] for it in found["differences"]] == ["machine_type", "tags", "subnetwork"]
    assert "wanted machine_type n2-standard-8, found n2-standard-4" in str(found["warnings"])
    assert changed(gke.cluster(service_account="lead@my-project.iam.gserviceaccount.com")) == []


def test_what_is_wrong_is_told_in_one_line(gke: Gke, compute_server: ComputeServer) -> None:
    for options, said in (
        ({"name": "Bad_Name"}, "cluster.name"),
        ({"location": "mars-1"}, 'Location "mars-1" does not exist'),
        ({"network": "none"}, 'Network "none" does not exist'),
        ({"container_endpoint": "http://127.0.0.1:9"}, "an answer from Kubernetes Engine at"),
    ):
        failed = gke.cluster(**options)
        assert failed.get("failed"), said
        assert said in failed["msg"]
        assert "\n" not in failed["msg"]
    compute_server.grant(["container.clusters.get"])
    failed = gke.cluster()
    assert "container.clusters.create (in roles/container.admin)" in failed["msg"]


def test_the_lead_is_found_and_followed_when_its_pod_moves(gke: Gke, kubectl: Kubectl) -> None:
    assert "found no pod: create it by playbooks/lead_gke.yml" in gke.lead(kubectl)["msg"]
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    assert (
        "wanted service flux-sample-lead in namespace default, found none"
        in (gke.lead(kubectl, timeout=30)["msg"])
    )
    kubectl.done("apply", "-f", "-", stdin=text(LEAD))
    found = gke.lead(kubectl)
    assert (found["hostname"], found["container"], found["port"]) == (
        "flux-sample-0",
        "flux-sample",
        30093,
    )
    nodes = {it["metadata"]["name"]: it["status"]["addresses"] for it in kubectl.items("nodes")}
    assert {"type": "ExternalIP", "address": found["address"]} in nodes[found["node"]]
    internal = gke.lead(kubectl, address="internal", service="flux-sample-lead")["address"]
    assert {"type": "InternalIP", "address": internal} in nodes[found["node"]]
    kubectl.done("delete", "pod", found["pod"], "--wait=false")
    until(
        lambda: [
            it
            for it in kubectl.items("pods", "-l", "job-index=0")
            if it["metadata"]["name"] != found["pod"] and it["status"].get("phase") == "Running"
        ],
        "the pod is made again",
    )
    again = gke.lead(kubectl)["pod"]
    assert again != found["pod"]
    assert again.startswith("flux-sample-0-")
    assert gke.lead(kubectl, namespace="other").get("failed")


def test_a_kubeconfig_that_leads_nowhere_is_told(gke: Gke, kubectl: Kubectl) -> None:
    missing = Kubectl(kubectl.kubeconfig.with_name("none"))
    assert f"wanted a kubeconfig in {missing.kubeconfig}, found" in gke.lead(missing)["msg"]
    content = json.loads(kubectl.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": "wrong"}
    kubectl.kubeconfig.write_text(json.dumps(content))
    assert "found HTTP 401 (Unauthorized): see what kubectl" in gke.lead(kubectl)["msg"]
    content["clusters"][0]["cluster"] = {"server": "https://127.0.0.1:9"}
    kubectl.kubeconfig.write_text(json.dumps(content))
    assert (
        "see that the cluster runs and that this machine reaches its API"
        in (gke.lead(kubectl)["msg"])
    )


def test_the_firewall_rule_lets_in_whom_it_names_and_is_put_right(
    gke: Gke, compute_server: ComputeServer
) -> None:
    modules = Modules(compute_server)
    gke.cluster()

    def rule(check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"port": 30093, "source_ranges": ["203.0.113.21"]}
        return modules.run(
            "gce_firewall", check=check, **{**given, "target_tags": ["flux-cluster"], **options}
        )

    def kept() -> Any:
        return compute_server.call("GET", "global/firewalls/t-lead")[1]

    assert changed(rule(check=True)) == [("firewall", "t-lead", "create")]
    assert changed(rule()) == [("firewall", "t-lead", "create")]
    assert changed(rule()) == []
    found = kept()
    assert found["sourceRanges"] == ["203.0.113.21/32"]
    assert found["allowed"] == [{"IPProtocol": "tcp", "ports": ["30093"]}]
    assert found["targetTags"] == ["flux-cluster"]
    assert changed(rule(source_ranges=["203.0.113.22", "203.0.113.21/32"])) == [
        ("firewall", "t-lead", "update")
    ]
    assert changed(rule(source_ranges=["203.0.113.21", "203.0.113.22"])) == []
    for options, said in (
        ({"source_ranges": ["0.0.0.0/0"]}, "which is everybody"),
        ({"source_ranges": ["lead"]}, "wanted IPv4 addresses or ranges"),
        ({"source_ranges": []}, "source_ranges: wanted some, found none"),
        ({"target_tags": []}, "target_tags: wanted some, found none"),
    ):
        failed = rule(**options)
        assert said in failed["msg"]
        assert "\n" not in failed["msg"]
    assert kept()["description"] == "flux-burst-lead=t", "the burst's own teardown leaves it"
    assert changed(rule(state="absent")) == [("firewall", "t-lead", "delete")]
    assert changed(rule(state="absent")) == []
