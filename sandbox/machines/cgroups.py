# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Control groups: one per machine, as two systemds would tread on each other in one."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
TOP = "flux-burst-sandbox"
BUSY_SECONDS = 5.0
# Each "$@" up to "--" is a group to enter; what comes after is run there.
ENTER = (
    'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'
)


def hierarchies(mountinfo: str) -> list[Path]:
    """Return where the hierarchies that systemd uses are mounted, of /proc/self/mountinfo's text."""
    found = []
    for line in mountinfo.splitlines():
        left, _unused, right = line.partition(" - ")
        kind, _unused, options = right.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(left.split()[4]))
    return found


def _tops() -> list[Path]:
    return [path / TOP for path in hierarchies(MOUNTS.read_text())]


def make(sandbox: str, machine: str) -> list[Path]:
    """Make a machine's groups; return them. Raises OSError."""
    groups = [top / sandbox / machine for top in _tops()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    return groups


def exist(sandbox: str) -> bool:
    """Return whether a sandbox has groups."""
    return any((top / sandbox).is_dir() for top in _tops())


def entering(groups: list[Path], command: list[str]) -> list[str]:
    """Return the command that runs another in these groups."""
    return ["sh", "-c", ENTER, "enter", *map(str, groups), "--", *command]


def remove(sandbox: str, machine: str) -> None:
    """Remove a machine's groups, which must be empty of processes. Idempotent."""
    for top in _tops():
        _remove_tree(top / sandbox / machine)


def remove_all(sandbox: str) -> None:
    """Remove a sandbox's groups. Idempotent."""
    for top in _tops():
        _remove_tree(top / sandbox)
        with contextlib.suppress(OSError):
            top.rmdir()


def _remove_tree(group: Path) -> None:
    """Remove a group and those below; one whose last process is just dying is tried again."""
    if not group.is_dir():
        return
    for child in group.iterdir():
        if child.is_dir():
            _remove_tree(child)
    deadline = time.monotonic() + BUSY_SECONDS
    while group.is_dir() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.01)
