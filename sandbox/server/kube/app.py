# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side of a cluster's Kubernetes API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import yaml
from aiohttp import web

from sandbox.server.kube import discovery, patches
from sandbox.server.kube.errors import KubeError, bad_request, unsupported
from sandbox.server.kube.execs import PROTOCOLS, Session, Streams
from sandbox.server.kube.kinds import Kind, Object
from sandbox.server.kube.selectors import matching
from sandbox.server.kube.store import Change, Store, Wish
from sandbox.server.kube.tables import table

log = logging.getLogger("sandbox.kube")

BODY_LIMIT = 16 << 20
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
READ = ("application/json", "application/yaml")
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True)
class Target:
    """What a path means: objects of a kind, one of them where name is not "", or a part of that one."""

    kind: Kind
    namespace: str
    name: str
    part: str


class Machines(Protocol):
    """What is behind a pod: see sandbox.server.kube.reconciler.Controllers."""

    async def command(self, pod: Object, words: list[str]) -> list[str]:
        """Return the command that runs another in a pod. Raises KubeError."""

    async def log(self, pod: Object) -> str:
        """Return what a pod has written. Raises KubeError."""


class KubeApp:
    """Answers the requests of clients whose Authorization header is good."""

    def __init__(
        self, store: Store, machines: Machines, good: Callable[[str | None], bool]
    ) -> None:
        self.store, self.machines, self.good = store, machines, good
        self._verbs: dict[str, Callable[[web.Request, Target], Awaitable[Object]]] = {
            "GET": self._get,
            "POST": self._post,
            "PUT": self._put,
            "PATCH": self._patch,
            "DELETE": self._delete,
        }

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self.serve)
        return app

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        try:
            if not self.good(request.headers.get("Authorization")):
                raise KubeError(401, "Unauthorized", "Unauthorized")
            return await self._serve(request)
        except KubeError as error:
            return web.json_response(error.status(), status=error.code)
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            failure = KubeError(500, "InternalError", f"sandbox: {error!r}")
            return web.json_response(failure.status(), status=500)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        about = discovery.answer(self.store.kinds(), path) if request.method == "GET" else None
        if about is not None:
            return web.json_response(about)
        target = self._target(path)
        if target.part == "exec":
            return await self._exec(request, target)
        if target.part == "log":
            pod = self.store.get(target.kind, target.namespace, target.name)
            return web.Response(text=await self.machines.log(pod))
        if request.method == "GET" and request.query.get("watch") in ("1", "true"):
            return await self._watch(request, target)
        handle = self._verbs.get(request.method)
        if handle is None:
            raise KubeError(405, "MethodNotAllowed", "the server does not allow this method")
        answer = await handle(request, target)
        return web.json_response(answer, status=201 if request.method == "POST" else 200)

    def _target(self, path: str) -> Target:
        words = path.strip("/").split("/")
        core = words[0] == "api"
        if words[0] not in ("api", "apis") or len(words) < (3 if core else 4):
            raise KubeError(404, "NotFound", "the server could not find the requested resource")
        group, version = ("", words[1]) if core else (words[1], words[2])
        rest = words[2:] if core else words[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        kind = self.store.kind(group, version, rest[0])
        name, part = (*rest[1:3], "", "")[:2]
        if part and part not in kind.subresources:
            raise KubeError(404, "NotFound", "the server could not find the requested resource")
        return Target(kind, namespace, name, part)

    def _existing(self, target: Target) -> Object:
        return self._seen(target.kind, self.store.get(target.kind, target.namespace, target.name))

    @staticmethod
    def _seen(kind: Kind, thing: Object) -> Object:
        """Return an object as this version of its kind."""
        return {**thing, "apiVersion": kind.api_version, "kind": kind.kind}

    def _encoded(self, request: web.Request, kind: Kind, things: list[Object]) -> Object | None:
        """Return objects as a table where the client asks for one."""
        if "as=Table" not in request.headers.get("Accept", ""):
            return None
        include = request.query.get("includeObject", "Metadata")
        return table(kind, things, self.store.version, include)

    async def _get(self, request: web.Request, target: Target) -> Object:
        if target.name:
            thing = self._existing(target)
            return self._encoded(request, target.kind, [thing]) or thing
        things = self._selected(request, target)
        found = self._encoded(request, target.kind, things)
        return found or {
            "kind": f"{target.kind.kind}List",
            "apiVersion": target.kind.api_version,
            "metadata": {"resourceVersion": str(self.store.version)},
            "items": things,
        }

    def _selected(self, request: web.Request, target: Target) -> list[Object]:
        matches = self._matching(request, target)
        every = self.store.all(target.kind.table, target.namespace)
        return [self._seen(target.kind, thing) for thing in every if matches(thing)]

    @staticmethod
    def _matching(request: web.Request, target: Target) -> Callable[[Object], bool]:
        query = request.query
        fields = query.get("fieldSelector", "")
        if target.name:
            fields = f"metadata.name={target.name}"
        return matching(query.get("labelSelector", ""), fields)

    async def _post(self, request: web.Request, target: Target) -> Object:
        if target.name:
            raise KubeError(405, "MethodNotAllowed", "the server does not allow this method")
        thing = self.store.create(
            target.kind, target.namespace, await _body(request), _wish(request)
        )
        return self._encoded(request, target.kind, [thing]) or thing

    async def _put(self, request: web.Request, target: Target) -> Object:
        before, body = self._existing(target), await _body(request)
        return self.store.update(target.kind, before, body, _wish(request), target.part)

    async def _patch(self, request: web.Request, target: Target) -> Object:
        kind, what = target.kind, request.content_type
        allowed = [it for it in PATCHES if not (kind.custom and "strategic" in it)]
        if what not in allowed:
            raise unsupported(what, allowed)
        wish, patch = _wish(request), _parsed(await request.text(), what)
        if "apply" in what:
            if not wish.manager:
                raise bad_request(
                    "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value"
                )
            return self.store.apply(kind, (target.namespace, target.name), patch, wish)
        before = self._existing(target)
        if what.startswith("application/json-patch"):
            after = patches.json_patch(before, patch)
        elif what.startswith("application/merge-patch"):
            after = patches.merge(before, patch)
        else:
            after = patches.strategic(before, patch)
        return self.store.update(kind, before, after, wish, target.part)

    async def _delete(self, request: web.Request, target: Target) -> Object:
        text = await request.text()
        options = _parsed(text, request.content_type) if text.strip() else {}
        wish = _wish(request, options)
        if not target.name:
            gone = self._selected(request, target)
            for thing in gone:
                self.store.delete(target.kind, thing, wish)
            return {
                "kind": f"{target.kind.kind}List",
                "apiVersion": target.kind.api_version,
                "metadata": {"resourceVersion": str(self.store.version)},
                "items": gone,
            }
        thing = self._existing(target)
        uid = (options.get("preconditions") or {}).get("uid")
        if uid not in (None, thing["metadata"]["uid"]):
            raise KubeError(409, "Conflict", f"the UID in the precondition ({uid}) is another one")
        left = self.store.delete(target.kind, thing, wish)
        if left["metadata"].get("finalizers"):
            return left
        details = {
            "name": target.name,
            "group": target.kind.group,
            "kind": target.kind.plural,
            "uid": thing["metadata"]["uid"],
        }
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            limit = float(request.query.get("timeoutSeconds", "1800"))
            async with asyncio.timeout(limit):
                async for event in self._events(request, target):
                    await response.write(json.dumps(event).encode() + b"\n")
        except (TimeoutError, ConnectionError):
            # The client starts a new watch where it wants more.
            return response
        return response

    async def _events(self, request: web.Request, target: Target) -> AsyncIterator[Object]:
        query, matches = request.query, self._matching(request, target)
        initial = query.get("sendInitialEvents") == "true"
        since = query.get("resourceVersion", "")
        seen = self.store.version
        if initial or since in ("", "0"):
            for thing in self._selected(request, target):
                yield self._event(request, target.kind, "ADDED", thing)
            if initial:
                yield self._bookmark(target.kind, seen)
        else:
            seen = int(since)
        while True:
            await self.store.wait(seen)
            fresh = self.store.changes_after(seen)
            seen = self.store.version
            for change in fresh:
                what = _shown(change, target, matches)
                if what:
                    thing = self._seen(target.kind, change.thing)
                    yield self._event(request, target.kind, what, thing)

    def _event(self, request: web.Request, kind: Kind, what: str, thing: Object) -> Object:
        return {"type": what, "object": self._encoded(request, kind, [thing]) or thing}

    @staticmethod
    def _bookmark(kind: Kind, version: int) -> Object:
        metadata = {"resourceVersion": str(version), "annotations": {INITIAL_EVENTS_END: "true"}}
        thing = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        return {"type": "BOOKMARK", "object": thing}

    async def _exec(self, request: web.Request, target: Target) -> web.StreamResponse:
        pod, query = self.store.get(target.kind, target.namespace, target.name), request.query
        words = query.getall("command", [])
        names = [container["name"] for container in pod["spec"]["containers"]]
        container = query.get("container", names[0])
        if not words:
            raise bad_request("you must specify at least 1 command for the container")
        if container not in names:
            raise bad_request(f"container {container} is not valid for pod {target.name}")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request("the sandbox's exec speaks WebSocket: use kubectl 1.31 or newer")
        socket = web.WebSocketResponse(protocols=PROTOCOLS, compress=False, max_msg_size=BODY_LIMIT)
        await socket.prepare(request)
        wanted = {
            name: query.get(name) in ("1", "true") for name in ("stdin", "stdout", "stderr", "tty")
        }
        session = Session(socket, Streams(**wanted))
        try:
            command = await self.machines.command(pod, words)
        except KubeError as error:
            await session.refuse(error.message)
        else:
            await session.run(command)
        return socket


def _shown(change: Change, target: Target, matches: Callable[[Object], bool]) -> str:
    """Return what a change is to a watch: an object may enter or leave what it selects; "" is nothing."""
    if change.table != target.kind.table:
        return ""
    if target.namespace not in ("", change.thing["metadata"].get("namespace", "")):
        return ""
    after = change.what != "DELETED" and matches(change.thing)
    before = change.before is not None and matches(change.before)
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else ""


def _wish(request: web.Request, options: Mapping[str, Any] | None = None) -> Wish:
    query = request.query
    return Wish(
        dry_run="All" in (query.get("dryRun"), *((options or {}).get("dryRun") or ())),
        strict=query.get("fieldValidation") == "Strict",
        manager=query.get("fieldManager", ""),
        force=query.get("force") == "true",
    )


async def _body(request: web.Request) -> Object:
    found = _parsed(await request.text(), request.content_type)
    if not isinstance(found, dict):
        raise bad_request("wanted an object in the body of the request")
    return found


def _parsed(text: str, kind: str) -> Any:
    """Return a body as a JSON value. Raises KubeError."""
    if kind not in (*READ, *PATCHES):
        raise unsupported(kind, READ)
    try:
        return yaml.safe_load(text) if "yaml" in kind else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None
