# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is the same for every kind of resource: get, list, aggregatedList, and the fixed ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from sandbox.server import catalog
from sandbox.server.api import Call, serve
from sandbox.server.query import compile_filter, order, page
from sandbox.server.state import Key, Resource


@dataclass(frozen=True)
class Collection:
    """A kind of resource: its name in `kind`, the scopes it lives in, whether it can be aggregated."""

    name: str
    kind: str
    scopes: tuple[str, ...]
    aggregated: bool = True


COLLECTIONS = (
    Collection("instances", "instance", ("zones",)),
    Collection("machineTypes", "machineType", ("zones",)),
    Collection("disks", "disk", ("zones",)),
    Collection("subnetworks", "subnetwork", ("regions",)),
    Collection("routers", "router", ("regions",)),
    Collection("addresses", "address", ("regions",)),
    Collection("resourcePolicies", "resourcePolicy", ("regions",)),
    Collection("networks", "network", ("global",), aggregated=False),
    Collection("firewalls", "firewall", ("global",), aggregated=False),
    Collection("images", "image", ("global",), aggregated=False),
)
PLACES = {"zones": "{zone}", "regions": "{region}"}


@functools.cache
def fixed(project: str, collection: str) -> dict[Key, Resource]:
    """Return the resources of a project that are always there and never change."""
    if collection == "machineTypes":
        return {
            Key(project, f"zones/{zone}", collection, name): resource
            for zone in catalog.ZONES
            for name, resource in catalog.machine_types(project, zone).items()
        }
    if collection == "images":
        return {
            Key(project, "global", collection, name): resource
            for name, resource in catalog.images(project).items()
        }
    return {}


def listed(call: Call, found: list[Resource], kind: str, base: str) -> Resource:
    """Return the answer of a list method: filtered, ordered and paged."""
    test = compile_filter(call.query.get("filter", ""))
    ordered = order(found, call.query.get("orderBy", ""), lambda it: it)
    items, token = page(ordered, call.query, test)
    answer: Resource = {
        "kind": f"compute#{kind}List",
        "id": base,
        "selfLink": f"{catalog.BASE}/{base}",
    }
    if items:
        answer["items"] = items
    if token:
        answer["nextPageToken"] = token
    return answer


def _all(call: Call, collection: str) -> dict[Key, Resource]:
    table = call.cloud.table(call.project, collection)
    always = fixed(call.project, collection)
    return {**always, **table} if always else table


def _scopes(kinds: tuple[str, ...]) -> list[str]:
    names = {"zones": list(catalog.ZONES), "regions": list(catalog.REGIONS)}
    return [
        scope
        for kind in kinds
        for scope in (["global"] if kind == "global" else [f"{kind}/{n}" for n in names[kind]])
    ]


def aggregated(call: Call, collection: Collection) -> Resource:
    """Return the answer of an aggregatedList method."""
    test = compile_filter(call.query.get("filter", ""))
    found = list(_all(call, collection.name).items())
    ordered = order(found, call.query.get("orderBy", ""), lambda pair: pair[1])
    pairs, token = page(ordered, call.query, lambda pair: test(pair[1]))
    groups: dict[str, Resource] = {}
    for scope in _scopes(collection.scopes):
        data = [{"key": "scope", "value": scope}]
        text = f"There are no results for scope '{scope}' on this page."
        groups[scope] = {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": text, "data": data}}
    for key, resource in pairs:
        if "warning" in groups[key.scope]:
            groups[key.scope] = {collection.name: []}
        groups[key.scope][collection.name].append(resource)
    base = f"projects/{call.project}/aggregated/{collection.name}"
    answer: Resource = {
        "kind": f"compute#{collection.kind}AggregatedList",
        "id": base,
        "items": groups,
        "selfLink": f"{catalog.BASE}/{base}",
    }
    if token:
        answer["nextPageToken"] = token
    return answer


def _register(collection: Collection) -> None:
    scope = collection.scopes[0]
    prefix = scope if scope == "global" else f"{scope}/{PLACES[scope]}"
    base = f"{prefix}/{collection.name}"
    singular = collection.kind

    @serve(f"{collection.name}.get", "GET", f"{base}/{{{singular}}}")
    async def get(call: Call) -> Resource:
        always = fixed(call.project, collection.name).get(call.key())
        return always or call.existing()[1]

    @serve(f"{collection.name}.list", "GET", base)
    async def list_(call: Call) -> Resource:
        found = [it for key, it in _all(call, collection.name).items() if key.scope == call.scope]
        path = f"projects/{call.project}/{call.scope}/{collection.name}"
        return listed(call, found, collection.kind, path)

    if collection.aggregated:

        @serve(f"{collection.name}.aggregatedList", "GET", f"aggregated/{collection.name}")
        async def aggregate(call: Call) -> Resource:
            return aggregated(call, collection)


for _collection in COLLECTIONS:
    _register(_collection)


@serve("zones.list", "GET", "zones")
async def list_zones(call: Call) -> Resource:
    """Return the zones."""
    found = list(catalog.zones(call.project).values())
    return listed(call, found, "zone", f"projects/{call.project}/zones")


@serve("zones.get", "GET", "zones/{zone}")
async def get_zone(call: Call) -> Resource:
    """Return a zone."""
    return catalog.zones(call.project)[call.params["zone"]]


OPERATIONS = Collection("operations", "operation", ("global", "regions", "zones"))


def _register_operations(word: str, prefix: str) -> None:
    path = f"{prefix}/operations"

    @serve(f"{word}.get", "GET", f"{path}/{{operation}}")
    async def get(call: Call) -> Resource:
        return call.existing()[1]

    @serve(f"{word}.wait", "POST", f"{path}/{{operation}}/wait")
    async def wait(call: Call) -> Resource:
        return await call.operations.wait(call.existing()[0])

    @serve(f"{word}.delete", "DELETE", f"{path}/{{operation}}")
    async def delete(call: Call) -> None:
        call.operations.delete(call.existing()[0])

    @serve(f"{word}.list", "GET", path)
    async def list_(call: Call) -> Resource:
        table = call.cloud.table(call.project, "operations")
        found = [it for key, it in table.items() if key.scope == call.scope]
        return listed(call, found, "operation", f"projects/{call.project}/{call.scope}/operations")


_register_operations("globalOperations", "global")
_register_operations("regionOperations", "regions/{region}")
_register_operations("zoneOperations", "zones/{zone}")


@serve("globalOperations.aggregatedList", "GET", "aggregated/operations")
async def aggregate_operations(call: Call) -> Resource:
    """Return the operations of all scopes."""
    return aggregated(call, OPERATIONS)
