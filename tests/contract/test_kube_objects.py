# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's objects by kubectl and by the Python client: what is applied, listed, watched, refused and deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from compute_server import ComputeServer
from kube_cluster import (
    HOSTLIST,
    MINICLUSTER,
    OPERATOR,
    SERVICE,
    Kubectl,
    make_cluster,
    text,
    until,
)
from kubernetes import client, watch
from kubernetes.dynamic import DynamicClient

WHOLE = OPERATOR + "---\n" + text(MINICLUSTER, SERVICE)

WIDGETS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {
                                    "size": {"type": "integer"},
                                    "quick": {"type": "boolean", "default": False},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def cluster(compute_server: ComputeServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """A cluster of the module's own with the operator in it."""
    kubectl = make_cluster(compute_server, tmp_path_factory.mktemp("kube") / "config")
    kubectl.done("apply", "-f", "-", stdin=OPERATOR)
    kubectl.done("rollout", "status", "-n", "operator-system", "deployment", "--timeout=10s")
    return kubectl


@pytest.fixture
def kubectl(cluster: Kubectl) -> Iterator[Kubectl]:
    """The same; what a test leaves in the default namespace is taken away."""
    yield cluster
    cluster.done("delete", "miniclusters,services,configmaps,deployments", "--all")


def lead_pod(kubectl: Kubectl) -> Any:
    """Return the pod of index 0 once it runs."""

    def running() -> Any:
        pods = kubectl.items("pods", "-l", "job-index=0", "--field-selector=status.phase=Running")
        return pods[0] if pods else None

    return until(running, "the lead's pod runs")


def test_applying_a_second_time_changes_nothing(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=WHOLE)
    kinds = "miniclusters,services,deployments,namespaces,customresourcedefinitions"
    lead_pod(kubectl)
    until(lambda: kubectl.items("miniclusters")[0].get("status"), "the operator has seen it")
    before = kubectl.items(kinds, "-A")
    again = kubectl.done("apply", "-f", "-", stdin=WHOLE)
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}
    assert kubectl.items(kinds, "-A") == before


def test_applying_on_the_servers_side_keeps_what_others_hold(kubectl: Kubectl) -> None:
    def config(**data: str) -> str:
        return text(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}
        )

    def apply(manager: str, stdin: str, *words: str) -> int:
        words = ("--server-side", f"--field-manager={manager}", *words, "-f", "-")
        return kubectl.run("apply", *words, stdin=stdin).returncode

    def held() -> Any:
        return kubectl.items("configmaps", "--field-selector=metadata.name=c")[0]["data"]

    assert apply("one", config(a="1", b="1")) == 0
    assert apply("two", config(c="2")) == 0
    assert apply("one", config(a="1")) == 0
    assert held() == {"a": "1", "c": "2"}
    assert apply("two", config(a="2", c="2")) == 1
    assert apply("two", config(a="2", c="2"), "--force-conflicts") == 0
    assert held() == {"a": "2", "c": "2"}


