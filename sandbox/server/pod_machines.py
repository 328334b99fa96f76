# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines that the pods of MiniClusters are."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from sandbox import site
from sandbox.machines import MachineError, MachineSpec
from sandbox.pods import pod_machine
from sandbox.server import site_project
from sandbox.server.kube.minicluster import MiniCluster
from sandbox.server.state import Cloud

INIT_SECONDS = 20.0
FIRST, OTHERS = 10, 20
"""The last number of the first pod's address where no lead was there before, and where one was."""


class PodMachines:
    """Boots and deletes machines by the hostnames of pods. See sandbox.server.kube.reconciler.Pods.

    ssh_key returns the public key of the sandbox's user.
    """

    def __init__(self, cloud: Cloud, ssh_key: Callable[[], str]) -> None:
        self.cloud, self.ssh_key = cloud, ssh_key
        self._started: set[str] = set()
        self._addresses: dict[tuple[str, str], list[str]] = {}
        self._munge_keys: dict[str, bytes] = {}

    def certificate(self) -> str:
        """Return a new certificate."""
        return site.curve_certificate("operator").decode()

    def _block(self, mini: MiniCluster) -> list[str]:
        """Return the addresses of a MiniCluster's pods. Raises MachineError."""
        key = (mini.namespace, mini.name)
        if key not in self._addresses or len(self._addresses[key]) < mini.max_size:
            there = site_project.addresses(self.cloud) - set(self._addresses.get(key, ()))
            used = {
                address
                for other, block in self._addresses.items()
                if other != key
                for address in block
            }
            prefix = site.GATEWAY.rpartition(".")[0]
            start = OTHERS if there else FIRST
            free = [f"{prefix}.{number}" for number in range(start, 250)]
            free = [address for address in free if address not in used]
            if len(free) < mini.max_size:
                raise MachineError(
                    f"there are {len(free)} addresses left for the pods of {mini.name}"
                )
            self._addresses[key] = free[: mini.max_size]
        return self._addresses[key]

    async def start(self, mini: MiniCluster, index: int, certificate: str) -> str:
        """Boot a machine."""
        name = f"{mini.name}-{index}"
        if site_project.has(self.cloud, name):
            raise MachineError(
                f"wanted the name {name} free for a pod's machine, found a machine of that name: where it is the "
                "sandbox's own lead, start the sandbox with --lead gke"
            )
        addresses = self._block(mini)
        munge = self._munge_keys.setdefault(certificate, secrets.token_bytes(128))
        spec = pod_machine(mini, index, addresses, certificate, munge, self.ssh_key())
        await self._boot(spec)
        return spec.address

    async def _boot(self, spec: MachineSpec) -> None:
        site_project.register(self.cloud, [spec])
        self._started.add(spec.name)
        try:
            await self.cloud.thread(self.cloud.backend.create, spec)
            await self._wait(spec)
        except MachineError:
            await self.stop(spec.name)
            raise
        site_project.running(self.cloud)

    async def _wait(self, spec: MachineSpec) -> None:
        """Return when a machine's init runs, from when on commands run in it. Raises MachineError."""
        running = self.cloud.backend.running
        try:
            async with asyncio.timeout(INIT_SECONDS):
                while not await self.cloud.thread(running, spec.project, spec.name):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise MachineError(
                f"wanted {spec.name} running within {INIT_SECONDS:.0f} s, found it dead: see logs {spec.name}"
            ) from None

    async def stop(self, hostname: str) -> None:
        """Delete a machine that was started here."""
        if hostname in self._started:
            await self.cloud.thread(self.cloud.backend.delete, site.PROJECT, hostname)
            site_project.unregister(self.cloud, hostname)
            self._started.discard(hostname)

    async def command(self, hostname: str, words: list[str]) -> list[str]:
        """Return the command that runs another in a machine, as root."""
        backend = self.cloud.backend
        return await self.cloud.thread(backend.command, site.PROJECT, hostname, words)

    async def log(self, hostname: str) -> str:
        """Return the console."""
        return await self.cloud.thread(self.cloud.backend.serial, site.PROJECT, hostname)
