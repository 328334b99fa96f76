# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What benches and tests compare ours with, or need beside it, fetched into a place of its own.

Collections: Galaxy need not be in reach, the package `ansible` on the Python package index carries them. Of its 54 MB
only the one that is asked for is kept, and run by our own ansible-core. sshd: where the machine has none, its
distribution's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PEERS = Path(__file__).resolve().parent.parent / ".cache" / "peers"
PACKAGE = "ansible==12.3.0"
DEBIAN_PACKAGES = ("openssh-server", "libwrap0")


class PeersError(Exception):
    """One line: what was wanted, what was found, what to do. absent: the index has no such package."""

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


def google_cloud() -> Path:
    """Return the collections path that holds google.cloud, fetched where it is not there. Raises PeersError."""
    return collection("google/cloud", PEERS, sys.executable)


def collection(name: str, top: Path, python: str) -> Path:
    """Return a collections path with a collection in it, fetched by a Python's pip where it is missing.

    name is as in a path: "google/cloud". Raises PeersError.
    """
    place = top / "ansible_collections" / name
    if not place.is_dir():
        top.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=top) as folder:
            inside = f"ansible_collections/{name}/"
            _unpack(_download(Path(folder), python), Path(folder), inside)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(folder) / inside, place)
    return top


def _download(folder: Path, python: str) -> Path:
    command = [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
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


def _unpack(wheel: Path, folder: Path, inside: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(inside)]
        if not names:
            raise PeersError(f"wanted {inside} in {wheel.name}, found no such collection.")
        archive.extractall(folder, names)


def sshd() -> tuple[Path, Path | None]:
    """Return sshd and the directory of libraries that it needs, if any, both fetched if missing. Raises PeersError."""
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found:
        return Path(found), None
    top = PEERS / "openssh-server"
    if not top.is_dir():
        PEERS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PEERS) as folder:
            _unpack_debian(Path(folder))
            shutil.move(Path(folder) / "tree", top)
    [libraries] = (path.parent for path in top.glob("usr/lib/*/libwrap.so.0"))
    return top / "usr/sbin/sshd", libraries


def _unpack_debian(folder: Path) -> None:
    """Unpack Debian's packages below `tree`. The directory may be one that apt's own user does not see."""
    apt = ["apt-get", "download", "--quiet", "--option", "APT::Sandbox::User=root"]
    try:
        _run([*apt, *DEBIAN_PACKAGES], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg", "--extract", str(package), "tree"], folder)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeersError(
            f"wanted sshd, found neither it nor a Debian that gives it ({error}): install openssh-server.",
            absent=True,
        ) from None


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
