# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of a cluster, what changed when, and the rules that hold for objects of every kind."""

from __future__ import annotations

import asyncio
import copy
import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sandbox.server.kube import patches, schema
from sandbox.server.kube.errors import (
    KubeError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from sandbox.server.kube.kinds import BUILT_IN, CRDS, Kind, Object, defined

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
RBAC = "rbac.authorization.k8s.io"
SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of what Kubernetes appends to generated names."""
KEPT = ("uid", "creationTimestamp", "namespace", "name", "deletionTimestamp")
"""What of an object's metadata no request changes."""

Place = tuple[str, str]
"""A namespace ("" for an object outside of them) and a name."""


def now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def suffix(length: int = 5) -> str:
    """Return an end for a generated name."""
    return "".join(secrets.choice(SUFFIX) for _unused in range(length))


@dataclass(frozen=True)
class Change:
    """What happened to an object: ADDED, MODIFIED or DELETED; before is the object until then."""

    version: int
    what: str
    table: tuple[str, str]
    thing: Object
    before: Object | None = None


@dataclass(frozen=True)
class Wish:
    """What a request says beside its object: dry run, unknown fields, who manages the fields."""

    dry_run: bool = False
    strict: bool = False
    manager: str = ""
    force: bool = False


class Store:
    """Holds the objects. defaults fills in what a kind's own controller would, and may refuse."""

    def __init__(self, defaults: Callable[[Store, Kind, Object, Object | None], None]) -> None:
        self.changes: list[Change] = []
        self.version = 1000
        self._defaults = defaults
        self._tables: dict[tuple[str, str], dict[Place, Object]] = {}
        self._applied: dict[tuple[tuple[str, str], Place], dict[str, Object]] = {}
        self._changed = asyncio.Event()

    def kinds(self) -> list[Kind]:
        """Return the built-in kinds and the defined ones."""
        found = [*BUILT_IN]
        for definition in self._tables.get(("apiextensions.k8s.io", CRDS), {}).values():
            found += defined(definition)
        return found

    def kind(self, group: str, version: str, plural: str) -> Kind:
        """Return a kind. Raises KubeError."""
        for kind in self.kinds():
            if (kind.group, kind.version, kind.plural) == (group, version, plural):
                return kind
        raise KubeError(404, "NotFound", "the server could not find the requested resource")

    def all(self, table: tuple[str, str], namespace: str = "") -> list[Object]:
        """Return the objects of a kind, of one namespace or of all."""
        held = self._tables.get(table, {})
        return [it for place, it in sorted(held.items()) if namespace in ("", place[0])]

    def find(self, table: tuple[str, str], namespace: str, name: str) -> Object | None:
        """Return an object, or None."""
        return self._tables.get(table, {}).get((namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return an object. Raises KubeError."""
        found = self.find(kind.table, namespace, name)
        if found is None:
            raise not_found(kind.resource, name)
        return found

    def changes_after(self, version: int) -> list[Change]:
        """Return the changes after a version, oldest first."""
        return [change for change in self.changes if change.version > version]

    async def wait(self, version: int) -> None:
        """Return when there is a change after a version."""
        while self.version <= version:
            await self._changed.wait()

    def _note(self, what: str, kind: Kind, thing: Object, before: Object | None = None) -> None:
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        self.changes.append(Change(self.version, what, kind.table, copy.deepcopy(thing), before))
        self._changed.set()
        self._changed = asyncio.Event()

    def create(self, kind: Kind, namespace: str, body: Object, wish: Wish = Wish()) -> Object:
        """Add an object and return it. Raises KubeError."""
        thing = self._named(kind, namespace, copy.deepcopy(body))
        metadata = thing["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        if place in self._tables.get(kind.table, {}):
            raise already_exists(kind.resource, place[1])
        if "status" in kind.subresources:
            thing.pop("status", None)
        metadata.update(uid=str(uuid.uuid4()), creationTimestamp=now(), generation=1)
        thing = self._checked(kind, thing, None, wish)
        if wish.dry_run:
            return thing
        self._tables.setdefault(kind.table, {})[place] = thing
        self._note("ADDED", kind, thing)
        return thing

    def _named(self, kind: Kind, namespace: str, thing: Object) -> Object:
        """Return a new object with its identity as the path has it. Raises KubeError."""
        for name, wanted in (("kind", kind.kind), ("apiVersion", kind.api_version)):
            if thing.setdefault(name, wanted) != wanted:
                raise bad_request(
                    f"the {name} in the data ({thing[name]}) does not match the expected one ({wanted})"
                )
        metadata = thing.setdefault("metadata", {})
        if "generateName" in metadata and not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + suffix()
        name = metadata.get("name")
        if not name:
            raise invalid(
                kind.kind,
                "",
                [("metadata.name", "Required value: name or generateName is required")],
            )
        # Roles are named with colons, as system:node.
        if not NAME.fullmatch(name) and kind.group != RBAC:
            why = f"Invalid value: {name!r}: a lowercase RFC 1123 subdomain must consist of lower case"
            rest = " alphanumeric characters, '-' or '.'"
            raise invalid(kind.kind, name, [("metadata.name", why + rest)])
        if not kind.namespaced:
            metadata.pop("namespace", None)
            return thing
        if metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f"{metadata['namespace']}, {namespace}"
            )
        if self.find(("", "namespaces"), "", namespace) is None:
            raise not_found("namespaces", namespace)
        return thing

    def _checked(self, kind: Kind, thing: Object, before: Object | None, wish: Wish) -> Object:
        if kind.custom:
            strange = list(schema.unknown(thing, kind.schema))
            if strange and wish.strict:
                words = ", ".join(f'unknown field "{path}"' for path in strange)
                raise bad_request(f"strict decoding error: {words}")
            thing = schema.defaulted(schema.pruned(thing, kind.schema), kind.schema)
            wrong = list(schema.problems(thing, kind.schema))
            if wrong:
                raise invalid(f"{kind.kind}.{kind.group}", thing["metadata"]["name"], wrong)
        self._defaults(self, kind, thing, before)
        return thing

    def update(
        self, kind: Kind, before: Object, body: Object, wish: Wish = Wish(), part: str = ""
    ) -> Object:
        """Replace an object, or with part "status" its status, and return it. Raises KubeError."""
        metadata, name = before["metadata"], before["metadata"]["name"]
        given = body.get("metadata", {})
        if given.get("name", name) != name or given.get("uid", metadata["uid"]) != metadata["uid"]:
            raise conflict(kind.resource, name, "the name or the uid of the object is another one")
        if given.get("resourceVersion", metadata["resourceVersion"]) != metadata["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(kind.resource, name, why)
        if part:
            thing = {**copy.deepcopy(before), part: copy.deepcopy(body.get(part, {}))}
        else:
            thing = self._merged_identity(kind, before, copy.deepcopy(body))
            thing = self._checked(kind, thing, before, wish)
        if thing == before:
            return before
        if wish.dry_run:
            return thing
        place = (metadata.get("namespace", ""), name)
        if thing.get("spec") != before.get("spec"):
            thing["metadata"]["generation"] = metadata.get("generation", 1) + 1
        self._tables[kind.table][place] = thing
        self._note("MODIFIED", kind, thing, before)
        if thing["metadata"].get("deletionTimestamp") and not thing["metadata"].get("finalizers"):
            self.remove(kind, thing)
        return thing

    @staticmethod
    def _merged_identity(kind: Kind, before: Object, thing: Object) -> Object:
        thing.update(kind=kind.kind, apiVersion=kind.api_version)
        metadata = thing.setdefault("metadata", {})
        for name in (*KEPT, "resourceVersion", "generation"):
            metadata.pop(name, None)
            if name in before["metadata"]:
                metadata[name] = before["metadata"][name]
        if "status" in kind.subresources:
            thing.pop("status", None)
            if "status" in before:
                thing["status"] = copy.deepcopy(before["status"])
        return thing

    def set_status(self, kind: Kind, thing: Object, status: Object) -> Object:
        """Change an object's status, as its controller does."""
        body = {"status": {**thing.get("status", {}), **status}}
        return self.update(kind, thing, body, part="status")

    def apply(self, kind: Kind, place: Place, config: Object, wish: Wish) -> Object:
        """Apply a configuration on the server's side and return the object. Raises KubeError.

        A list belongs to a manager as a whole.
        """
        name = place[1]
        if config.get("metadata", {}).setdefault("name", name) != name:
            raise bad_request("the name of the object is not the one of the URL")
        holders = self._applied.get((kind.table, place), {})
        before = self.find(kind.table, *place)
        if before is None:
            thing = self.create(kind, place[0], config, wish)
        else:
            given = dict(patches.leaves(config))
            if not wish.force:
                self._refuse_held(
                    kind, before, given, {m: c for m, c in holders.items() if m != wish.manager}
                )
            thing = before
            for path, _unused in patches.leaves(holders.get(wish.manager, {})):
                thing = thing if path in given else patches.without(thing, path)
            thing = self.update(kind, before, patches.merge(thing, config), wish)
        if not wish.dry_run:
            self._applied.setdefault((kind.table, place), {})[wish.manager] = copy.deepcopy(config)
        return thing

    @staticmethod
    def _refuse_held(
        kind: Kind, before: Object, given: dict[tuple[str, ...], Any], others: dict[str, Object]
    ) -> None:
        has = dict(patches.leaves(before))
        causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{manager}"',
                "field": "." + ".".join(path),
            }
            for manager, config in others.items()
            for path, _unused in patches.leaves(config)
            if path in given and given[path] != has.get(path)
        ]
        if causes:
            fields = ", ".join(f"{cause['field']} ({cause['message']})" for cause in causes)
            why = f"Apply failed with {len(causes)} conflict(s): {fields}"
            raise conflict(kind.resource, before["metadata"]["name"], why, causes)

    def delete(self, kind: Kind, thing: Object, wish: Wish = Wish()) -> Object:
        """Delete an object, or begin to where it has finalizers; return it as it was. Raises KubeError."""
        if wish.dry_run:
            return thing
        if thing["metadata"].get("finalizers"):
            if "deletionTimestamp" in thing["metadata"]:
                return thing
            marked = copy.deepcopy(thing)
            marked["metadata"]["deletionTimestamp"] = now()
            self._tables[kind.table][
                thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
            ] = marked
            self._note("MODIFIED", kind, marked, thing)
            return marked
        self.remove(kind, thing)
        return thing

    def remove(self, kind: Kind, thing: Object) -> None:
        """Take an object away, and all that it owns or that is in it. Idempotent."""
        metadata = thing["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        if self._tables.get(kind.table, {}).pop(place, None) is None:
            return
        self._applied.pop((kind.table, place), None)
        gone = copy.deepcopy(thing)
        self._note("DELETED", kind, gone, thing)
        for other in self.kinds():
            for each in self.all(other.table):
                if self._goes_with(kind, thing, other, each):
                    self.remove(other, each)
        if kind.plural == CRDS:
            for custom in defined(thing):
                for each in self.all(custom.table):
                    self.remove(custom, each)

    @staticmethod
    def _goes_with(kind: Kind, gone: Object, other: Kind, thing: Object) -> bool:
        if kind.plural == "namespaces" and other.namespaced:
            return bool(thing["metadata"]["namespace"] == gone["metadata"]["name"])
        owners = thing["metadata"].get("ownerReferences", ())
        return any(owner["uid"] == gone["metadata"]["uid"] for owner in owners)
