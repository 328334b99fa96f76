# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Container API (GKE), and the Kubernetes API of each of its clusters, on a port of its own."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from sandbox.server import catalog, gke, permissions, validate
from sandbox.server.api import parse_json
from sandbox.server.errors import ApiError, invalid, required
from sandbox.server.firewalls import lets_in
from sandbox.server.gke import Place
from sandbox.server.kube.app import KubeApp
from sandbox.server.kube.controllers import fill
from sandbox.server.kube.kinds import KINDS
from sandbox.server.kube.reconciler import Controllers, Forward, Pods
from sandbox.server.kube.selectors import selects
from sandbox.server.kube.store import Store
from sandbox.server.oauth import Tokens
from sandbox.server.state import Cloud, Key, Resource, parse_reference

log = logging.getLogger("sandbox.container")

ROOT = "/v1/"
LOOPBACK = "127.0.0.1"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
SECONDS = {
    "CREATE_CLUSTER": 4.0,
    "DELETE_CLUSTER": 2.0,
    "UPDATE_CLUSTER": 1.0,
    "SET_NODE_POOL_SIZE": 2.0,
}
"""How long operations take with --latency real; those of a real GKE take minutes."""
EXTERNAL = [f"203.0.113.{number}" for number in range(10, 20)]
EXTERNAL += [f"198.51.100.{number}" for number in range(1, 255)]
"""The external addresses of nodes, the sandbox's usual address of the lead first."""
INTERNAL = [f"10.128.0.{number}" for number in range(2, 255)]
POOL_LABEL, ZONE_LABEL = "cloud.google.com/gke-nodepool", "topology.kubernetes.io/zone"
SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")

Segment = tuple[str, str, int]
"""A segment, and a node's address and port, as the segment's machines reach it."""


