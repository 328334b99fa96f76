# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations: what a request that changes something returns, and what then happens in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from sandbox.server.catalog import BASE, PROJECT
from sandbox.server.errors import ApiError, OperationError, invalid, not_found
from sandbox.server.faults import Rule
from sandbox.server.state import Cloud, Key, Resource, now

log = logging.getLogger("sandbox.server")

WAIT_LIMIT = 120.0
"""Seconds after which operations.wait answers, done or not."""

SECONDS = {
    ("insert", "networks"): 2.0,
    ("insert", "subnetworks"): 2.0,
    ("insert", "addresses"): 1.0,
    ("insert", "instances"): 2.5,
    ("bulkInsert", "instances"): 2.5,
    ("delete", "instances"): 2.5,
    ("setLabels", "instances"): 0.5,
    ("setMetadata", "instances"): 0.5,
}
"""How long an operation takes with --latency real; others take 1.5 s."""

USER = f"burst@{PROJECT}.iam.gserviceaccount.com"
"""Who asks for things."""

Work = Callable[[Resource], Awaitable[None]]


class Operations:
    """Starts operations and waits for them. real: whether they take as long as in SECONDS."""

    def __init__(self, cloud: Cloud, real: bool) -> None:
        self.cloud, self.real = cloud, real
        self._ended: dict[Key, asyncio.Event] = {}
        self._requests: dict[tuple[str, str], tuple[str, Key]] = {}
        self._faults: dict[str, Rule] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def arm(self, operation: Resource, fault: Rule) -> None:
        """Let a fault happen in an operation that has just been started."""
        self._faults[operation["name"]] = fault

    def disarm(self, operation: Resource) -> Rule | None:
        """Return the fault that an operation has, which then does not happen in it."""
        return self._faults.pop(operation["name"], None)

    async def elapse(self, operation: Resource, share: float = 1.0) -> None:
        """Let the time pass that an operation takes, or a share of it.

        Work calls it before it does anything, so that an operation with a fault leaves everything as it was. Raises
        OperationError.
        """
        fault = self.disarm(operation)
        if fault is not None:
            await fault.strike()
        kind = operation["operationType"], operation["targetLink"].rsplit("/", 2)[-2]
        await asyncio.sleep(SECONDS.get(kind, 1.5) * share if self.real else 0.0)

    def start(
        self,
        verb: str,
        target: Key,
        work: Work,
        *,
        group: str = "",
        user: str = USER,
        bulk: bool = False,
    ) -> Resource:
        """Begin an operation on a resource and return it.

        work gets the operation, which it may annotate, and raises OperationError to fail it.
        """
        name = f"operation-{uuid.uuid4()}"
        key = Key(target.project, target.scope, "operations", name)
        resource = self.cloud.find(target) or {}
        operation = {
            "kind": "compute#operation",
            "id": self.cloud.new_id(),
            "name": name,
            "operationType": verb,
            "targetLink": target.link.rsplit("/", 1)[0] if bulk else target.link,
            "user": user,
            "status": "RUNNING",
            "progress": 0,
            "insertTime": now(),
            "startTime": now(),
            "selfLink": key.link,
        }
        if resource.get("id") and not bulk:
            operation["targetId"] = resource["id"]
        if target.scope != "global":
            kind, place = target.scope.split("/")
            operation[kind.removesuffix("s")] = f"{BASE}/projects/{target.project}/{kind}/{place}"
        if group:
            operation["operationGroupId"] = group
        self.cloud.put(key, operation)
        self._ended[key] = asyncio.Event()
        self.spawn(self._run(key, operation, work))
        return operation

    def spawn(self, work: Awaitable[None]) -> None:
        """Run something in the background until it ends or the server stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, key: Key, operation: Resource, work: Work) -> None:
        try:
            await work(operation)
        except OperationError as error:
            self._fail(operation, error)
        except Exception as error:
            log.exception("operation %s on %s", operation["operationType"], operation["targetLink"])
            self._fail(operation, OperationError("INTERNAL_ERROR", f"sandbox: {error!r}", 500))
        operation.update(status="DONE", progress=100, endTime=now())
        self._ended[key].set()

    @staticmethod
    def _fail(operation: Resource, error: OperationError) -> None:
        first = {"code": error.code, "message": error.message}
        operation["error"] = {"errors": [first, *error.more]}
        operation["httpErrorStatusCode"] = error.http_status
        operation["httpErrorMessage"] = HTTPStatus(error.http_status).phrase.upper()

    async def wait(self, key: Key, limit: float = WAIT_LIMIT) -> Resource:
        """Return an operation when it is done, or after limit seconds. Raises ApiError."""
        operation = self.cloud.find(key)
        if operation is None:
            raise not_found(key.path)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended[key].wait(), limit)
        return operation

    def delete(self, key: Key) -> None:
        """Forget an operation that is done. Raises ApiError."""
        operation = self.cloud.find(key)
        if operation is None:
            raise not_found(key.path)
        if operation["status"] != "DONE":
            raise ApiError(400, "operationNotDone", f"The operation '{key.path}' is not done")
        self.cloud.remove(key)
        self._ended.pop(key, None)

    def repeated(self, project: str, request_id: str, request: str) -> Resource | None:
        """Return the operation that a request with this requestId began, or None. Raises ApiError.

        request tells requests apart: the same id on another one is refused.
        """
        try:
            good = uuid.UUID(request_id).int != 0 and re.fullmatch(r"[0-9a-fA-F-]{36}", request_id)
        except ValueError:
            good = None
        if not good:
            raise invalid("requestId", request_id, "Request ID must be a valid, non-zero UUID.")
        before = self._requests.get((project, request_id))
        if before is None:
            return None
        if before[0] != request:
            raise invalid("requestId", request_id, f"The ID was used before, for {before[0]}.")
        return self.cloud.find(before[1])

    def remember(self, project: str, request_id: str, request: str, operation: Any) -> None:
        """Keep which operation a requestId began."""
        scope = "global"
        for kind in ("zone", "region"):
            if kind in operation:
                scope = f"{kind}s/{operation[kind].rsplit('/', 1)[1]}"
        key = Key(project, scope, "operations", operation["name"])
        self._requests[project, request_id] = (request, key)

    async def stop(self) -> None:
        """Cancel everything in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
