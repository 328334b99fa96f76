# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The methods of the API: which path is which method, and what every call goes through."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from sandbox.server import catalog, permissions
from sandbox.server.errors import ApiError, already_exists, invalid, not_found, not_ready
from sandbox.server.faults import Dropped, Faults, Rule
from sandbox.server.operations import Operations
from sandbox.server.query import parse_fields, select
from sandbox.server.state import Cloud, Key, Resource, check_name
from sandbox.server.validate import Discovery

ROOT = "/compute/v1/"


@dataclass(frozen=True)
class Call:
    """One call of a method: path parameters, query, body."""

    method: str
    cloud: Cloud
    operations: Operations
    params: Mapping[str, str]
    query: Mapping[str, str]
    body: Resource = field(default_factory=dict)

    @property
    def project(self) -> str:
        """The project."""
        return self.params["project"]

    @property
    def scope(self) -> str:
        """Where: "global", "zones/ZONE" or "regions/REGION"."""
        for kind in ("zone", "region"):
            if kind in self.params:
                return f"{kind}s/{self.params[kind]}"
        return "global"

    @property
    def collection(self) -> str:
        """The kind of resource: "instances", "operations", ..."""
        word = self.method.split(".")[0]
        return "operations" if word.endswith("Operations") else word

    def key(self, name: str | None = None) -> Key:
        """Return the key of a resource of this call's kind; by default the one in the path."""
        if name is None:
            known = {"project", "zone", "region"}
            name = next(value for key, value in self.params.items() if key not in known)
        return Key(self.project, self.scope, self.collection, name)

    def existing(self) -> tuple[Key, Resource]:
        """Return the resource in the path, by name or by id. Raises ApiError."""
        key = self.key()
        found = self.cloud.find(key)
        if found is None and key.name.isdigit():
            for other, resource in self.cloud.table(self.project, self.collection).items():
                if other.scope == self.scope and resource["id"] == key.name:
                    return other, resource
        if found is None:
            raise not_found(key.path)
        return key, found

    def settled(self) -> tuple[Key, Resource]:
        """Return the resource in the path, which nothing is changing now. Raises ApiError."""
        key, found = self.existing()
        if key in self.cloud.busy:
            raise not_ready(key.path)
        return key, found

    def vacant(self) -> Key:
        """Return the key of the resource that the body describes, which is not there. Raises ApiError."""
        key = self.key(check_name(self.body.get("name")))
        if self.cloud.find(key) is not None:
            raise already_exists(key.path)
        return key


Handler = Callable[[Call], Awaitable[Resource | None]]


@dataclass(frozen=True)
class Method:
    """A method: its id in the discovery document without "compute.", verb, path and handler."""

    id: str
    verb: str
    path: str
    handler: Handler
    pattern: re.Pattern[str]


METHODS: dict[str, Method] = {}


def serve(method: str, verb: str, path: str) -> Callable[[Handler], Handler]:
    """Register a handler. path is below projects/{project}/, with parameters in braces."""

    def register(handler: Handler) -> Handler:
        full = "projects/{project}" + (f"/{path}" if path else "")
        pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", full))
        METHODS[method] = Method(method, verb, full, handler, pattern)
        return handler

    return register


def match(verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
    """Return the method that serves a path below /compute/v1/ and the path's parameters."""
    candidates = []
    for method in METHODS.values():
        found = method.pattern.fullmatch(path) if method.verb == verb else None
        if found:
            candidates.append((method, found))
    if not candidates:
        return None
    method, found = min(candidates, key=lambda pair: pair[0].path.count("{"))
    return method, {name: unquote(value) for name, value in found.groupdict().items()}


class Api:
    """Answers calls. discovery is None where Google's document is not installed."""

    def __init__(self, cloud: Cloud, operations: Operations, discovery: Discovery | None) -> None:
        self.cloud, self.operations, self.discovery = cloud, operations, discovery
        self.faults = Faults()

    async def answer(
        self, verb: str, path: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, Resource | None, Any]:
        """Return HTTP status, JSON answer (None: no content) and the request's body as JSON.

        Status 0: the connection is to be closed without an answer.
        """
        request: Any = None
        try:
            request = parse_json(body)
            answer = await self._call(verb, path, query, request)
        except ApiError as error:
            return error.code, error.body(), request
        except Dropped:
            return 0, None, request
        return (200 if answer is not None else 204), answer, request

    async def _call(
        self, verb: str, path: str, query: Mapping[str, str], body: Any
    ) -> Resource | None:
        found = match(verb, path.removeprefix(ROOT)) if path.startswith(ROOT) else None
        if found is None:
            raise ApiError(404, "notFound", f"The sandbox does not serve {verb} {path}")
        method, params = found
        _check_place(params)
        mask = parse_fields(query.get("fields", ""))
        self._check(method, query, body)
        call = Call(method.id, self.cloud, self.operations, params, query, body or {})
        request = f"{verb} {path}"
        permissions.check(call)
        await self._refuse("request", call, request)
        answer = await self._once(method, call, request)
        await self._refuse("answer", call, request)
        return answer if answer is None else select(answer, mask)

    def _check(self, method: Method, query: Mapping[str, str], body: Any) -> None:
        if body is not None and not isinstance(body, dict):
            raise ApiError(400, "parseError", "Parse Error")
        if self.discovery is not None:
            problems = self.discovery.request_problems(method.id, query, body)
            if problems:
                raise ApiError(400, problems[0].reason, problems[0].message)

    async def _once(self, method: Method, call: Call, request: str) -> Resource | None:
        request_id = call.query.get("requestId")
        if method.verb == "GET" or not request_id:
            return await self._handle(method, call, request)
        before = self.operations.repeated(call.project, request_id, request)
        if before is not None:
            return before
        answer = await self._handle(method, call, request)
        if answer is not None and _is_operation(answer):
            answer["clientOperationId"] = request_id
            self.operations.remember(call.project, request_id, request, answer)
        return answer

    async def _handle(self, method: Method, call: Call, request: str) -> Resource | None:
        denied = permissions.refused_later(call)
        answer = await method.handler(call)
        if answer is None or not _is_operation(answer) or call.collection == "operations":
            return answer
        fault = denied or self._fault(("operation", "hang"), call, request)
        if fault is not None:
            self.operations.arm(answer, fault)
        fault = self._fault(("warning",), call, request)
        if fault is not None:
            answer["warnings"] = [fault.warning()]
        return answer

    async def _refuse(self, moment: str, call: Call, request: str) -> None:
        fault = self._fault((moment,), call, request)
        if fault is not None:
            await asyncio.sleep(fault.seconds)
            raise fault.error()

    def _fault(self, moments: Sequence[str], call: Call, request: str) -> Rule | None:
        return self.faults.take(moments, call.method, call.scope, request, call.body)


def _is_operation(answer: Resource) -> bool:
    return answer.get("kind") == "compute#operation"


def parse_json(body: bytes) -> Any:
    """Return a request's body as a JSON value, None where it has none. Raises ApiError."""
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        raise ApiError(400, "parseError", "Parse Error") from None


def _check_place(params: Mapping[str, str]) -> None:
    if not catalog.has_project(params["project"]):
        raise not_found(f"projects/{params['project']}")
    zone, region = params.get("zone"), params.get("region")
    if zone is not None and zone not in catalog.ZONES:
        raise invalid("zone", zone, "Unknown zone.")
    if region is not None and region not in catalog.REGIONS:
        raise invalid("region", region, "Unknown region.")
