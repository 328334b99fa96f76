# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP side: Compute Engine, the token endpoint and the sandbox's own status, on one port."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from sandbox.server import (
    batch,
    catalog,
    disks,
    firewalls,
    images,
    instance_methods,
    instances,
    nat,
    networks,
    permissions,
    policies,
    quotas,
    resources,
)
from sandbox.server.api import METHODS, Api, parse_json
from sandbox.server.container import Container
from sandbox.server.errors import RETRY_INFO, ApiError
from sandbox.server.faults import Dropped
from sandbox.server.oauth import TokenError, Tokens
from sandbox.server.oslogin import Logins
from sandbox.server.requestlog import RequestLog
from sandbox.server.state import Cloud, Key, Resource

BODY_LIMIT = 16 << 20
METHOD_MODULES = (
    resources,
    quotas,
    networks,
    nat,
    firewalls,
    disks,
    images,
    policies,
    instance_methods,
)
"""Importing them registers their methods."""
NOTICE = 0.5
"""Seconds between a machine's notice that it is preempted and its end. At Compute Engine they are 30."""
COUNTED = ("networks", "subnetworks", "routers", "firewalls", "addresses")


def _json(data: Any, status: int = 200) -> web.Response:
    if data is None:
        return web.Response(status=status)
    return web.Response(
        status=status,
        text=json.dumps(data),
        content_type="application/json",
        charset="utf-8",
        headers=_retry_after(data) if status >= 400 else {},
    )


def _retry_after(data: Any) -> dict[str, str]:
    """Return the header that says in HTTP what an error's RetryInfo says in JSON."""
    details = data["error"].get("details", []) if isinstance(data.get("error"), dict) else []
    delays = [each["retryDelay"] for each in details if each["@type"] == RETRY_INFO]
    return {"Retry-After": delays[0].removesuffix("s")} if delays else {}


