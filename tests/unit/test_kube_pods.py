# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines reach a NodePort, and what becomes of pods whose machines cannot be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandbox.machines import MachineError, MachineSpec
from sandbox.machines.records import RecordsBackend
from sandbox.server import catalog, tls
from sandbox.server.container import Container
from sandbox.server.kube.controllers import fill
from sandbox.server.kube.kinds import KINDS, Object
from sandbox.server.kube.minicluster import read
from sandbox.server.kube.store import Store
from sandbox.server.oauth import Tokens
from sandbox.server.pod_machines import PodMachines
from sandbox.server.state import Cloud, Key, Resource

SEGMENT, NAT = "sandbox-project/flux-burst-subnet", "203.0.113.20"
PLACE = (catalog.PROJECT, "us-central1-a", "c")
MINI: Object = {
    "metadata": {"name": "flux-sample", "namespace": "default"},
    "spec": {"size": 2, "maxSize": 4, "containers": [{"image": "x"}]},
}


class Noting(RecordsBackend):
    """Remembers what leads where."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards: dict[tuple[str, str, int], tuple[str, int]] = {}

    def set_forwards(self, forwards: Mapping[tuple[str, str, int], tuple[str, int]]) -> None:
        """Note it."""
        self.forwards = dict(forwards)


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    """A Container API with one running cluster of two nodes with the tag lead, a service and its pod."""
    cloud, tokens = Cloud(Noting()), Tokens("http://127.0.0.1/token")
    tokens.write(tmp_path)
    context = tls.make(tmp_path)
    made = Container(cloud, tokens, context, tmp_path / "ca.pem", PodMachines(cloud, str), False)
    body = {"cluster": {"name": "c", "initialNodeCount": 2, "nodeConfig": {"tags": ["lead"]}}}
    bearer = f"Bearer {(tmp_path / 'access_token').read_text()}"
    path = f"/v1/projects/{PLACE[0]}/locations/{PLACE[1]}/clusters"
    status, answer, _asked = made.answer("POST", path, {}, json.dumps(body).encode(), bearer)
    assert status == 200, answer
    await until(lambda: made.clusters[PLACE].resource["status"] == "RUNNING")
    store = made.clusters[PLACE].store
    pod = {
        "metadata": {"name": "lead", "labels": {"job-index": "0"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    running = {"phase": "Running", "podIP": "10.77.0.10"}
    store.set_status(KINDS["", "pods"], store.create(KINDS["", "pods"], "default", pod), running)
    ports = [{"port": 8050, "nodePort": 30093}]
    service = {
        "metadata": {"name": "lead"},
        "spec": {"type": "NodePort", "ports": ports, "selector": {"job-index": "0"}},
    }
    store.create(KINDS["", "services"], "default", service)
    cloud.nat[SEGMENT] = NAT
    yield made
    await made.stop()


async def until(holds: Callable[[], object]) -> None:
    """Return once something is so."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.02)


def rule(cloud: Cloud, **changes: Any) -> None:
    """Put a firewall rule that lets the NAT in, but for the changes."""
    key = Key(catalog.PROJECT, "global", "firewalls", "lead")
    network = Key(catalog.PROJECT, "global", "networks", "default")
    fields: Resource = {
        "network": network.link,
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "sourceRanges": [f"{NAT}/32"],
        "targetTags": ["lead"],
        "allowed": [{"IPProtocol": "tcp", "ports": ["30093"]}],
        **changes,
    }
    cloud.put(key, cloud.new(key, "firewall", fields))


def forwards(container: Container) -> dict[tuple[str, str, int], tuple[str, int]]:
    backend = container.cloud.backend
    assert isinstance(backend, Noting)
    return backend.forwards


async def test_a_node_port_is_open_on_every_node_to_whom_the_firewall_lets_in(
    container: Container,
) -> None:
    rule(container.cloud)
    wanted = {
        (SEGMENT, address, 30093): ("10.77.0.10", 8050)
        for address in ("203.0.113.10", "203.0.113.11")
    }
    await until(lambda: forwards(container) == wanted)
    # What shuts it is seen without anything happening in the cluster.
    rule(container.cloud, disabled=True)
    await until(lambda: forwards(container) == {})


