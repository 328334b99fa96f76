# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root file system that all machines share: Debian, lean, with sshd, munge and Flux.

Two steps, each cached: `base` is what debootstrap makes (about a minute), the image is a copy of
it with our settings and Flux (seconds). Each is built under a temporary name and renamed, so what
has its final name is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sandbox import flux_files, paths, rootfs_settings

Say = Callable[[str], None]
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "munge",
    "openssh-server",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)
UNFINISHED = ".building-"
KEEP_SECONDS = 3600
PHASE = re.compile(r"I: (Retrieving|Extracting|Unpacking|Configuring) ")


class RootError(Exception):
    """The root could not be built; the message is one line."""


@dataclass(frozen=True)
class Source:
    """Where packages come from, as this machine's apt has it."""

    suite: str
    mirror: str
    components: tuple[str, ...]
    keyring: str | None


def apt_source() -> Source:
    """Return the source of this machine's own release. Raises RootError where apt has none."""
    suite = _os_release().get("VERSION_CODENAME", "")
    done = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(RELEASE) $(COMPONENT) $(REPO_URI) $(SOURCESENTRY)",
            "Identifier: Packages",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [row for row in map(str.split, done.stdout.splitlines()) if len(row) == 4]
    rows = [row for row in rows if row[0] == suite]
    if not suite or not rows:
        raise RootError(
            f"wanted a package source for this machine's release ({suite or 'unnamed'}) in apt's "
            "configuration, found none: add one to /etc/apt/sources.list.d and run apt-get update."
        )
    mirror = rows[0][2]
    components = tuple(dict.fromkeys(row[1] for row in rows if row[2] == mirror))
    keyring = signed_by(Path(rows[0][3].rpartition(":")[0]), suite)
    return Source(suite, mirror, components, keyring)


def signed_by(sources: Path, suite: str) -> str | None:
    """Return the keyring file that apt's source file names for a suite, in either of its formats."""
    try:
        text = sources.read_text()
    except OSError:
        return None
    for part in re.split(r"\n\s*\n|\n(?=deb\s)", text):
        found = re.search(r"signed-by\s*[:=]\s*(/[^\s\],]+)", part, re.IGNORECASE)
        if found and suite in re.split(r"\s+", part):
            return found.group(1)
    return None


def _os_release() -> dict[str, str]:
    with contextlib.suppress(OSError):
        rows = [line.partition("=") for line in Path("/etc/os-release").read_text().splitlines()]
        return {key: value.strip('"') for key, _unused, value in rows}
    return {}


def build_root(flux: Literal["real", "standin"], say: Say) -> Path:
    """Return the path of a root image with this Flux, building what is missing of it.

    say gets lines of progress. Raises RootError; FluxFilesError where the real Flux is not whole.
    """
    if flux == "real":
        packages, loose = flux_files.needs()
        flux_id = f"real-{flux_files.build_id()}"
    else:
        packages, loose = tuple(importlib.import_module("sandbox.standin.install").PACKAGES), ()
        flux_id = f"standin-{_hash_of_sources('standin/**/*')}"
    source = apt_source()
    wanted = tuple(sorted({*PACKAGES, *packages}))
    base_id = f"base-{source.suite}-{_hash([source.mirror, *source.components, *wanted])}"
    recipe = _hash_of_sources("rootfs_settings.py", "flux_files.py")
    image = paths.CACHE / f"image-{flux_id}-{_hash([base_id, recipe])}"
    if image.is_dir():
        return image
    with paths.locked(paths.CACHE / ".lock"):
        for left in paths.CACHE.glob(f"{UNFINISHED}*"):
            say("removing what an interrupted build left")
            remove_tree(left)
        base = paths.CACHE / base_id
        if not base.is_dir():
            _build(base, lambda root: _debootstrap(root, source, wanted, say))
        if not image.is_dir():
            say(f"making the machines' root image with {flux_id.partition('-')[0]} Flux")
            _build(image, lambda root: _customize(root, base, flux, loose))
        _prune({base, image})
    return image


def _build(target: Path, make: Callable[[Path], None]) -> None:
    root = target.with_name(f"{UNFINISHED}{target.name}")
    root.mkdir(parents=True)
    root.chmod(0o755)
    make(root)
    root.rename(target)


def _debootstrap(root: Path, source: Source, packages: tuple[str, ...], say: Say) -> None:
    say(
        f"building the machines' root: {source.suite} from {source.mirror}, about a minute, "
        f"once; packages: {' '.join(packages)}"
    )
    command = [
        # The build dies with us, and what it mounts dies with it.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("debootstrap", "--variant=minbase", "--merged-usr"),
        f"--components={','.join(source.components)}",
        f"--include={','.join(packages)}",
        *([f"--keyring={source.keyring}"] if source.keyring else []),
        *(source.suite, str(root), source.mirror),
    ]
    env = {**os.environ, **_apt_proxies(), "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        last = _report_phases(process.stdout, say)
    if process.returncode:
        raise RootError(
            f"wanted a root of {source.suite} from {source.mirror}, found debootstrap ending with "
            f"'{last}': check that the package source answers (apt-get update), then run again."
        )


def _report_phases(lines: Iterable[str], say: Say) -> str:
    """Say each phase of debootstrap, and each 40th package of it; return its last line."""
    phase, count, last = "", 0, ""
    for line in lines:
        last = line.strip() or last
        found = PHASE.match(last)
        if not found:
            continue
        if found.group(1) != phase:
            phase, count = found.group(1), 0
        if count % 40 == 0:
            say(f"  {phase.lower()} packages{f': {count} done' if count else ''}")
        count += 1
    return last


def _apt_proxies() -> dict[str, str]:
    """Return apt's own proxy settings as the environment that debootstrap's downloader reads."""
    found = {}
    for scheme in ("http", "https"):
        done = subprocess.run(
            ["apt-config", "shell", "VALUE", f"Acquire::{scheme}::Proxy"],
            capture_output=True,
            text=True,
            check=False,
        )
        value = done.stdout.strip().removeprefix("VALUE=").strip("'")
        if value and value != "DIRECT":
            found[f"{scheme}_proxy"] = value
    return found


def _customize(root: Path, base: Path, flux: str, loose: tuple[Path, ...]) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", f"{base}/.", root], check=True)
    rootfs_settings.apply(root)
    if flux == "real":
        flux_files.install(root, loose)
    else:
        standin: Any = importlib.import_module("sandbox.standin.install")
        standin.install(root)


def remove_tree(path: Path) -> None:
    """Remove a directory and whatever is still mounted below it."""
    mounts = [
        line.split()[4].replace("\\040", " ")
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    ]
    for mount in sorted(mounts, reverse=True):
        if mount == str(path) or mount.startswith(f"{path}/"):
            subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(path, ignore_errors=True)


def _prune(keep: set[Path]) -> None:
    """Remove images that an older checkout or Flux made and no sandbox runs from."""
    used = {
        text
        for name in paths.sandboxes()
        for text in [_read(paths.state_of(name) / "sandbox.json")]
        if text
    }
    for path in [*paths.CACHE.glob("base-*"), *paths.CACHE.glob("image-*")]:
        old = time.time() - path.stat().st_ctime > KEEP_SECONDS
        if old and path not in keep and not any(path.name in text for text in used):
            remove_tree(path)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _hash_of_sources(*patterns: str) -> str:
    top = Path(__file__).resolve().parent
    found = sorted(path for pattern in patterns for path in top.glob(pattern))
    sources = [path for path in found if path.is_file() and "__pycache__" not in path.parts]
    return _hash(f"{path.relative_to(top)} {path.read_text()}" for path in sources)
