# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a sandbox keeps its things on this machine."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATE = Path("/run/flux-burst-sandbox")
CACHE = Path("/var/cache/flux-burst-sandbox")
NAME = re.compile(r"[a-z][a-z0-9-]{0,15}")
LOG = "server.log"


def state_of(name: str) -> Path:
    """Return the directory of a sandbox."""
    return STATE / name


def sandboxes() -> list[str]:
    """Return the names of the sandboxes that have a directory, running or not."""
    if not STATE.is_dir():
        return []
    return sorted(path.name for path in STATE.iterdir() if path.is_dir())


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold an exclusive lock on a file, which is made where it is missing; yield its descriptor.

    Whoever holds the lock may unlink the file: others then notice that they hold a lock on
    nothing and begin again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        except FileNotFoundError:
            pass
        os.close(handle)
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield handle
    finally:
        os.close(handle)
