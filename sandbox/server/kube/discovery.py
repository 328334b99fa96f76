# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the API says of itself: versions, groups, resources, and as much OpenAPI as kubectl asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.server.kube.errors import KubeError
from sandbox.server.kube.kinds import Kind, Object

VERSION = "1.34"
GKE = f"v{VERSION}.2-gke.1000000"


def version() -> Object:
    """Return the answer of /version."""
    major, minor = VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": GKE,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _groups(kinds: list[Kind]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind in kinds:
        if kind.group and kind.version not in found.setdefault(kind.group, []):
            found[kind.group].append(kind.version)
    return found


def _group(name: str, versions: list[str]) -> Object:
    every = [{"groupVersion": f"{name}/{it}", "version": it} for it in versions]
    return {"name": name, "versions": every, "preferredVersion": every[0]}


def answer(kinds: list[Kind], path: str) -> Object | None:
    """Return what a path says of the API, or None where it is no such path. Raises KubeError."""
    groups = _groups(kinds)
    if path == "/version":
        return version()
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        every = [_group(name, versions) for name, versions in groups.items()]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": every}
    words = path.strip("/").split("/")
    if words[0] == "apis" and len(words) == 2 and words[1] in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(words[1], groups[words[1]])}
    if (words[0], len(words)) in (("api", 2), ("apis", 3)):
        here = [kind for kind in kinds if kind.root == path]
        if not here:
            raise KubeError(404, "NotFound", "the server could not find the requested resource")
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": here[0].api_version,
            "resources": [entry for kind in here for entry in kind.resources()],
        }
    if path == "/openapi/v3":
        roots = sorted({kind.root.strip("/") for kind in kinds})
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
    if path.startswith("/openapi/v3/"):
        return _openapi([kind for kind in kinds if f"/openapi/v3{kind.root}" == path])
    return None


def _openapi(kinds: list[Kind]) -> Object:
    """Return the paths that say which parameters a PATCH takes, by which kubectl leaves validation to the server."""
    paths, schemas = {}, {}
    for kind in kinds:
        gvk: Mapping[str, Any] = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        scope = "/namespaces/{namespace}" if kind.namespaced else ""
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in ("dryRun", "fieldManager", "fieldValidation")
        ]
        paths[f"{kind.root}{scope}/{kind.plural}/{{name}}"] = {
            "patch": {
                "parameters": parameters,
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": gvk,
                "responses": {},
            }
        }
        name = f"sandbox.{kind.group or 'core'}.{kind.version}.{kind.kind}"
        schemas[name] = {
            **(kind.schema or {"type": "object"}),
            "x-kubernetes-group-version-kind": [gvk],
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": GKE},
        "paths": paths,
        "components": {"schemas": schemas},
    }
