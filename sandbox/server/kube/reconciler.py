# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controllers of a cluster: what they make of deployments and MiniClusters, and the machines behind pods."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from sandbox.machines import MachineError
from sandbox.server.kube import minicluster
from sandbox.server.kube.controllers import condition, containers, ready_conditions, roll_out
from sandbox.server.kube.errors import KubeError
from sandbox.server.kube.kinds import KINDS, Kind, Object
from sandbox.server.kube.minicluster import MINICLUSTERS, MiniCluster
from sandbox.server.kube.selectors import selects
from sandbox.server.kube.store import Store

log = logging.getLogger("sandbox.kube")

OPERATOR_IMAGE = "flux-operator"
PODS, SERVICES, NODES = ("", "pods"), ("", "services"), ("", "nodes")
JOBS, DEPLOYMENTS, CONFIGMAPS = ("batch", "jobs"), ("apps", "deployments"), ("", "configmaps")
LOOK_SECONDS = 0.5
"""How often what is outside of the cluster, such as firewall rules, is looked at."""
RETRY_SECONDS = 5.0
"""How long a pod whose machine did not start waits for the next attempt."""

Forward = tuple[str, int]


class Pods(Protocol):
    """The machines that pods are."""

    def certificate(self) -> str:
        """Return a new CURVE certificate for a MiniCluster."""

    async def start(self, mini: MiniCluster, index: int, certificate: str) -> str:
        """Boot the machine of an index and return its address. Raises MachineError."""

    async def stop(self, hostname: str) -> None:
        """Take a machine away. Idempotent."""

    async def command(self, hostname: str, words: list[str]) -> list[str]:
        """Return the command that runs another in a machine. Raises MachineError."""

    async def log(self, hostname: str) -> str:
        """Return what a machine has written to its console."""


