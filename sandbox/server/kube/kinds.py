# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kinds of objects there are: the built-in ones, and those that definitions (CRDs) add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CRDS = "customresourcedefinitions"


@dataclass(frozen=True)
class Kind:
    """A kind of object in one version of its API. columns and schema are a definition's."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    custom: bool = False
    columns: tuple[Mapping[str, Any], ...] = ()
    schema: Mapping[str, Any] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        """As an object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As messages name it: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def root(self) -> str:
        """The path of its version of the API."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def table(self) -> tuple[str, str]:
        """Which objects are the same, whatever the version."""
        return self.group, self.plural

    def resources(self) -> Iterable[Object]:
        """Yield its entries in an APIResourceList."""
        entry: Object = {
            "name": self.plural,
            "singularName": self.kind.lower(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": list(VERBS),
        }
        yield {**entry, "shortNames": list(self.short)} if self.short else entry
        for name in self.subresources:
            verbs = ["get", "patch", "update"]
            if name in ("exec", "log"):
                verbs = ["create", "get"] if name == "exec" else ["get"]
            yield {
                "name": f"{self.plural}/{name}",
                "singularName": "",
                "namespaced": self.namespaced,
                "kind": "PodExecOptions" if name == "exec" else self.kind,
                "verbs": verbs,
            }


STATUS = ("status",)
BUILT_IN = (
    Kind("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Kind("", "v1", "events", "Event", short=("ev",)),
    Kind("", "v1", "namespaces", "Namespace", False, ("ns",), STATUS),
    Kind("", "v1", "nodes", "Node", False, ("no",), STATUS),
    Kind("", "v1", "pods", "Pod", True, ("po",), ("status", "exec", "log")),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Kind("", "v1", "services", "Service", True, ("svc",), STATUS),
    Kind("apps", "v1", "deployments", "Deployment", True, ("deploy",), STATUS),
    Kind("batch", "v1", "jobs", "Job", True, (), STATUS),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False),
    Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        CRDS,
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        STATUS,
    ),
)
KINDS = {(kind.group, kind.plural): kind for kind in BUILT_IN}


def defined(definition: Object) -> Iterable[Kind]:
    """Yield the kinds, one a version that is served, of a CustomResourceDefinition."""
    spec = definition["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if version.get("served"):
            yield Kind(
                spec["group"],
                version["name"],
                names["plural"],
                names["kind"],
                spec["scope"] == "Namespaced",
                tuple(names.get("shortNames", ())),
                STATUS if "status" in version.get("subresources", {}) else (),
                True,
                tuple(version.get("additionalPrinterColumns", ())),
                version.get("schema", {}).get("openAPIV3Schema", {}),
            )
