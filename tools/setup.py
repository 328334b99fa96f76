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
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
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
DISK_NEEDED = 4 * 1024**3
PYTHON_NEEDED = (3, 11)


class SetupError(Exception):
    """One line: what was wanted, what was found, what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def check_machine() -> None:
    """Raise SetupError where this machine cannot run the sandbox, whatever would be installed."""
    if platform.system() != "Linux":
        raise SetupError(
            f"wanted Linux, found {platform.system()}: the sandbox's machines are Linux containers; "
            "use a Linux machine or VM."
        )
    if sys.version_info < PYTHON_NEEDED:
        found = ".".join(map(str, sys.version_info[:3]))
        raise SetupError(
            f"wanted Python 3.11 or newer, found {found} at {sys.executable}: "
            "run make with PYTHON=/path/to/python3.11."
        )
    if os.geteuid() != 0:
        raise SetupError(
            f"wanted root, found user id {os.geteuid()}: the sandbox boots machines and makes network "
            "namespaces; run make as root (sudo make ...)."
        )
    if not shutil.which("apt-get"):
        raise SetupError(
            "wanted Debian or Ubuntu (apt-get), found none: use such a machine for the sandbox; "
            "the collection itself runs anywhere with Ansible."
        )
    free = shutil.disk_usage(TOP).free
    if free < DISK_NEEDED:
        raise SetupError(
            f"wanted {DISK_NEEDED // 1024**3} GB of free disk at {TOP}, found {free / 1024**3:.1f} GB: "
            "free some, or move the checkout."
        )


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
            "connect this machine to its network or mirror, then run make again."
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
                f"'{' '.join(command)}' failed: {last}; put that right, then run make again."
            )


def make_venv(requirements: Path) -> None:
    """Create the virtual environment and install the requirements, unless they are there already.

    The stamp is written last, so an interrupted installation is continued by the next run.
    """
    texts = [path.read_bytes() for path in sorted(TOP.glob("requirements*.txt"))]
    want = hashlib.sha256(
        b"\n".join([sys.version.encode(), requirements.name.encode(), *texts])
    ).hexdigest()
    stamp = VENV / f".{requirements.stem}.stamp"
    if stamp.exists() and stamp.read_text() == want:
        return
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
                "check that pip reaches its package index, then run make again."
            )
    stamp.write_text(want)


def link_collection() -> None:
    """Link this checkout into a collections path of its own, wherever it was cloned to."""
    COLLECTION.parent.mkdir(parents=True, exist_ok=True)
    if COLLECTION.is_symlink() and COLLECTION.resolve() == TOP:
        return
    COLLECTION.unlink(missing_ok=True)
    COLLECTION.symlink_to(TOP, target_is_directory=True)
    say(f"linked the collection flux.burst at {COLLECTION.relative_to(TOP)}")


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
        if packages:
            check_package_source()
            install_packages(packages)
        make_venv(requirements)
        link_collection()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