class Controllers:
    """Brings what is there to what is wanted, again and again.

    forward gets what each node's port leads to whenever it is looked at: (node's address, port) -> (pod's address,
    port). elapse lets as many seconds pass as a real cluster would need.
    """

    def __init__(
        self,
        store: Store,
        pods: Pods,
        forward: Callable[[Mapping[Forward, Forward]], Awaitable[None]],
        elapse: Callable[[float], Awaitable[None]],
    ) -> None:
        self.store, self.pods, self.forward, self.elapse = store, pods, forward, elapse
        self._hosts: dict[str, str] = {}  # uid of a pod -> its machine, "" if it has none
        self._nodes: dict[tuple[str, str, int], str] = {}  # where an index was last
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}
        self._rolling: set[str] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            version = self.store.version
            try:
                self._deployments()
                self._evict()
                self._miniclusters()
                self._machines()
                await self.forward(self.forwards())
            except (KubeError, MachineError) as error:
                log.warning("reconciling failed: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.store.wait(version), LOOK_SECONDS)

    async def stop(self) -> None:
        """Take all machines away."""
        # What boots now has to be there before it can be taken away.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for host in filter(None, self._hosts.values()):
            await self.pods.stop(host)
        self._hosts.clear()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _deployments(self) -> None:
        for thing in self.store.all(DEPLOYMENTS):
            seen = thing.get("status", {}).get("observedGeneration")
            uid = thing["metadata"]["uid"]
            if seen != thing["metadata"]["generation"] and uid not in self._rolling:
                self._rolling.add(uid)
                self._spawn(
                    self._roll_out(thing["metadata"]["namespace"], thing["metadata"]["name"], uid)
                )

    async def _roll_out(self, namespace: str, name: str, uid: str) -> None:
        await self.elapse(1.0)
        self._rolling.discard(uid)
        thing = self.store.find(DEPLOYMENTS, namespace, name)
        if thing is not None:
            roll_out(self.store, thing)

    def _evict(self) -> None:
        """Remove the pods of nodes that are gone."""
        nodes = {node["metadata"]["name"] for node in self.store.all(NODES)}
        for pod in self.store.all(PODS):
            if pod["spec"].get("nodeName") not in (None, *nodes):
                self.store.remove(KINDS[PODS], pod)

    def _operated(self) -> bool:
        """Return whether the Flux Operator runs."""
        return any(
            OPERATOR_IMAGE in container["image"]
            for thing in self.store.all(DEPLOYMENTS)
            if thing.get("status", {}).get("availableReplicas")
            for container in thing["spec"]["template"]["spec"]["containers"]
        )

    def _miniclusters(self) -> None:
        kinds = [kind for kind in self.store.kinds() if kind.table == MINICLUSTERS]
        for thing in self.store.all(MINICLUSTERS) if kinds and self._operated() else ():
            self._minicluster(kinds[0], thing)

    def _minicluster(self, kind: Kind, thing: Object) -> None:
        mini, space = minicluster.read(thing), thing["metadata"]["namespace"]
        config = f"{mini.name}-entrypoint"
        if self.store.find(CONFIGMAPS, space, config) is None:
            body = {
                "metadata": {
                    "name": config,
                    "ownerReferences": minicluster.headless(kind, thing)["metadata"][
                        "ownerReferences"
                    ],
                },
                "data": {"curve.cert": self.pods.certificate()},
            }
            self.store.create(KINDS[CONFIGMAPS], space, body)
        if self.store.find(SERVICES, space, mini.service) is None:
            self.store.create(KINDS[SERVICES], space, minicluster.headless(kind, thing))
        job = self.store.find(JOBS, space, mini.name)
        if job is None:
            job = self.store.create(KINDS[JOBS], space, minicluster.job(kind, thing))
        if job["spec"]["parallelism"] != mini.size:
            spec = {**job["spec"], "parallelism": mini.size, "completions": mini.size}
            job = self.store.update(KINDS[JOBS], job, {**job, "spec": spec})
        pods = self._index_pods(job)
        for index in range(mini.size):
            if index not in pods:
                self._place(job, mini, index)
        for index, pod in pods.items():
            if index >= mini.size:
                self.store.remove(KINDS[PODS], pod)
        self._tell(kind, thing, mini, job)

    def _place(self, job: Object, mini: MiniCluster, index: int) -> None:
        """Make the pod of an index, on another node than the one that it was on last."""
        load = {
            node["metadata"]["name"]: 0
            for node in self.store.all(NODES)
            if not node["spec"].get("unschedulable")
        }
        for pod in self.store.all(PODS):
            if pod["spec"].get("nodeName") in load and "job-name" in pod["metadata"]["labels"]:
                load[pod["spec"]["nodeName"]] += 1
        key = (mini.namespace, mini.name, index)
        last = self._nodes.get(key)
        node = min(load, key=lambda name: (name == last, load[name]), default="")
        if node:
            self._nodes[key] = node
            self.store.create(KINDS[PODS], mini.namespace, minicluster.pod(job, index, node))

    def _index_pods(self, job: Object) -> dict[int, Object]:
        return {
            int(pod["metadata"]["labels"]["job-index"]): pod
            for pod in self.store.all(PODS, job["metadata"]["namespace"])
            if pod["metadata"].get("labels", {}).get("controller-uid") == job["metadata"]["uid"]
        }

    def _tell(self, kind: Kind, thing: Object, mini: MiniCluster, job: Object) -> None:
        pods = self._index_pods(job).values()
        ready = sum(pod.get("status", {}).get("phase") == "Running" for pod in pods)
        started = job.get("status", {}).get("startTime") or job["metadata"]["creationTimestamp"]
        self.store.set_status(
            KINDS[JOBS],
            job,
            {
                "active": len(pods),
                "ready": ready,
                "startTime": started,
                "uncountedTerminatedPods": {},
            },
        )
        name = "JobMiniClusterReady"
        known = thing.get("status", {}).get("conditions") or [condition(name, name, name)]
        self.store.set_status(
            kind,
            thing,
            {
                "conditions": known,
                "jobid": "",
                "maximumSize": mini.max_size,
                "selector": f"hpa-selector={mini.name}",
                "size": mini.size,
            },
        )

    def _machines(self) -> None:
        """Boot the machines of new pods, take those of gone ones away."""
        there = {}
        for job in self.store.all(JOBS):
            there.update({pod["metadata"]["uid"]: pod for pod in self._index_pods(job).values()})
        for uid in [uid for uid in self._hosts if uid not in there]:
            if host := self._hosts.pop(uid):
                self._spawn(self._stop(host))
        for uid, pod in there.items():
            if uid not in self._hosts:
                self._hosts[uid] = pod["spec"]["hostname"]
                self._spawn(self._start(pod))

    def _lock(self, host: str) -> asyncio.Lock:
        return self._locks.setdefault(host, asyncio.Lock())

    async def _stop(self, host: str) -> None:
        async with self._lock(host):
            await self.pods.stop(host)

    async def _start(self, pod: Object) -> None:
        labels, space = pod["metadata"]["labels"], pod["metadata"]["namespace"]
        thing = self.store.find(MINICLUSTERS, space, labels["job-name"])
        config = self.store.find(CONFIGMAPS, space, f"{labels['job-name']}-entrypoint")
        if thing is None or config is None:
            return
        self._set(pod, {"phase": "Pending", **containers(pod, False)})
        await self.elapse(1.0)
        mini = minicluster.read(thing)
        async with self._lock(pod["spec"]["hostname"]):
            if self._now(pod) is None:
                return
            try:
                address = await self.pods.start(
                    mini, int(labels["job-index"]), config["data"]["curve.cert"]
                )
            except MachineError as error:
                log.warning("pod %s: %s", pod["metadata"]["name"], error)
                self._set(pod, {"phase": "Pending", "message": str(error)})
                # A machine of that name may be another pod's.
                uid = pod["metadata"]["uid"]
                self._hosts[uid] = ""
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._hosts.pop, uid, None)
                return
        node = self.store.find(NODES, "", pod["spec"]["nodeName"])
        inner = [it["address"] for it in (node or {}).get("status", {}).get("addresses", ())]
        self._set(
            pod,
            {
                "phase": "Running",
                "conditions": ready_conditions(),
                "podIP": address,
                "podIPs": [{"ip": address}],
                "hostIP": inner[0] if inner else "",
                **containers(pod),
            },
        )

    def _set(self, pod: Object, status: dict[str, Any]) -> None:
        """Change the status of a pod that may be gone by now."""
        found = self._now(pod)
        if found is not None:
            self.store.set_status(KINDS[PODS], found, status)

    def _now(self, pod: Object) -> Object | None:
        """Return a pod as it is now; None where it is gone."""
        metadata = pod["metadata"]
        found = self.store.find(PODS, metadata["namespace"], metadata["name"])
        return found if found is not None and found["metadata"]["uid"] == metadata["uid"] else None

    def forwards(self) -> dict[Forward, Forward]:
        """Return what each node's port leads to: the first running pod that its service selects."""
        nodes = {node["metadata"]["name"]: _external(node) for node in self.store.all(NODES)}
        found = {}
        for service in self.store.all(SERVICES):
            spec = service["spec"]
            pods = [
                pod
                for pod in self.store.all(PODS, service["metadata"]["namespace"])
                if selects(spec.get("selector", {}), pod) and pod.get("status", {}).get("podIP")
            ]
            local = spec.get("externalTrafficPolicy") == "Local"
            for port in spec.get("ports", ()) if pods else ():
                # A port that is named would be looked up in the containers, which have none here.
                if "nodePort" not in port or not isinstance(port["targetPort"], int):
                    continue
                there = pods[0]["status"]["podIP"], port["targetPort"]
                for name, address in nodes.items():
                    if address and (not local or name == pods[0]["spec"].get("nodeName")):
                        found[address, port["nodePort"]] = there
        return found

    async def command(self, pod: Object, words: list[str]) -> list[str]:
        """Return the command that runs another in a pod. Raises KubeError."""
        host = self._running(pod)
        try:
            return await self.pods.command(host, words)
        except MachineError as error:
            raise KubeError(500, "InternalError", f"error executing command: {error}") from None

    async def log(self, pod: Object) -> str:
        """Return what a pod's machine has written to its console. Raises KubeError."""
        return await self.pods.log(self._running(pod))

    def _running(self, pod: Object) -> str:
        name, phase = pod["metadata"]["name"], pod.get("status", {}).get("phase")
        host = self._hosts.get(pod["metadata"]["uid"])
        if phase != "Running":
            why = f"pod {name} does not have a host assigned or does not run: its phase is {phase}"
            raise KubeError(400, "BadRequest", why)
        if not host:
            why = f"pod {name} is the sandbox's own part of the cluster: there is nothing to enter"
            raise KubeError(500, "InternalError", why)
        return host


def _external(node: Object) -> str:
    every = node.get("status", {}).get("addresses", ())
    return next((it["address"] for it in every if it["type"] == "ExternalIP"), "")
