# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be so on this machine before a sandbox is made: looked at first, nothing changed."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from sandbox import paths

GIB = 1024**3
DISK_BYTES = 2 * GIB
MEMORY_BYTES = 1 * GIB
CPUS = 2
MACHINES = 5
INOTIFY_PER_MACHINE = 7
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
# Debian package of each tool.
TOOLS = {
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "systemd-nspawn": "systemd-container",
    "unshare": "util-linux",
}


class PreflightError(Exception):
    """One line: what was wanted, what was found, what to do."""


def check_host() -> None:
    """Raise PreflightError where this machine or user cannot run any sandbox at all."""
    if platform.system() != "Linux":
        raise PreflightError(
            f"wanted Linux, found {platform.system()}: the sandbox's machines are Linux containers; "
            "use a Linux machine or VM"
        )
    if os.geteuid() != 0:
        raise PreflightError(
            f"wanted root, found user id {os.geteuid()}: the sandbox boots machines and makes network "
            "namespaces; run it as root (sudo)"
        )


def check_machines() -> None:
    """Raise PreflightError where machines cannot be booted here."""
    _check_tools()
    check_capacity()


def check_capacity() -> None:
    """Raise PreflightError where disk, memory, CPUs or inotify instances do not suffice for a burst."""
    _check_disk(paths.CACHE)
    _check_memory(Path("/proc/meminfo").read_text())
    _check_cpus(len(os.sched_getaffinity(0)))
    _check_inotify(int(INOTIFY_LIMIT.read_text()), inotify_in_use())


def _check_tools() -> None:
    missing = [
        tool
        for tool in TOOLS
        if not shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    ]
    if missing:
        packages = sorted({TOOLS[tool] for tool in missing})
        raise PreflightError(
            f"wanted the tools of the machines, found {', '.join(missing)} missing: "
            f"run apt-get install {' '.join(packages)}"
        )


def _check_disk(where: Path) -> None:
    """An image takes about 1 GiB with its base; with one there already, 200 MiB will do."""
    there = next(path for path in (where, *where.parents) if path.exists())
    wanted = DISK_BYTES if not any(where.glob("image-*")) else DISK_BYTES // 10
    free = shutil.disk_usage(there).free
    if free < wanted:
        raise PreflightError(
            f"wanted {wanted / GIB:.1f} GiB of free disk at {there}, found {free / GIB:.1f}: free some"
        )


def _check_memory(meminfo: str) -> None:
    rows = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    available = int(rows["MemAvailable"].split()[0]) * 1024
    if available < MEMORY_BYTES:
        raise PreflightError(
            f"wanted {MEMORY_BYTES / GIB:.0f} GiB of available memory, found {available / GIB:.1f}: "
            "the machines' disks are in memory; end something, or use a larger machine"
        )


def _check_cpus(found: int) -> None:
    if found < CPUS:
        raise PreflightError(
            f"wanted {CPUS} CPUs, found {found}: the lead declares {CPUS} cores for each machine, and "
            "Flux drains a machine with fewer; use a larger machine"
        )


def inotify_in_use() -> int:
    """Return how many inotify instances root's processes hold."""
    count = 0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if process.stat().st_uid == 0:
                    links = [os.readlink(path) for path in (process / "fd").iterdir()]
                    count += links.count("anon_inode:inotify")
            except OSError:
                continue
    return count


def _check_inotify(limit: int, used: int) -> None:
    wanted = MACHINES * INOTIFY_PER_MACHINE
    if limit - used < wanted:
        raise PreflightError(
            f"wanted {wanted} free inotify instances for {MACHINES} machines, found {limit - used} "
            f"(limit {limit}, {used} in use): run sysctl fs.inotify.max_user_instances=1024, "
            "or take another sandbox down"
        )


def check_ports(ports: Sequence[int]) -> None:
    """Raise PreflightError where one of these ports is taken on 127.0.0.1."""
    busy = [str(port) for port in ports if not port_free(port)]
    if busy:
        raise PreflightError(
            f"wanted ports {', '.join(map(str, ports))} on 127.0.0.1, found {' and '.join(busy)} in use: "
            "end what listens there (ss -ltnp), or use another --name, which has other ports"
        )


def port_free(port: int) -> bool:
    """Return whether a port of 127.0.0.1 can be listened on."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
