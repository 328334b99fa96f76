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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from sandbox.server import catalog, permissions, validate
from sandbox.server.api import parse_json
from sandbox.server.errors import ApiError, invalid, required
from sandbox.server.firewalls import lets_in
from sandbox.server.kube import discovery
from sandbox.server.kube.app import KubeApp
from sandbox.server.kube.controllers import condition, fill
from sandbox.server.kube.kinds import KINDS
from sandbox.server.kube.reconciler import Controllers, Forward, Pods
from sandbox.server.kube.store import Store
from sandbox.server.oauth import Tokens
from sandbox.server.state import Cloud, Key, Resource, check_labels, parse_reference

log = logging.getLogger("sandbox.container")

ROOT = "/v1/"
LOOPBACK = "127.0.0.1"
BASE = "https://container.googleapis.com/v1"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
SECONDS = {"CREATE_CLUSTER": 4.0, "DELETE_CLUSTER": 2.0, "UPDATE_CLUSTER": 1.0}
"""How long operations take with --latency real; those of a real GKE take minutes."""
EXTERNAL = [f"203.0.113.{number}" for number in range(10, 20)]
EXTERNAL += [f"198.51.100.{number}" for number in range(1, 255)]
"""The external addresses of nodes, the sandbox's usual address of the lead first."""
NODE_CONFIG = {
    "machineType": "e2-medium",
    "diskSizeGb": 100,
    "diskType": "pd-balanced",
    "imageType": "COS_CONTAINERD",
    "serviceAccount": "default",
    "metadata": {"disable-legacy-endpoints": "true"},
}
SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")

