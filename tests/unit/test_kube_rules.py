# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PATCH makes of an object, what selectors mean, and what a schema says of a custom object."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.server.kube import patches, schema
from sandbox.server.kube.errors import KubeError
from sandbox.server.kube.selectors import matching

CONTAINERS = {
    "containers": [{"name": "a", "image": "1", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}]
}


@pytest.mark.parametrize(
    ("value", "patch", "wanted"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
    ],
)
def test_a_merge_patch_replaces_lists_and_deletes_by_null(
    value: Any, patch: Any, wanted: Any
) -> None:
    assert patches.merge(value, patch) == wanted


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        (
            {"containers": [{"name": "a", "image": "2"}]},
            [{"name": "a", "image": "2", "env": [{"name": "x", "value": "1"}]}, {"name": "b"}],
        ),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, [{"name": "b"}]),
        ({"containers": [{"$patch": "replace"}, {"name": "c"}]}, [{"name": "c"}]),
        (
            {
                "containers": [{"name": "c"}],
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            },
            [{"name": "c"}, {"name": "b"}, CONTAINERS["containers"][0]],
        ),
    ],
)
def test_a_strategic_merge_takes_containers_one_by_one(patch: Any, wanted: Any) -> None:
    assert patches.strategic(CONTAINERS, patch)["containers"] == wanted


def test_a_strategic_merge_unites_finalizers_and_replaces_other_lists() -> None:
    value = {"finalizers": ["a", "b"], "args": ["1"]}
    patch = {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "args": ["2"]}
    assert sorted(patches.strategic(value, patch)["finalizers"]) == ["b", "c"]
    assert patches.strategic(value, patch)["args"] == ["2"]


def test_a_json_patch_does_its_operations_in_order_or_is_refused() -> None:
    value = {"metadata": {"labels": {"a/b": "1"}}, "list": [1]}
    steps = [
        {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"},
        {"op": "add", "path": "/list/-", "value": 2},
        {"op": "remove", "path": "/list/0"},
    ]
    assert patches.json_patch(value, steps) == {"metadata": {"labels": {"a/b": "2"}}, "list": [2]}
    for wrong in (
        {"op": "test", "path": "/list/0", "value": 2},
        {"op": "replace", "path": "/no", "value": 1},
    ):
        with pytest.raises(KubeError, match="rejected"):
            patches.json_patch(value, [wrong])


@pytest.mark.parametrize(
    ("labels", "fields", "wanted"),
    [
        ("", "", True),
        ("app=flux", "", True),
        ("app==flux,job-index=0", "", True),
        ("app!=flux", "", False),
        ("job-index in (0, 1),app", "", True),
        ("job-index notin (0)", "", False),
        ("!other", "", True),
        ("!app", "", False),
        ("", "metadata.name=p", True),
        ("", "status.phase!=Running", False),
        ("app=flux", "spec.nodeName=n2", False),
    ],
)
def test_selectors_select(labels: str, fields: str, wanted: bool) -> None:
    pod = {
        "metadata": {"name": "p", "labels": {"app": "flux", "job-index": "0"}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    assert matching(labels, fields)(pod) is wanted


def test_a_selector_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(KubeError, match="unable to parse"):
        matching("a in 0")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": {"type": "string"},
                "size": {"type": "integer", "default": 1, "minimum": 1},
                "env": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "port": {"x-kubernetes-int-or-string": True},
            },
        }
    },
}


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ({"image": "x"}, []),
        ({"image": "x", "port": 1, "env": {"a": "b"}, "free": {"a": 1}}, []),
        ({}, ["spec.image"]),
        ({"image": 1}, ["spec.image"]),
        ({"image": "x", "size": 0}, ["spec.size"]),
        ({"image": "x", "size": True}, ["spec.size"]),
        ({"image": "x", "env": {"a": 1}}, ["spec.env.a"]),
    ],
)
def test_a_schema_names_the_fields_that_are_wrong(spec: Any, wrong: list[str]) -> None:
    assert [path for path, _why in schema.problems({"spec": spec}, SCHEMA)] == wrong


def test_unknown_fields_are_named_and_pruned_but_where_they_are_kept() -> None:
    thing = {
        "kind": "K",
        "spec": {"image": "x", "colour": "red", "free": {"a": 1}, "env": {"b": "c"}},
    }
    assert list(schema.unknown(thing, SCHEMA)) == ["spec.colour"]
    left = schema.pruned(thing, SCHEMA)
    assert left == {"kind": "K", "spec": {"image": "x", "free": {"a": 1}, "env": {"b": "c"}}}
    assert schema.defaulted(left, SCHEMA)["spec"]["size"] == 1
