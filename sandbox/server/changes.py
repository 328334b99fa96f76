# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What insert, patch and delete have in common: busy while it happens, done when the operation is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sandbox.server.api import Call
from sandbox.server.errors import OperationError
from sandbox.server.state import Key, Resource

Then = Callable[[], Awaitable[None]]


async def nothing() -> None:
    """Do nothing afterwards."""


def insert(call: Call, key: Key, resource: Resource, then: Then = nothing) -> Resource:
    """Put a new resource and return the operation; it can be used when that is done."""
    call.cloud.put(key, resource)
    call.cloud.busy.add(key)

    async def work(operation: Resource) -> None:
        try:
            await call.operations.elapse(operation)
            await then()
        except OperationError:
            call.cloud.remove(key)
            raise
        finally:
            call.cloud.busy.discard(key)

    return call.operations.start("insert", key, work)


def change(call: Call, verb: str, key: Key, new: Resource, then: Then = nothing) -> Resource:
    """Replace the changed fields of a resource and return the operation."""
    resource = call.cloud.find(key)
    assert resource is not None
    call.cloud.busy.add(key)

    async def work(operation: Resource) -> None:
        try:
            await call.operations.elapse(operation)
            resource.clear()
            resource.update(new)
            await then()
        finally:
            call.cloud.busy.discard(key)

    return call.operations.start(verb, key, work)


def delete(call: Call, key: Key, then: Then = nothing) -> Resource:
    """Delete a resource that nothing uses and return the operation."""
    call.cloud.busy.add(key)

    async def work(operation: Resource) -> None:
        try:
            await call.operations.elapse(operation)
            call.cloud.remove(key)
            await then()
        finally:
            call.cloud.busy.discard(key)

    return call.operations.start("delete", key, work)


def merged(resource: Resource, patch: Resource) -> Resource:
    """Return a resource with a JSON merge patch (RFC 7396) applied to its top level."""
    new = {**resource, **patch}
    return {name: value for name, value in new.items() if value is not None}
