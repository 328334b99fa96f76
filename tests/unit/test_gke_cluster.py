# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster is made with, what is changed of one that exists, and what is only told."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._answers import misfit
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import grant
from ansible_collections.flux.burst.plugins.module_utils._gke_answers import ANSWER
from ansible_collections.flux.burst.plugins.module_utils._gke_cluster import (
    FIXED,
    body,
    differing,
    found,
    plan,
    requests,
    wanted,
)

PARAMS: dict[str, Any] = {
    "project": "my-project",
    "nodes": 4,
    "machine_type": "n2-standard-4",
    "tags": ["b", "a"],
    "network": None,
    "subnetwork": None,
    "network_policy": True,
    "intranode_visibility": True,
    "workload_identity": True,
    "service_account": None,
    "labels": None,
}


def made(**changes: Any) -> dict[str, Any]:
    """A cluster as Kubernetes Engine tells it once it was created, with some options changed."""
    sent = body("c", wanted({**PARAMS, **changes}))
    pool = {"name": "default-pool", "config": sent["nodeConfig"], "initialNodeCount": 4}
    return {
        **sent,
        "initialNodeCount": 0,
        "nodePools": [{**pool, "initialNodeCount": sent["initialNodeCount"]}],
        "network": "default",
        "subnetwork": "default",
        "labelFingerprint": "abc",
        "status": "RUNNING",
    }


def test_a_cluster_has_policy_visibility_tags_and_workload_identity() -> None:
    sent = body("c", wanted(PARAMS))
    assert sent["networkPolicy"] == {"enabled": True, "provider": "CALICO"}
    assert sent["networkConfig"] == {"enableIntraNodeVisibility": True}
    assert sent["nodeConfig"]["tags"] == ["a", "b"]
    assert sent["workloadIdentityConfig"] == {"workloadPool": "my-project.svc.id.goog"}
    assert sent["nodeConfig"]["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    plain = body(
        "c",
        wanted({**PARAMS, "network_policy": False, "workload_identity": False, "network": "hpc"}),
    )
    assert not {"networkPolicy", "addonsConfig", "workloadIdentityConfig"} & set(plain)
    assert plain["network"] == "hpc"
    assert "workloadMetadataConfig" not in plain["nodeConfig"]


def test_what_was_created_is_not_changed_again() -> None:
    want = wanted({**PARAMS, "labels": {"team": "hpc"}})
    assert plan("c", want, made(labels={"team": "hpc"})) == []
    assert differing(want, found(made()), FIXED) == {}


def test_a_network_is_the_same_by_name_and_by_path() -> None:
    want = wanted({**PARAMS, "network": "projects/my-project/global/networks/default"})
    assert differing(want, found(made()), FIXED) == {}


def test_what_can_be_changed_is_each_one_request_in_its_order() -> None:
    before = made(network_policy=False, workload_identity=False, intranode_visibility=False)
    want = wanted({**PARAMS, "nodes": 6, "labels": {"team": "hpc"}})
    [change] = plan("c", want, before)
    assert change.action == "update"
    assert change.before == {
        "nodes": 4,
        "network_policy": False,
        "intranode_visibility": False,
        "workload_pool": "",
        "labels": {},
    }
    assert [(verb, below) for verb, below, _body in requests(change, before)] == [
        ("PUT", ""),
        ("PUT", ""),
        ("POST", ":setAddons"),
        ("POST", ":setNetworkPolicy"),
        ("POST", ":setResourceLabels"),
        ("POST", "/nodePools/default-pool:setSize"),
    ]
    [change] = plan("c", wanted({**PARAMS, "network_policy": False}), made())
    assert [below for _verb, below, _body in requests(change, {})] == [
        ":setNetworkPolicy",
        ":setAddons",
    ]


def test_what_cannot_be_changed_is_told_and_not_planned() -> None:
    want = wanted({**PARAMS, "machine_type": "n2-standard-8", "tags": ["c"], "network": "hpc"})
    assert plan("c", want, made()) == []
    assert differing(want, found(made()), FIXED) == {
        "machine_type": ("n2-standard-4", "n2-standard-8"),
        "tags": (["a", "b"], ["c"]),
        "network": ("default", "hpc"),
    }


@pytest.mark.skipif(not find_spec("googleapiclient"), reason="no discovery documents")
def test_bodies_have_the_fields_of_google_s_discovery_document() -> None:
    import googleapiclient

    top = Path(googleapiclient.__path__[0]) / "discovery_cache/documents/container.v1.json"
    schemas = json.loads(top.read_text())["schemas"]

    def unknown(value: Any, schema: dict[str, Any], where: str) -> list[str]:
        schema = schemas[schema["$ref"]] if "$ref" in schema else schema
        if not isinstance(value, dict) or "properties" not in schema:
            return []
        inner = schema["properties"]
        bad = [f"{where}.{key}" for key in value if key not in inner]
        good = [(key, it) for key, it in value.items() if key in inner]
        return bad + [
            name for key, it in good for name in unknown(it, inner[key], f"{where}.{key}")
        ]

    sent = body("c", wanted({**PARAMS, "network": "n", "subnetwork": "s", "service_account": "a"}))
    assert unknown(sent, {"$ref": "Cluster"}, "cluster") == []
    before = made(network_policy=False, workload_identity=False, intranode_visibility=False)
    [change] = plan("c", wanted({**PARAMS, "nodes": 6, "labels": {"a": "b"}}), before)
    kinds = {
        "": "UpdateClusterRequest",
        ":setAddons": "SetAddonsConfigRequest",
        ":setNetworkPolicy": "SetNetworkPolicyRequest",
        ":setResourceLabels": "SetLabelsRequest",
        "/nodePools/default-pool:setSize": "SetNodePoolSizeRequest",
    }
    for _verb, below, request in requests(change, before):
        assert unknown(request, {"$ref": kinds[below]}, below) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "the answer.name is null, and not a text"),
        ({**made(), "endpoint": 7}, "the answer.endpoint is a whole number, and not a text"),
        ({**made(), "nodePools": [{}]}, "the answer.nodePools[0].name is null, and not a text"),
        ({**made(), "resourceLabels": {"a": None}}, "the answer.resourceLabels.a is null"),
        ({"name": "o", "status": "DONE", "error": "no"}, "the answer.error is a text"),
    ],
)
def test_an_answer_that_is_not_google_s_is_told(answer: Any, said: str) -> None:
    assert misfit(answer, ANSWER, "the answer").startswith(said)
    assert misfit(made(), ANSWER, "the answer") == ""


def test_a_missing_permission_names_a_role_of_kubernetes_engine() -> None:
    said = grant(["container.clusters.create", "container.clusters.get"], "me")
    assert "container.clusters.create (in roles/container.admin)" in said
    assert "container.clusters.get (in roles/container.clusterViewer)" in said
