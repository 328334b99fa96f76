# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make this checkout ready to run: system packages, virtual environment, collection link.

Run by `make` with the system's python3, so it uses the standard library only. It looks at everything that could
stop it before it changes anything, names what it installs, and does again only what is missing, so that a run
that was interrupted is simply started again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from sandbox import preflight
from tools import peers

VENV = TOP / ".venv"
COLLECTION = TOP / ".cache" / "collections" / "ansible_collections" / "flux" / "burst"
PACKAGES = (
    "debootstrap",
    "iproute2",
    "nftables",
    "openssh-client",
    "python3-venv",
    "systemd-container",
    "util-linux",
)
COLLECTIONS = TOP / ".cache" / "collections"
COLLECTIONS_OF = {
    "requirements-gke.txt": ["kubernetes/core"],
    "requirements-test.txt": ["kubernetes/core"],
}
"""Which collections of others go with which requirements."""
DISK_NEEDED = 4 * 1024**3
PYTHON_NEEDED = (3, 11)


class SetupError(Exception):
    """One line: what was wanted, what was found, what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def check_machine() -> None:
    """Raise SetupError or PreflightError where this machine cannot run the sandbox, whatever would be installed."""
    preflight.check_host()
    if sys.version_info < PYTHON_NEEDED:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"wanted Python 3.11 or newer, found {found} at {sys.executable}: "
            "run make with PYTHON=/path/to/python3.11"
        )
    if not shutil.which("apt-get"):
        raise SetupError(
            "wanted Debian or Ubuntu (apt-get), found none: use such a machine for the sandbox; "
            "the collection itself runs anywhere with Ansible"
        )


def check_room() -> None:
    """Raise SetupError or PreflightError where this machine has no room for what would be installed and booted."""
    free = shutil.disk_usage(TOP).free
    if free < DISK_NEEDED:
        raise SetupError(
            f"wanted {DISK_NEEDED // 1024**3} GiB of free disk at {TOP}, found {free / 1024**3:.1f}: "
            "free some, or move the checkout"
        )
    preflight.check_capacity()
    check_package_source()


def missing_packages() -> list[str]:
    """Return those of PACKAGES that dpkg does not know as installed."""
    missing = []
    for name in PACKAGES:
        found = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Status}", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if found.stdout != "install ok installed":
            missing.append(name)
    return missing


def check_package_source() -> None:
    """Raise SetupError where the machine's package source does not answer."""
    uris = subprocess.run(
        ["apt-get", "--print-uris", "-qq", "update"], capture_output=True, text=True, check=False
    ).stdout.split()
    urls = [word.strip("'") for word in uris if word.startswith("'http")]
    if not urls:
        return
    try:
        urllib.request.urlopen(urls[0], timeout=20).close()
    except urllib.error.HTTPError:
        return
    except OSError as error:
        raise SetupError(
            f"wanted the package source that apt is configured with, found no answer ({error}): "
            "connect this machine to its network or mirror, then run make again"
        ) from None


def install_packages(names: list[str]) -> None:
    """Install system packages by apt-get."""
    say(f"installing system packages: {', '.join(names)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *names],
    ):
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise SetupError(
                f"'{' '.join(command)}' failed: {last}; put that right, then run make again"
            )


def stamp_of(requirements: Path) -> tuple[Path, str]:
    """Return the file that says what the virtual environment was made from, and what it must say."""
    texts = [path.read_bytes() for path in sorted(TOP.glob("requirements*.txt"))]
    made_from = b"\n".join([sys.version.encode(), requirements.name.encode(), *texts])
    return VENV / f".{requirements.stem}.stamp", hashlib.sha256(made_from).hexdigest()


def venv_is_made(requirements: Path) -> bool:
    """Return whether the virtual environment holds these requirements."""
    stamp, content = stamp_of(requirements)
    return stamp.exists() and stamp.read_text() == content


def make_venv(requirements: Path) -> None:
    """Create the virtual environment and install the requirements.

    The stamp is written last, so an interrupted installation is continued by the next run.
    """
    say(
        f"installing Python packages of {requirements.name} into .venv (a minute or two the first time)"
    )
    pip = [str(VENV / "bin" / "python"), "-m", "pip"]
    for command in (
        [sys.executable, "-m", "venv", str(VENV)],
        [*pip, "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)],
    ):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            last = (errors or done.stderr.strip().splitlines() or ["no message"])[-1]
            raise SetupError(
                f"installing {requirements.name} failed: {last}; "
                "check that pip reaches its package index, then run make again"
            )
    stamp, content = stamp_of(requirements)
    stamp.write_text(content)


def link_collection() -> None:
    """Link this checkout into a collections path of its own, wherever it was cloned to."""
    COLLECTION.parent.mkdir(parents=True, exist_ok=True)
    if COLLECTION.is_symlink() and COLLECTION.resolve() == TOP:
        return
    COLLECTION.unlink(missing_ok=True)
    COLLECTION.symlink_to(TOP, target_is_directory=True)
    say(f"linked the collection flux.burst at {COLLECTION.relative_to(TOP)}")


def fetch_collections(requirements: Path) -> None:
    """Fetch the collections of others that these requirements go with."""
    for name in COLLECTIONS_OF.get(requirements.name, []):
        if not (COLLECTIONS / "ansible_collections" / name).is_dir():
            say(f"fetching the collection {name.replace('/', '.')} (once)")
            peers.collection(name, COLLECTIONS, str(VENV / "bin" / "python"))


def main() -> int:
    """Run every step; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "requirements", help="requirements file to install, for instance requirements-test.txt"
    )
    requirements = TOP / parser.parse_args().requirements
    try:
        check_machine()
        packages = missing_packages()
        made = venv_is_made(requirements)
        if packages or not made:
            check_room()
        if packages:
            install_packages(packages)
        if not made:
            make_venv(requirements)
        link_collection()
        fetch_collections(requirements)
    except (SetupError, preflight.PreflightError, peers.PeersError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
