# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of machines: found by their network namespace, which they cannot leave."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from sandbox.machines.cloudnet import NETNS, namespaces

PROC = Path("/proc")
GONE_SECONDS = 10.0
POWER_OFF = signal.SIGRTMIN + 4
# What a machine is started through, each with nspawn's arguments behind its own.
STARTERS = ("sh", "setpriv", "systemd-nspawn", "unshare")


def pids() -> list[int]:
    """Return the ids of all processes."""
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def command_line(pid: int) -> list[str]:
    """Return a process's arguments; [] when it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def in_namespaces(names: Iterable[str]) -> list[int]:
    """Return the ids of the processes in any of these network namespaces."""
    wanted = set()
    for name in names:
        with contextlib.suppress(OSError):
            info = (NETNS / name).stat()
            wanted.add((info.st_dev, info.st_ino))
    found = []
    for pid in pids() if wanted else []:
        with contextlib.suppress(OSError):
            info = (PROC / str(pid) / "ns" / "net").stat()
            if (info.st_dev, info.st_ino) in wanted:
                found.append(pid)
    return found


def leader(namespace: str) -> int | None:
    """Return the id, on this side, of the process that is 1 in the machine; None without one."""
    for pid in in_namespaces([namespace]):
        with contextlib.suppress(OSError):
            status = (PROC / str(pid) / "status").read_text()
            found = re.search(r"^NSpid:\s+(\d+)\s+1$", status, re.MULTILINE)
            if found and not re.search(r"^State:\s+Z", status, re.MULTILINE):
                return pid
    return None


def nspawns(machines: re.Pattern[str]) -> list[int]:
    """Return the ids of the systemd-nspawn processes whose machine's name matches."""
    found = []
    for pid in pids():
        words = command_line(pid)
        if words and os.path.basename(words[0]) in STARTERS:
            names = [word.partition("=")[2] for word in words if word.startswith("--machine=")]
            if any(machines.fullmatch(name) for name in names):
                found.append(pid)
    return found


def kill(targets: Iterable[int]) -> None:
    """Send SIGKILL; those that are gone are gone."""
    for pid in targets:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Return whether a process runs; a dead one that nobody waited for does not."""
    try:
        state = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def shut_down(namespace: str, seconds: float) -> None:
    """Ask a machine's systemd to power it off, and wait so long at most until it has."""
    deadline = time.monotonic() + seconds
    pid = leader(namespace)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, POWER_OFF)
    while pid is not None and alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def kill_machine(namespace: str) -> None:
    """Kill a machine's processes and its nspawn, which ends when its child does; wait until they are gone."""
    _kill_until_gone([namespace], re.compile(re.escape(namespace)))


def _machines_of(sandbox: str) -> re.Pattern[str]:
    return re.compile(rf"fbs-{re.escape(sandbox)}-m-[0-9a-f]{{8}}")


def of_sandbox(sandbox: str) -> list[int]:
    """Return the ids of the processes of a sandbox's machines, nspawn's among them."""
    found = [*in_namespaces(namespaces(sandbox)), *nspawns(_machines_of(sandbox))]
    return [pid for pid in found if alive(pid)]


def kill_sandbox(sandbox: str) -> None:
    """Kill all processes of a sandbox's machines and wait until they are gone."""
    _kill_until_gone(namespaces(sandbox), _machines_of(sandbox))


def _kill_until_gone(names: list[str], machines: re.Pattern[str]) -> None:
    """Kill the inside first: nspawn then tidies up what it made on this side and ends by itself."""
    deadline = time.monotonic() + GONE_SECONDS
    patience = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        inside = [pid for pid in in_namespaces(names) if alive(pid)]
        outside = [pid for pid in nspawns(machines) if alive(pid)]
        if not inside and not outside:
            return
        kill(inside)
        if time.monotonic() > patience:
            kill(outside)
        time.sleep(0.01)
