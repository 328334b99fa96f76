# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cloud holds: resources by key, as the JSON that a GET returns."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sandbox.machines import Account, Backend, FileSpec
from sandbox.server import catalog
from sandbox.server.errors import ApiError, invalid
from sandbox.server.metadata import Metadata

Resource = dict[str, Any]
Result = TypeVar("Result")

NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
REFERENCE = re.compile(
    r"(?:https?://[^/]+/)?(?:compute/(?:v1|beta)/)?(?:projects/(?P<project>[^/]+)/)?"
    r"(?P<scope>global|(?:zones|regions)/[^/]+)/(?P<collection>[A-Za-z]+)/(?P<name>[^?#]+)"
)
BACKEND_THREADS = 32
SINGULAR = {"addresses": "address", "resourcePolicies": "resource_policy"}


@dataclass(frozen=True, order=True)
class Key:
    """Which resource: scope is "global", "zones/ZONE" or "regions/REGION"."""

    project: str
    scope: str
    collection: str
    name: str

    @property
    def path(self) -> str:
        """projects/..., as error messages name it."""
        return f"projects/{self.project}/{self.scope}/{self.collection}/{self.name}"

    @property
    def link(self) -> str:
        """The selfLink."""
        return f"{catalog.BASE}/{self.path}"


def parse_reference(text: object, project: str) -> Key | None:
    """Return the key of a full or partial URL; project is the default one. None: not such a URL."""
    match = REFERENCE.fullmatch(str(text))
    if match is None:
        return None
    return Key(match["project"] or project, match["scope"], match["collection"], match["name"])


def now() -> str:
    """Return the time as Google writes it: RFC 3339 with milliseconds and an offset."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def fingerprint(value: object) -> str:
    """Return the fingerprint of a JSON value: base64 of 8 bytes."""
    text = json.dumps(value, sort_keys=True).encode()
    return base64.b64encode(hashlib.sha256(text).digest()[:8]).decode()


def check_name(value: object, field: str = "resource.name") -> str:
    """Return a resource name that Google accepts. Raises ApiError."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        why = f"Must be a match of regex '{NAME.pattern}'"
        raise invalid(field, value if value is not None else "", why)
    return value


def check_labels(labels: object, field: str = "resource.labels") -> dict[str, str]:
    """Return labels that Google accepts. Raises ApiError."""
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise invalid(field, labels, "Must be an object.")
    for key, value in labels.items():
        if not LABEL_KEY.fullmatch(key):
            raise invalid(field, key, f"Label key '{key}' violates format constraints.")
        if not isinstance(value, str) or not LABEL_VALUE.fullmatch(value):
            raise invalid(field, value, f"Label value '{value}' violates format constraints.")
    return dict(labels)


class Cloud:
    """All resources, the machines behind them, and what is being changed right now."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.busy: set[Key] = set()
        self.nat: dict[str, str] = {}
        # The metadata servers of the instances whose machine runs.
        self.metadata: dict[Key, Metadata] = {}
        # Region (or "global") -> metric -> limit, where it is not the usual one.
        self.quotas: dict[str, dict[str, float]] = {}
        # The IAM permissions that the caller has in the sandbox's projects; None is all.
        self.granted: frozenset[str] | None = None
        self.nat_lock = asyncio.Lock()
        # What machines have whose image was not made here, beyond what the root has.
        self.accounts: tuple[Account, ...] = ()
        self.files: Mapping[str, FileSpec] = {}
        self._tables: dict[tuple[str, str], dict[Key, Resource]] = {}
        self._machines: dict[Key, asyncio.Lock] = {}
        self._last_id = time.time_ns() + secrets.randbelow(10**9)
        # Project-independent: (user, public key) of those whom OS Login lets in.
        self.logins: Callable[[], tuple[tuple[str, str], ...]] = tuple
        self._threads = ThreadPoolExecutor(BACKEND_THREADS, "backend")

    def new_id(self) -> str:
        """Return the next id."""
        self._last_id += 1 + secrets.randbelow(1000)
        return str(self._last_id)

    def table(self, project: str, collection: str) -> dict[Key, Resource]:
        """Return the resources of a kind in a project, in all scopes."""
        return self._tables.setdefault((project, collection), {})

    def find(self, key: Key | None) -> Resource | None:
        """Return a resource, or None."""
        return None if key is None else self.table(key.project, key.collection).get(key)

    def put(self, key: Key, resource: Resource) -> None:
        """Add a resource or replace it."""
        self.table(key.project, key.collection)[key] = resource

    def remove(self, key: Key) -> None:
        """Drop a resource. Idempotent."""
        self.table(key.project, key.collection).pop(key, None)

    def all(self, collection: str) -> Iterator[tuple[Key, Resource]]:
        """Yield the resources of a kind in every project."""
        for (_unused, kind), table in list(self._tables.items()):
            if kind == collection:
                yield from list(table.items())

    def projects(self) -> list[str]:
        """Return the projects that hold something, without the site's."""
        held = {project for (project, _unused), table in self._tables.items() if table}
        held.add(catalog.PROJECT)
        return sorted(held - {catalog.SITE_PROJECT})

    def new(self, key: Key, kind: str, fields: Resource) -> Resource:
        """Return a new resource of a kind ("network", ...); the caller puts it."""
        return {
            "kind": f"compute#{kind}",
            "id": self.new_id(),
            "creationTimestamp": now(),
            "name": key.name,
            "selfLink": key.link,
            **fields,
        }

    def referenced(self, field: str, value: object, project: str, collection: str) -> Key:
        """Return the key of the resource that a request's field names. Raises ApiError."""
        key = parse_reference(value, project)
        if key is None or key.collection != collection:
            raise invalid(field, value, "The URL is malformed.")
        if self.find(key) is None:
            kind = SINGULAR.get(collection, collection.removesuffix("s"))
            raise invalid(field, value, f"The referenced {kind} resource cannot be found.")
        if key in self.busy:
            raise ApiError(400, "resourceNotReady", f"The resource '{key.path}' is not ready")
        return key

    def machine(self, key: Key) -> asyncio.Lock:
        """Return the lock to hold while an instance's machine is made or deleted."""
        return self._machines.setdefault(key, asyncio.Lock())

    async def finish_threads(self) -> None:
        """Wait for what the backend is doing; nothing can be asked of it in a thread after this."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a method of the backend, which blocks, in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(function, *arguments))