Place = tuple[str, str, str]
"""Project, location and name of a cluster or of an operation."""
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
            "clusters.setResourceLabels": (
                "POST",
                "clusters/NAME:setResourceLabels",
                self._set_labels,
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
        method, name = found
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
        permission = f"container.{method}".replace("setResourceLabels", "update")
        if not permissions.granted(self.cloud, permission):
            why = f'Required "{permission}" permission(s) for "projects/{project}".'
            raise ApiError(403, "forbidden", why)
        return self._methods[method][2](Call((project, location, name), body or {}))

    def _match(self, verb: str, rest: str) -> tuple[str, str] | None:
        """Return the method that serves a path below a location, and the name in the path or ""."""
        for method, (wanted, pattern, _unused) in self._methods.items():
            found = re.fullmatch(pattern.replace("NAME", "([^/:]+)"), rest)
            if wanted == verb and found:
                return method, unquote(found[1]) if found.groups() else ""
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
        cluster = Cluster(place, self._resource(place, wanted), store, controllers)
        self.clusters[place] = cluster
        return self._start(place, "CREATE_CLUSTER", lambda: self._open(cluster))

    def _resource(self, place: Place, wanted: Resource) -> Resource:
        project, location, name = place
        zones = [location] if location in catalog.ZONES else list(catalog.REGIONS[location][:3])
        region = catalog.ZONES[zones[0]]
        network = self._network(project, wanted.get("network", "default"))
        link = f"{BASE}/projects/{project}/{_scope(location)}/{location}/clusters/{name}"
        subnetwork = wanted.get("subnetwork", network.name).rpartition("/")[2]
        count = wanted.get("initialNodeCount", 0)
        pools = wanted.get("nodePools") or [
            {
                "name": "default-pool",
                "initialNodeCount": count,
                "config": wanted.get("nodeConfig", {}),
            }
        ]
        shown = [
            {
                **pool,
                "config": {**NODE_CONFIG, **pool.get("config", {})},
                "locations": zones,
                "selfLink": f"{link}/nodePools/{pool['name']}",
                "status": "PROVISIONING",
                "version": discovery.GKE.removeprefix("v"),
            }
            for pool in pools
        ]
        every = sum(pool.get("initialNodeCount", 0) * len(zones) for pool in pools)
        return {
            **wanted,
            "resourceLabels": check_labels(wanted.get("resourceLabels"), "cluster.resource_labels"),
            "name": name,
            "id": uuid.uuid4().hex,
            "selfLink": link,
            "location": location,
            "zone": location,
            "locations": zones,
            "network": network.name,
            "subnetwork": subnetwork,
            "networkConfig": {
                **wanted.get("networkConfig", {}),
                "network": network.path,
                "subnetwork": f"projects/{project}/regions/{region}/subnetworks/{subnetwork}",
            },
            "nodePools": shown,
            "nodeConfig": shown[0]["config"],
            "initialNodeCount": pools[0].get("initialNodeCount", 0),
            "currentNodeCount": every,
            "currentMasterVersion": discovery.GKE.removeprefix("v"),
            "currentNodeVersion": discovery.GKE.removeprefix("v"),
            "initialClusterVersion": discovery.GKE.removeprefix("v"),
            "clusterIpv4Cidr": "10.116.0.0/14",
            "servicesIpv4Cidr": "34.118.224.0/20",
            "createTime": _now(),
            "status": "PROVISIONING",
            "labelFingerprint": uuid.uuid4().hex[:8],
        }

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
        used = {
            address["address"]
            for other in self.clusters.values()
            for node in other.store.all(("", "nodes"))
            for address in node["status"]["addresses"]
        }
        free = (address for address in EXTERNAL if address not in used)
        kind, store, resource = KINDS["", "nodes"], cluster.store, cluster.resource
        inner = 2
        for pool in resource["nodePools"]:
            group = uuid.uuid4().hex[:8]
            for zone in pool["locations"]:
                for _unused in range(pool.get("initialNodeCount", 0)):
                    name = f"gke-{resource['name'][:20]}-{pool['name'][:20]}-{group}-{uuid.uuid4().hex[:4]}"
                    node = store.create(kind, "", _node(name, zone, pool, cluster.place[0]))
                    store.set_status(
                        kind, node, _node_status(name, f"10.128.0.{inner}", next(free))
                    )
                    inner += 1

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

    def _set_labels(self, call: Call) -> Resource:
        cluster = self._settled(call)
        if call.body.get("labelFingerprint") != cluster.resource["labelFingerprint"]:
            raise ApiError(
                400, "failedPrecondition", "Labels could not be set due to fingerprint mismatch."
            )
        labels = check_labels(call.body.get("resourceLabels"), "resource_labels")
        cluster.resource.update(resourceLabels=labels, labelFingerprint=uuid.uuid4().hex[:8])
        return self._start(call.place, "UPDATE_CLUSTER", None)

    def _start(self, target: Place, what: str, work: Callable[[], Any] | None) -> Resource:
        """Begin an operation on a cluster and return it."""
        project, location, cluster = target
        name = f"operation-{uuid.uuid4()}"
        base = f"{BASE}/projects/{catalog.NUMBERS[project]}/{_scope(location)}/{location}"
        operation: Resource = {
            "name": name,
            "operationType": what,
            "status": "RUNNING",
            "location": location,
            "zone": location,
            "startTime": _now(),
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
            operation.update(status="DONE", endTime=_now())

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return dict(operation)

    async def _elapse(self, seconds: float) -> None:
        await asyncio.sleep(seconds if self.real else 0.0)

    async def stop(self) -> None:
        """End all clusters."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for cluster in list(self.clusters.values()):
            await self._shut(cluster)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _scope(location: str) -> str:
    return "zones" if location in catalog.ZONES else "regions"


def _node(name: str, zone: str, pool: Resource, project: str) -> Resource:
    region = catalog.ZONES[zone]
    return {
        "metadata": {
            "name": name,
            "labels": {
                **pool["config"].get("labels", {}),
                "beta.kubernetes.io/arch": "amd64",
                "cloud.google.com/gke-nodepool": pool["name"],
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": pool["config"]["machineType"],
                "topology.kubernetes.io/region": region,
                "topology.kubernetes.io/zone": zone,
            },
        },
        "spec": {"providerID": f"gce://{project}/{zone}/{name}", "podCIDR": "10.116.0.0/24"},
    }


def _node_status(name: str, inner: str, outer: str) -> Resource:
    return {
        "addresses": [
            {"type": "InternalIP", "address": inner},
            {"type": "ExternalIP", "address": outer},
            {"type": "Hostname", "address": name},
        ],
        "conditions": [condition("Ready", "KubeletReady", "kubelet is posting ready status")],
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
        "allocatable": {"cpu": "3920m", "memory": "13Gi", "pods": "110"},
        "nodeInfo": {
            "architecture": "amd64",
            "operatingSystem": "linux",
            "osImage": "Container-Optimized OS from Google",
            "kernelVersion": "6.6.0+",
            "containerRuntimeVersion": "containerd://2.0.0",
            "kubeletVersion": discovery.GKE,
        },
    }