def _drop(request: web.Request) -> web.Response:
    """Close the connection without an answer; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


class Frontend:
    """Serves HTTP.

    about is what /sandbox/status says of the sandbox itself; /sandbox/shutdown sets shutdown.
    """

    def __init__(
        self,
        api: Api,
        container: Container,
        tokens: Tokens,
        log: RequestLog,
        about: Mapping[str, str],
        shutdown: asyncio.Event,
    ) -> None:
        self.api, self.container = api, container
        self.tokens, self.log, self.about = tokens, log, about
        self.shutdown = shutdown
        self.logins = Logins()
        api.cloud.logins = self.logins.let_in

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post("/token", self.token)
        app.router.add_post("/batch/compute/v1", self.batch)
        app.router.add_get("/sandbox/status", self.status)
        app.router.add_get("/sandbox/serial/{project}/{name}", self.serial)
        app.router.add_put("/sandbox/quotas", self.quotas)
        app.router.add_put("/sandbox/permissions", self.grant)
        app.router.add_post(
            "/v1/projects/{project:[^/:]+}:testIamPermissions", self.test_permissions
        )
        app.router.add_post("/sandbox/preempt/{project}/{name}", self.preempt)
        for verb in ("GET", "POST", "DELETE"):
            app.router.add_route(verb, "/sandbox/faults", self.faults)
        app.router.add_post("/sandbox/shutdown", self.stop)
        user = "/v1/users/{user:[^/:]+}"
        app.router.add_get(f"{user}/loginProfile", self.os_login)
        app.router.add_post(f"{user}:importSshPublicKey", self.os_login)
        app.router.add_delete(f"{user}/sshPublicKeys/{{key}}", self.os_login)
        app.router.add_route(
            "*", "/v1/projects/{project:[^/:]+}/locations/{location}/{path:.*}", self.gke
        )
        app.router.add_route("*", "/{path:.*}", self.compute)
        return app

    async def _call(
        self, verb: str, path: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, Resource | None]:
        status, answer, request = await self.api.answer(verb, path, query, body)
        self.log.write(verb, path, query, status, request, answer)
        if status == 0:
            raise Dropped
        return status, answer

    async def compute(self, request: web.Request) -> web.Response:
        """Answer a call of Compute Engine."""
        path, body = request.rel_url.raw_path, await request.read()
        try:
            status, answer = await self._call(request.method, path, request.query, body)
        except Dropped:
            return _drop(request)
        return _json(answer, status)

    async def gke(self, request: web.Request) -> web.Response:
        """Answer a call of the Container API."""
        path, body = request.rel_url.raw_path, await request.read()
        authorization = request.headers.get("Authorization")
        status, answer, asked = self.container.answer(
            request.method, path, request.query, body, authorization
        )
        self.log.write(request.method, path, request.query, status, asked, answer)
        return _json(answer, status)

    async def batch(self, request: web.Request) -> web.Response:
        """Answer several calls."""

        async def one(verb: str, url: str, body: bytes) -> tuple[int, Resource | None]:
            parts = urlsplit(url)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            return await self._call(verb, parts.path, query, body)

        try:
            content_type = request.headers.get("Content-Type", "")
            kind, body = await batch.perform(content_type, await request.read(), one)
        except ApiError as error:
            return _json(error.body(), error.code)
        except Dropped:
            return _drop(request)
        return web.Response(body=body, headers={"Content-Type": kind})

    async def token(self, request: web.Request) -> web.Response:
        """Issue an access token. Neither it nor what it was asked with is logged."""
        form = await request.post()
        status, answer = 200, {}
        try:
            answer = self.tokens.issue(form)
        except TokenError as error:
            status, answer = 400, {"error": error.code, "error_description": error.description}
        shown = {**answer, "access_token": "(redacted)"} if status == 200 else answer
        asked = {"grant_type": form.get("grant_type"), "assertion": "(redacted)"}
        self.log.write("POST", "/token", {}, status, asked, shown)
        return _json(answer, status)

    async def os_login(self, request: web.Request) -> web.Response:
        """Answer a call of OS Login, and let in on every machine that looks there whom it lets in from now on."""
        user, body = request.match_info["user"], await request.read()
        asked: Resource = {}
        status = 200
        try:
            asked = parse_json(body) or {}
            if not self.tokens.good(request.headers.get("Authorization")):
                raise ApiError(401, "unauthorized", "Request had invalid credentials.")
            if request.method == "GET":
                answer = self.logins.profile(user)
            elif request.method == "POST":
                answer = self.logins.add(user, asked)
                self._at_expiry(asked)
            else:
                answer = self.logins.drop(user, request.match_info["key"])
        except ApiError as error:
            status, answer = error.code, error.body()
        self.log.write(request.method, request.path, request.query, status, asked, answer)
        if status == 200 and request.method != "GET":
            await self._let_in()
        return _json(answer, status)

    def _at_expiry(self, key: Resource) -> None:
        if key.get("expirationTimeUsec"):
            wait = int(key["expirationTimeUsec"]) / 1e6 - time.time()

            async def expire() -> None:
                await asyncio.sleep(wait)
                await self._let_in()

            self.api.operations.spawn(expire())

    async def _let_in(self) -> None:
        for key, instance in self.api.cloud.all("instances"):
            if instances.os_login(instance):
                await instance_methods.let_in(self.api.cloud, key, instance)

    async def status(self, request: web.Request) -> web.Response:
        """Say what there is."""
        cloud = self.api.cloud
        projects = {
            project: {**_project(cloud, project), **self.container.told(project)}
            for project in cloud.projects()
        }
        site = [
            {"name": it["name"], "address": it["address"], "status": it["status"]}
            for it in _instances(cloud, catalog.SITE_PROJECT)
        ]
        return _json({**self.about, "projects": projects, "site": site})

    async def serial(self, request: web.Request) -> web.Response:
        """Return a machine's console output as text."""
        cloud, part = self.api.cloud, request.match_info
        if part["name"] not in {key.name for key in cloud.table(part["project"], "instances")}:
            text = f"there is no machine {part['name']} in project {part['project']}\n"
            return web.Response(status=404, text=text)
        text = await cloud.thread(cloud.backend.serial, part["project"], part["name"])
        return web.Response(text=text)

    async def quotas(self, request: web.Request) -> web.Response:
        """Set the limits that are not the usual ones: {REGION or "global": {METRIC: LIMIT}}."""
        self.api.cloud.quotas = await request.json()
        return _json({})

    async def grant(self, request: web.Request) -> web.Response:
        """Grant the caller {"permissions": [...]} and nothing else, or everything with null."""
        try:
            body = parse_json(await request.read())
            return _json(permissions.grant(self.api.cloud, body))
        except ApiError as error:
            return _json(error.body(), error.code)

    async def test_permissions(self, request: web.Request) -> web.Response:
        """Say which permissions the caller has, as Cloud Resource Manager's projects.testIamPermissions."""
        status, answer, body = 200, {}, None
        try:
            body = parse_json(await request.read())
            if not catalog.has_project(request.match_info["project"]):
                raise ApiError(403, "forbidden", "The caller does not have permission")
            answer = permissions.tested(self.api.cloud, body)
        except ApiError as error:
            status, answer = error.code, error.body()
        self.log.write("POST", request.rel_url.raw_path, request.query, status, body, answer)
        return _json(answer, status)

    async def preempt(self, request: web.Request) -> web.Response:
        """Take a machine away as a spot machine is, ?notice= seconds after it was told; answer when it is gone."""
        cloud, operations, part = self.api.cloud, self.api.operations, request.match_info
        notice = float(request.query.get("notice", NOTICE))
        for key in cloud.table(part["project"], "instances"):
            if key.name == part["name"]:
                operation = instance_methods.preempt(cloud, operations, key, notice)
                done = Key(key.project, key.scope, "operations", operation["name"])
                return _json(await operations.wait(done))
        return _json({"error": f"there is no machine {part['name']}"}, 404)

    async def faults(self, request: web.Request) -> web.Response:
        """Replace the faults (POST), drop them (DELETE), and say which there are."""
        faults = self.api.faults
        try:
            if request.method == "POST":
                faults.replace(parse_json(await request.read()), METHODS)
            elif request.method == "DELETE":
                faults.replace({"faults": []}, METHODS)
        except ApiError as error:
            return _json(error.body(), error.code)
        return _json(faults.shown())

    async def stop(self, request: web.Request) -> web.Response:
        """End the server, and all machines with it."""
        self.shutdown.set()
        return _json({})


def _instances(cloud: Cloud, project: str) -> list[dict[str, str]]:
    return [
        {
            "name": key.name,
            "zone": key.scope.split("/")[1],
            "status": instance["status"],
            "address": instance["networkInterfaces"][0]["networkIP"],
        }
        for key, instance in sorted(cloud.table(project, "instances").items())
    ]


def _project(cloud: Cloud, project: str) -> dict[str, Any]:
    names = {kind: sorted(key.name for key in cloud.table(project, kind)) for kind in COUNTED}
    return {"instances": _instances(cloud, project), **names}