def test_a_minicluster_gets_the_operators_pods(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    lead = lead_pod(kubectl)
    pods = until(lambda: (found := kubectl.items("pods"))[1:] and found, "both pods")
    assert [pod["metadata"]["name"].rpartition("-")[0] for pod in pods] == [
        "flux-sample-0",
        "flux-sample-1",
    ]
    labels = lead["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == labels["job-name"] == "flux-sample"
    assert labels["batch.kubernetes.io/job-completion-index"] == "0"
    assert [it["name"] for it in lead["spec"]["containers"]] == ["flux-sample"]
    nodes = {pod["spec"]["nodeName"] for pod in pods}
    assert len(nodes) == 2
    wide = kubectl.done("get", "pods", "-o", "wide")
    assert lead["spec"]["nodeName"] in wide and "1/1" in wide
    addresses = kubectl.done("get", "nodes", "-o", "wide")
    assert all(f"203.0.113.{number}" in addresses for number in (10, 11, 12, 13))
    status = kubectl.items("miniclusters")[0]["status"]
    assert (status["size"], status["maximumSize"]) == (2, 4)


def test_without_the_operator_a_minicluster_has_no_pods(
    compute_server: ComputeServer, tmp_path: Path
) -> None:
    kubectl = make_cluster(compute_server, tmp_path / "config", "bare", nodes=1)
    definitions = OPERATOR.rpartition("---\n")[0]
    kubectl.done("apply", "-f", "-", stdin=definitions)
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    kubectl.done("apply", "-f", "-", stdin=text(SERVICE))
    assert kubectl.items("pods", "-A") == []
    kubectl.done("apply", "-f", "-", stdin=OPERATOR)
    assert lead_pod(kubectl)["metadata"]["name"].startswith("flux-sample-0-")
    # Two pods of one name would be one machine.
    kubectl.done("delete", "minicluster", "flux-sample")


def test_a_pod_that_is_deleted_comes_back_elsewhere(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    before = lead_pod(kubectl)
    kubectl.done("delete", "pod", before["metadata"]["name"])
    after = lead_pod(kubectl)
    assert after["metadata"]["name"] != before["metadata"]["name"]
    assert after["spec"]["nodeName"] != before["spec"]["nodeName"]


def test_no_pod_comes_to_a_cordoned_node(kubectl: Kubectl) -> None:
    kubectl.done("cordon", "--selector=kubernetes.io/os=linux")
    [free, *_others] = [node["metadata"]["name"] for node in kubectl.items("nodes")]
    kubectl.done("uncordon", free)
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    assert lead_pod(kubectl)["spec"]["nodeName"] == free
    kubectl.done("uncordon", "--selector=kubernetes.io/os=linux")


def test_what_a_minicluster_made_goes_with_it(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    lead_pod(kubectl)
    kubectl.done("delete", "minicluster", "flux-sample")
    assert kubectl.items("pods,jobs,services,configmaps") == []


def test_an_object_is_held_against_its_definition(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(WIDGETS))
    widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}}
    for spec, why in (
        ({"size": 1, "colour": "red"}, 'unknown field "spec.colour"'),
        ({"size": "two"}, "spec.size must be of type integer"),
        ({}, "spec.size: Required value"),
    ):
        said = kubectl.run("apply", "-f", "-", stdin=text({**widget, "spec": spec})).stderr
        assert why in said
    kubectl.done("apply", "-f", "-", stdin=text({**widget, "spec": {"size": 1}}))
    assert kubectl.items("widgets")[0]["spec"] == {"size": 1, "quick": False}
    assert kubectl.done("get", "wd").split() == ["NAME", "SIZE", "w", "1"]
    kubectl.done("delete", "crd", "widgets.example.org")
    assert kubectl.run("get", "widgets").returncode == 1


def test_a_node_port_belongs_to_one_service(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(SERVICE))
    other = {**SERVICE, "metadata": {"name": "other", "namespace": "default"}}
    said = kubectl.run("apply", "-f", "-", stdin=text(other)).stderr
    assert "provided port is already allocated" in said
    free: dict[str, Any] = {**other, "spec": {**SERVICE["spec"], "ports": [{"port": 8050}]}}
    kubectl.done("apply", "-f", "-", stdin=text(free))
    found = [it for it in kubectl.items("services") if it["metadata"]["name"] == "other"]
    assert found[0]["spec"]["ports"][0]["nodePort"] in range(30000, 32768)


def test_a_dry_run_changes_nothing(kubectl: Kubectl) -> None:
    kubectl.done("apply", "--dry-run=server", "-f", "-", stdin=text(SERVICE))
    assert kubectl.items("services") == []
    kubectl.done("apply", "-f", "-", stdin=text(SERVICE))
    kubectl.done("delete", "--dry-run=server", "service", "lead-broker-service")
    assert len(kubectl.items("services")) == 1


def test_a_stale_change_is_a_conflict(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(SERVICE))
    [stale] = kubectl.items("services")
    kubectl.done("label", "service", "lead-broker-service", "a=b")
    said = kubectl.run("replace", "-f", "-", stdin=json.dumps(stale)).stderr
    assert "the object has been modified" in said


def test_the_python_client_sees_what_kubectl_applied(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER, SERVICE))
    name = lead_pod(kubectl)["metadata"]["name"]
    api = kubectl.api()
    core = client.CoreV1Api(api)
    pod = core.read_namespaced_pod(name, "default")
    node = core.read_node(pod.spec.node_name)
    kinds = {it.type: it.address for it in node.status.addresses}
    assert kinds["ExternalIP"].startswith("203.0.113.")
    assert (
        core.list_namespaced_pod("default", label_selector="job-index in (0)")
        .items[0]
        .metadata.name
        == name
    )
    miniclusters = DynamicClient(api).resources.get(
        api_version="flux-framework.org/v1alpha2", kind="MiniCluster"
    )
    mini = miniclusters.get(name="flux-sample", namespace="default")
    assert mini.spec.flux.bursting.hostlist == HOSTLIST
    body = {"metadata": {"labels": {"a": "b"}}}
    patched = miniclusters.patch(
        body, name="flux-sample", namespace="default", content_type="application/merge-patch+json"
    )
    assert patched.metadata.labels.a == "b"
    with pytest.raises(client.ApiException) as raised:
        core.read_namespaced_pod("none", "default")
    assert raised.value.status == 404


def test_a_watch_tells_of_every_change(kubectl: Kubectl) -> None:
    core = client.CoreV1Api(kubectl.api())
    since = core.list_namespaced_service("default").metadata.resource_version
    kubectl.done("apply", "-f", "-", stdin=text(SERVICE))
    kubectl.done("label", "service", "lead-broker-service", "a=b")
    kubectl.done("delete", "service", "lead-broker-service")
    stream = watch.Watch().stream(
        core.list_namespaced_service, "default", resource_version=since, timeout_seconds=1
    )
    events = [(event["type"], event["object"].metadata.name) for event in stream]
    assert events == [(it, "lead-broker-service") for it in ("ADDED", "MODIFIED", "DELETED")]


def test_a_token_is_needed(kubectl: Kubectl, compute_server: ComputeServer) -> None:
    host = kubectl.api().configuration.host
    answer = requests.get(f"{host}/api/v1/nodes", verify=str(compute_server.ca_file), timeout=10)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")


def test_a_pod_without_a_machine_refuses_to_run_a_command(kubectl: Kubectl) -> None:
    kubectl.done("apply", "-f", "-", stdin=text(MINICLUSTER))
    done = kubectl.run("exec", lead_pod(kubectl)["metadata"]["name"], "--", "true")
    assert done.returncode != 0
    assert "backend records boots nothing" in done.stderr