@pytest.mark.parametrize(
    "changes",
    [
        {"sourceRanges": ["198.51.100.0/24"]},
        {"targetTags": ["other"]},
        {"allowed": [{"IPProtocol": "tcp", "ports": ["30094"]}]},
    ],
)
async def test_a_node_port_is_shut_to_everybody_else(
    container: Container, changes: dict[str, Any]
) -> None:
    rule(container.cloud)
    await until(lambda: forwards(container))
    rule(container.cloud, **changes)
    await until(lambda: forwards(container) == {})


async def test_a_port_leads_nowhere_without_its_pod(container: Container) -> None:
    rule(container.cloud)
    await until(lambda: forwards(container))
    store = container.clusters[PLACE].store
    store.remove(KINDS["", "pods"], store.get(KINDS["", "pods"], "default", "lead"))
    await until(lambda: forwards(container) == {})


async def test_with_a_local_policy_only_the_pods_own_node_leads_to_it(container: Container) -> None:
    rule(container.cloud)
    store = container.clusters[PLACE].store
    node = store.all(("", "nodes"))[0]
    pod = store.get(KINDS["", "pods"], "default", "lead")
    spec = {**pod["spec"], "nodeName": node["metadata"]["name"]}
    store.update(KINDS["", "pods"], pod, {**pod, "spec": spec})
    service = store.get(KINDS["", "services"], "default", "lead")
    local = {**service["spec"], "externalTrafficPolicy": "Local"}
    store.update(KINDS["", "services"], service, {**service, "spec": local})
    [address] = [it["address"] for it in node["status"]["addresses"] if it["type"] == "ExternalIP"]
    await until(lambda: [key[1] for key in forwards(container)] == [address])
    # A node that goes takes its pods with it.
    store.remove(KINDS["", "nodes"], node)
    await until(lambda: forwards(container) == {})
    assert store.find(("", "pods"), "default", "lead") is None


async def test_a_pods_machine_never_takes_the_place_of_the_sandboxs_own_lead() -> None:
    cloud = Cloud(Noting())
    pods = PodMachines(cloud, lambda: "ssh-ed25519 AAAA x")
    first = PodMachines(cloud, lambda: "ssh-ed25519 AAAA x")
    address = await first.start(read(MINI), 0, first.certificate())
    with pytest.raises(MachineError, match="--lead gke"):
        await pods.start(read(MINI), 0, pods.certificate())
    # Nor is it taken away with the pod.
    await pods.stop("flux-sample-0")
    assert cloud.backend.running("sandbox-site", "flux-sample-0")
    assert address == "10.77.0.10"


async def test_the_pods_of_one_minicluster_know_each_others_addresses() -> None:
    made: list[MachineSpec] = []

    class Keeping(Noting):
        def create(self, spec: MachineSpec) -> None:
            made.append(spec)
            super().create(spec)

    pods = PodMachines(Cloud(Keeping()), lambda: "ssh-ed25519 AAAA x")
    certificate = pods.certificate()
    for index in (0, 1):
        await pods.start(read(MINI), index, certificate)
    hosts = [spec.files["/etc/hosts"].content.decode() for spec in made]
    assert hosts[0] == hosts[1]
    for spec in made:
        assert f"{spec.address} {spec.name} {spec.name}.flux-service.default.svc" in hosts[0]
    same = "/mnt/flux/config/curve/curve.cert", "/etc/munge/munge.key"
    assert all(made[0].files[path].content == made[1].files[path].content for path in same)
    assert all(made[0].files[path].mode & 0o077 == 0 for path in same)


def test_finalizers_hold_an_object_until_they_are_taken_off() -> None:
    store, kind = Store(fill), KINDS["", "configmaps"]
    store.create(KINDS["", "namespaces"], "", {"metadata": {"name": "default"}})
    body = {"metadata": {"name": "c", "finalizers": ["x/y"]}}
    thing = store.delete(kind, store.create(kind, "default", body))
    assert "deletionTimestamp" in store.get(kind, "default", "c")["metadata"]
    metadata = {**thing["metadata"], "finalizers": []}
    store.update(kind, thing, {**thing, "metadata": metadata})
    assert store.find(kind.table, "default", "c") is None
