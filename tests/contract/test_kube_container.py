# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container API, called by Google's own session and held against Google's discovery document."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from compute_server import ComputeServer
from kube_cluster import LOCATION, container_session, until

from sandbox.server import validate

WANTED: dict[str, Any] = {
    "name": "flux-cluster",
    "initialNodeCount": 3,
    "nodeConfig": {"machineType": "n2-standard-4", "tags": ["flux-cluster"]},
    "networkConfig": {"enableIntraNodeVisibility": True},
    "addonsConfig": {"networkPolicyConfig": {"disabled": False}},
    "networkPolicy": {"enabled": True, "provider": "CALICO"},
    "workloadIdentityConfig": {"workloadPool": "sandbox-project.svc.id.goog"},
    "resourceLabels": {"flux-burst": "b1"},
}


class Gke:
    """The API of one location."""

    def __init__(self, server: ComputeServer) -> None:
        self.server, self.session = server, container_session(server)
        self.base = f"{server.compute_endpoint}/v1/{LOCATION}"

    def call(self, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = self.session.request(verb, f"{self.base}/{path}", json=body)
        return answer.status_code, answer.json()

    def done(self, verb: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call a method that has to succeed and return its operation when it is done."""
        status, operation = self.call(verb, path, body)
        assert status == 200, operation

        def ended() -> Any:
            found = self.call("GET", f"operations/{operation['name']}")[1]
            return found if found["status"] == "DONE" else None

        found: dict[str, Any] = until(ended, "the operation is done")
        assert "error" not in found
        return found

    def cluster(self) -> dict[str, Any]:
        status, found = self.call("GET", "clusters/flux-cluster")
        assert status == 200, found
        assert isinstance(found, dict)
        return found


@pytest.fixture
def gke(compute_server: ComputeServer) -> Iterator[Gke]:
    """A location with one cluster."""
    made = Gke(compute_server)
    made.done("POST", "clusters", {"cluster": WANTED})
    yield made
    made.server.grant(None)
    made.done("DELETE", "clusters/flux-cluster")


def test_a_cluster_is_what_was_asked_for(gke: Gke) -> None:
    cluster = gke.cluster()
    for name in ("networkPolicy", "workloadIdentityConfig", "resourceLabels"):
        assert cluster[name] == WANTED[name]
    assert cluster["status"] == "RUNNING"
    assert cluster["networkConfig"]["enableIntraNodeVisibility"] is True
    [pool] = cluster["nodePools"]
    assert (pool["name"], pool["initialNodeCount"], pool["status"]) == (
        "default-pool",
        3,
        "RUNNING",
    )
    assert pool["config"]["tags"] == ["flux-cluster"]
    assert [it["name"] for it in gke.call("GET", "clusters")[1]["clusters"]] == ["flux-cluster"]
    certificate = base64.b64decode(cluster["masterAuth"]["clusterCaCertificate"])
    assert certificate == gke.server.ca_file.read_bytes()


def test_a_clusters_settings_change_in_place(gke: Gke) -> None:
    config = {"desiredIntraNodeVisibilityConfig": {"enabled": False}}
    gke.done("PUT", "clusters/flux-cluster", {"update": config})
    off = {"networkPolicy": {"enabled": False, "provider": "CALICO"}}
    gke.done("POST", "clusters/flux-cluster:setNetworkPolicy", off)
    gone = {"addonsConfig": {"networkPolicyConfig": {"disabled": True}}}
    gke.done("POST", "clusters/flux-cluster:setAddons", gone)
    labels = {"resourceLabels": {"a": "b"}, "labelFingerprint": gke.cluster()["labelFingerprint"]}
    gke.done("POST", "clusters/flux-cluster:setResourceLabels", labels)
    gke.done("POST", "clusters/flux-cluster/nodePools/default-pool:setSize", {"nodeCount": 2})
    cluster = gke.cluster()
    assert cluster["networkConfig"]["enableIntraNodeVisibility"] is False
    assert cluster["networkPolicy"]["enabled"] is False
    assert cluster["resourceLabels"] == {"a": "b"}
    assert (cluster["nodePools"][0]["initialNodeCount"], cluster["currentNodeCount"]) == (2, 2)
    # The fingerprint is of the labels before.
    assert gke.call("POST", "clusters/flux-cluster:setResourceLabels", labels)[0] == 400


def test_network_policy_needs_its_addon(gke: Gke) -> None:
    gone = {"addonsConfig": {"networkPolicyConfig": {"disabled": True}}}
    gke.done("POST", "clusters/flux-cluster:setAddons", gone)
    status, said = gke.call(
        "POST", "clusters/flux-cluster:setNetworkPolicy", {"networkPolicy": {"enabled": True}}
    )
    assert (status, "Addon must be enabled" in said["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("verb", "path", "body", "wanted"),
    [
        ("POST", "clusters", {"cluster": WANTED}, (409, "ALREADY_EXISTS")),
        ("GET", "clusters/other", None, (404, "NOT_FOUND")),
        ("POST", "clusters", {"cluster": {"name": "x"}}, (400, "INVALID_ARGUMENT")),
        (
            "POST",
            "clusters",
            {"cluster": {"name": "X", "initialNodeCount": 1}},
            (400, "INVALID_ARGUMENT"),
        ),
        ("POST", "clusters", {"cluster": {"colour": "red"}}, (400, "INVALID_ARGUMENT")),
        (
            "POST",
            "clusters",
            {"cluster": {"name": "x", "initialNodeCount": 1, "network": "none"}},
            (400, "INVALID_ARGUMENT"),
        ),
        ("DELETE", "clusters/other", None, (404, "NOT_FOUND")),
    ],
)
def test_what_google_refuses_is_refused(
    gke: Gke, verb: str, path: str, body: Any, wanted: tuple[int, str]
) -> None:
    status, said = gke.call(verb, path, body)
    assert (status, said["error"]["status"]) == wanted


def test_a_caller_needs_a_token_and_the_permission(gke: Gke) -> None:
    assert requests.get(f"{gke.base}/clusters", timeout=10).status_code == 401
    gke.server.grant(["container.clusters.get"])
    assert gke.cluster()["name"] == "flux-cluster"
    status, said = gke.call("DELETE", "clusters/flux-cluster")
    assert status == 403
    assert "container.clusters.delete" in said["error"]["message"]


def test_every_call_is_as_the_discovery_document_has_it(gke: Gke) -> None:
    gke.cluster()
    assert validate.check_log(gke.server.state / "requests.jsonl") == []


def test_the_checker_reads_calls_of_this_api_too(tmp_path: Path) -> None:
    good = {"method": "GET", "path": f"/v1/{LOCATION}/clusters", "query": {}, "status": 200}
    records = [
        {**good, "request": None, "response": {"clusters": [{"name": "c"}]}},
        {**good, "request": None, "response": {"clusters": [{"name": 1}]}},
        {**good, "method": "PATCH", "request": None, "response": {}},
    ]
    log = tmp_path / "log"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = [it.removeprefix(f"{log}:").partition(":")[0] for it in validate.check_log(log)]
    assert lines == ["2", "3"]
