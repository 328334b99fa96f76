# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a sandbox away, whatever state it is in, and nothing of another one."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time

from sandbox import paths
from sandbox.machines import cgroups, cloudnet, nspawn, processes
from sandbox.rootfs import remove_tree

POLITE_SECONDS = 20.0


def servers(name: str) -> list[int]:
    """Return the ids of the running servers of a sandbox; there should be one at most."""
    return [
        pid
        for pid in processes.pids()
        if _serves(processes.command_line(pid), name) and processes.alive(pid)
    ]


def _serves(words: list[str], name: str) -> bool:
    follows = dict(itertools.pairwise(words))
    return follows.get("-m") == "sandbox.server" and follows.get("--name") == name


def leftovers(name: str) -> bool:
    """Return whether anything of a sandbox is on this machine."""
    return bool(
        paths.state_of(name).exists()
        or servers(name)
        or cloudnet.namespaces(name)
        or processes.of_sandbox(name)
        or cgroups.exist(name)
    )


def remove(name: str) -> None:
    """Remove a sandbox: its server, machines, network, control groups, mounts and files. Idempotent."""
    _stop(servers(name))
    state = paths.state_of(name)
    nspawn.sweep(name, state / "machines")
    remove_tree(state)


def _stop(pids: list[int]) -> None:
    """Ask, wait, and then kill: a server that is asked deletes its machines itself."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + POLITE_SECONDS
    while time.monotonic() < deadline and any(map(processes.alive, pids)):
        time.sleep(0.05)
    processes.kill(pids)