@dataclass
class Cluster:
    """A cluster: what a GET returns, and what serves it once it runs."""

    place: Place
    resource: Resource
    store: Store
    controllers: Controllers
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    runner: web.AppRunner | None = None
    forwards: Mapping[Forward, Forward] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One call: the place that its path names (name may be ""), and its body."""

    place: Place
    body: Resource
    pool: str


class Container:
    """Serves the Container API. pods makes the machines of pods; real: whether operations take time."""

    def __init__(
        self,
        cloud: Cloud,
        tokens: Tokens,
        context: ssl.SSLContext,
        ca_file: Path,
        pods: Pods,
        real: bool,
    ) -> None:
        self.cloud, self.tokens, self.context, self.pods = cloud, tokens, context, pods
        self.ca = base64.b64encode(ca_file.read_bytes()).decode()
        self.real = real
        self.clusters: dict[Place, Cluster] = {}
        self.operations: dict[Place, Resource] = {}
        self.document = validate.load("container")
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwarded: dict[Segment, Forward] = {}
        self._forwarding = asyncio.Lock()
        self._methods: dict[str, tuple[str, str, Callable[[Call], Resource]]] = {
            "clusters.list": ("GET", "clusters", self._list),
            "clusters.create": ("POST", "clusters", self._create),
            "clusters.get": ("GET", "clusters/NAME", self._get),
            "clusters.delete": ("DELETE", "clusters/NAME", self._delete),
            "clusters.update": ("PUT", "clusters/NAME", self._change(gke.update)),
            "clusters.setAddons": (
                "POST",
                "clusters/NAME:setAddons",
                self._change(gke.set_addons),
            ),
            "clusters.setNetworkPolicy": (
                "POST",
                "clusters/NAME:setNetworkPolicy",
                self._change(gke.set_network_policy),
            ),
            "clusters.setResourceLabels": (
                "POST",
                "clusters/NAME:setResourceLabels",
                self._change(gke.set_labels),
            ),
            "clusters.nodePools.setSize": (
                "POST",
                "clusters/NAME/nodePools/NAME:setSize",
                self._set_size,
            ),
            "operations.list": ("GET", "operations", self._list_operations),
            "operations.get": ("GET", "operations/NAME", self._operation),
        }

    def answer(
        self, verb: str, path: str, query: Mapping[str, str], body: bytes, authorization: str | None
    ) -> tuple[int, Resource, Any]:
        """Return HTTP status, JSON answer and the request's body as JSON."""
        request: Any = None
        try:
            request = parse_json(body)
            if not self.tokens.good(authorization):
                raise ApiError(401, "unauthorized", "Request had invalid credentials.")
            return 200, self._call(verb, path, query, request), request
        except ApiError as error:
            return error.code, error.body(), request

    def _call(self, verb: str, path: str, query: Mapping[str, str], body: Any) -> Resource:
        words = path.removeprefix(ROOT).split("/", 4)
        project, location, rest = unquote(words[1]), unquote(words[3]), words[4]
        found = self._match(verb, rest)
        if found is None:
            raise ApiError(404, "notFound", f"The sandbox does not serve {verb} {path}")
        method, names = found
        if body is not None and not isinstance(body, dict):
            raise ApiError(400, "parseError", "Parse Error")
        if self.document is not None:
            whole = f"projects.locations.{method}"
            problems = self.document.request_problems(whole, query, body)
            if problems:
                raise ApiError(400, problems[0].reason, problems[0].message)
        if project not in catalog.NUMBERS:
            raise ApiError(404, "notFound", f"Not found: projects/{project}.")
        if location not in (*catalog.ZONES, *catalog.REGIONS, "-"):
            raise ApiError(400, "badRequest", f'Location "{location}" does not exist.')
        permission = _permission(method)
        if not permissions.granted(self.cloud, permission):
            why = f'Required "{permission}" permission(s) for "projects/{project}".'
            raise ApiError(403, "forbidden", why)
        return self._methods[method][2](Call((project, location, names[0]), body or {}, names[1]))

    def _match(self, verb: str, rest: str) -> tuple[str, list[str]] | None:
        """Return the method that serves a path below a location, and the names in the path, at least two."""
        for method, (wanted, pattern, _unused) in self._methods.items():
            found = re.fullmatch(pattern.replace("NAME", "([^/:]+)"), rest)
            if wanted == verb and found:
                return method, [*map(unquote, found.groups()), "", ""]
        return None

    def _existing(self, call: Call) -> Cluster:
        found = self.clusters.get(call.place)
        if found is None:
            project, location, name = call.place
            what = f"projects/{project}/locations/{location}/clusters/{name}"
            raise ApiError(404, "notFound", f"Not found: {what}.")
        return found

    def _settled(self, call: Call) -> Cluster:
        found = self._existing(call)
        if found.resource["status"] != "RUNNING":
            why = f"Cluster is running incompatible operation: its status is {found.resource['status']}."
            raise ApiError(400, "failedPrecondition", why)
        return found

    def _list(self, call: Call) -> Resource:
        project, location, _unused = call.place
        found = [
            it.resource
            for place, it in sorted(self.clusters.items())
            if place[0] == project and location in ("-", place[1])
        ]
        return {"clusters": found} if found else {}

    def _get(self, call: Call) -> Resource:
        return self._existing(call).resource

    def _list_operations(self, call: Call) -> Resource:
        project, location, _unused = call.place
        found = [
            it
            for place, it in self.operations.items()
            if place[0] == project and location in ("-", place[1])
        ]
        return {"operations": found} if found else {}

    def _operation(self, call: Call) -> Resource:
        found = self.operations.get(call.place)
        if found is None:
            raise ApiError(404, "notFound", f"Not found: operation {call.place[2]}.")
        return found

    def _create(self, call: Call) -> Resource:
        project, location, _unused = call.place
        wanted = call.body.get("cluster") or {}
        name = wanted.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise invalid("cluster.name", name, f"Must be a match of regex '{NAME.pattern}'")
        place = (project, location, name)
        if place in self.clusters:
            what = f"projects/{project}/locations/{location}/clusters/{name}"
            raise ApiError(409, "alreadyExists", f"Already exists: {what}.")
        if not wanted.get("nodePools") and not wanted.get("initialNodeCount"):
            raise required("cluster.initial_node_count")
        store = Store(fill)

        async def forward(found: Mapping[Forward, Forward]) -> None:
            cluster.forwards = found
            await self._forward()

        controllers = Controllers(store, self.pods, forward, self._elapse)
        network = self._network(project, wanted.get("network", "default"))
        cluster = Cluster(place, gke.resource(place, wanted, network), store, controllers)
        self.clusters[place] = cluster
        return self._start(place, "CREATE_CLUSTER", lambda: self._open(cluster))

    def _network(self, project: str, value: str) -> Key:
        """Return the key of a cluster's network. The one called default is there as in every new project."""
        name = value if "/" in value else f"global/networks/{value}"
        key = parse_reference(name, project)
        default = Key(project, "global", "networks", "default")
        if key == default and self.cloud.find(key) is None:
            fields: Resource = {
                "autoCreateSubnetworks": False,
                "routingConfig": {"routingMode": "REGIONAL"},
            }
            self.cloud.put(key, self.cloud.new(key, "network", fields))
        if key is None or self.cloud.find(key) is None:
            raise ApiError(400, "badRequest", f'Network "{value}" does not exist.')
        return key

    async def _open(self, cluster: Cluster) -> None:
        store, resource = cluster.store, cluster.resource
        for name in SYSTEM_NAMESPACES:
            store.create(KINDS["", "namespaces"], "", {"metadata": {"name": name}})
        self._nodes(cluster)
        app = KubeApp(store, cluster.controllers, self.tokens.good)
        cluster.runner = web.AppRunner(app.application(), access_log=None, shutdown_timeout=0.5)
        await cluster.runner.setup()
        await web.TCPSite(cluster.runner, LOOPBACK, 0, ssl_context=self.context).start()
        port = cluster.runner.addresses[0][1]
        cluster.tasks.append(asyncio.ensure_future(cluster.controllers.run()))
        for pool in resource["nodePools"]:
            pool["status"] = "RUNNING"
        resource.update(
            status="RUNNING",
            endpoint=f"{LOOPBACK}:{port}",
            masterAuth={"clusterCaCertificate": self.ca},
        )

    def _nodes(self, cluster: Cluster) -> None:
        """Bring the nodes of a cluster to their number."""
        kind, store = KINDS["", "nodes"], cluster.store
        for pool in cluster.resource["nodePools"]:
            pool.setdefault("etag", uuid.uuid4().hex)
            for zone in pool["locations"]:
                labels = {POOL_LABEL: pool["name"], ZONE_LABEL: zone}
                here = [it for it in store.all(kind.table) if selects(labels, it)]
                for gone in here[pool["initialNodeCount"] :]:
                    store.remove(kind, gone)
                for _unused in range(pool["initialNodeCount"] - len(here)):
                    self._node(cluster, pool, zone)
        every = store.all(kind.table)
        cluster.resource.update(
            currentNodeCount=len(every),
            initialNodeCount=cluster.resource["nodePools"][0]["initialNodeCount"],
        )

    def _node(self, cluster: Cluster, pool: Resource, zone: str) -> None:
        used = {
            address["address"]
            for other in self.clusters.values()
            for it in other.store.all(("", "nodes"))
            for address in it["status"]["addresses"]
        }
        outer = next(address for address in EXTERNAL if address not in used)
        inner = next(it for it in INTERNAL if it not in used)
        words = (cluster.place[2][:20], pool["name"][:20], pool["etag"][:8], uuid.uuid4().hex[:4])
        name = f"gke-{'-'.join(words)}"
        kind, store = KINDS["", "nodes"], cluster.store
        node = store.create(kind, "", gke.node(name, zone, pool, cluster.place[0]))
        store.set_status(kind, node, gke.node_status(name, inner, outer))

    async def _forward(self) -> None:
        """Let the machines of every segment reach what firewall rules let them reach of nodes' ports."""
        async with self._forwarding:
            found: dict[Segment, Forward] = {}
            for cluster in self.clusters.values():
                tags = [
                    tag
                    for pool in cluster.resource["nodePools"]
                    for tag in pool["config"].get("tags", ())
                ]
                network = self._network(cluster.place[0], cluster.resource["network"]).link
                node = {"tags": {"items": tags}, "networkInterfaces": [{"network": network}]}
                for (address, port), pod in cluster.forwards.items():
                    for segment, source in self.cloud.nat.items():
                        if lets_in(self.cloud, node, source, port):
                            found[segment, address, port] = pod
            if found != self._forwarded:
                await self.cloud.thread(self.cloud.backend.set_forwards, found)
                self._forwarded = found

    def _delete(self, call: Call) -> Resource:
        cluster = self._settled(call)
        cluster.resource["status"] = "STOPPING"
        return self._start(call.place, "DELETE_CLUSTER", lambda: self._drop(cluster))

    async def _drop(self, cluster: Cluster) -> None:
        await self._shut(cluster)
        self.clusters.pop(cluster.place, None)
        await self._forward()

    async def _shut(self, cluster: Cluster) -> None:
        for task in cluster.tasks:
            task.cancel()
        await asyncio.gather(*cluster.tasks, return_exceptions=True)
        await cluster.controllers.stop()
        if cluster.runner:
            await cluster.runner.cleanup()

    def _change(self, what: Callable[[Resource, Resource], None]) -> Callable[[Call], Resource]:
        def handle(call: Call) -> Resource:
            what(self._settled(call).resource, call.body)
            return self._start(call.place, "UPDATE_CLUSTER", None)

        return handle

    def _set_size(self, call: Call) -> Resource:
        cluster = self._settled(call)
        pools = [pool for pool in cluster.resource["nodePools"] if pool["name"] == call.pool]
        if not pools:
            raise ApiError(404, "notFound", f"Not found: node pool {call.pool}.")
        count = call.body.get("nodeCount", 0)

        async def resize() -> None:
            pools[0]["initialNodeCount"] = count
            self._nodes(cluster)

        return self._start(call.place, "SET_NODE_POOL_SIZE", resize)

    def _start(self, target: Place, what: str, work: Callable[[], Any] | None) -> Resource:
        """Begin an operation on a cluster and return it."""
        project, location, cluster = target
        name = f"operation-{uuid.uuid4()}"
        base = f"{gke.BASE}/projects/{catalog.NUMBERS[project]}/{gke.scope(location)}/{location}"
        operation: Resource = {
            "name": name,
            "operationType": what,
            "status": "RUNNING",
            "location": location,
            "zone": location,
            "startTime": gke.now(),
            "selfLink": f"{base}/operations/{name}",
            "targetLink": f"{base}/clusters/{cluster}",
        }
        self.operations[project, location, name] = operation

        async def run() -> None:
            await self._elapse(SECONDS[what])
            try:
                if work is not None:
                    await work()
            except Exception as error:
                log.exception("operation %s on %s", what, cluster)
                operation["error"] = {"code": 13, "message": f"sandbox: {error!r}"}
            operation.update(status="DONE", endTime=gke.now())

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return dict(operation)

    async def _elapse(self, seconds: float) -> None:
        await asyncio.sleep(seconds if self.real else 0.0)

    def told(self, project: str) -> dict[str, list[str]]:
        """Return what the sandbox's status says of a project's clusters: nothing where it has none."""
        found = sorted(name for owner, _unused, name in self.clusters if owner == project)
        return {"clusters": found} if found else {}

    async def stop(self) -> None:
        """End all clusters."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for cluster in list(self.clusters.values()):
            await self._shut(cluster)


def _permission(method: str) -> str:
    """Return the IAM permission that a method needs: all changes of a cluster need one and the same."""
    kind, _unused, verb = method.partition(".")
    return f"container.{kind}.{verb if verb in ('create', 'delete', 'get', 'list') else 'update'}"
