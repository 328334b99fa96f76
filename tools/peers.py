# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection that benches and tests compare ours with, google.cloud, in a collections path of its own.

Galaxy need not be in reach: the package `ansible` on the Python package index carries it. Of its 54 MB only that
collection is kept, and run by our own ansible-core.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / ".cache" / "peers"
COLLECTION = PEERS / "ansible_collections" / "google" / "cloud"
PACKAGE = "ansible==12.3.0"
INSIDE = "ansible_collections/google/cloud/"


class PeersError(Exception):
    """One line: what was wanted, what was found, what to do. absent: the index has no such package."""

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


def google_cloud() -> Path:
    """Return the collections path that holds google.cloud, fetched where it is not there. Raises PeersError."""
    if not COLLECTION.is_dir():
        PEERS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PEERS) as folder:
            _unpack(_download(Path(folder)), Path(folder))
            COLLECTION.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(folder) / INSIDE, COLLECTION)
    return PEERS


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("ansible-*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        last = (errors or ["no message"])[-1]
        raise PeersError(
            f"wanted {PACKAGE} from the package index, found '{last}': check that pip reaches its index.",
            absent="No matching distribution" in last,
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(INSIDE)]
        if not names:
            raise PeersError(f"wanted google.cloud in {wheel.name}, found no such collection.")
        archive.extractall(folder, names)
