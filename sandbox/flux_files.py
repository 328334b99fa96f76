# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files of this machine's Flux go into the machines, and what those files need."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

PREFIX = Path("/usr")
# Documents, headers and static libraries stay behind; so do sample configurations of the security
# library and upstream's units, since what a machine is configured with is the roles' business.
PATTERNS = (
    "bin/flux",
    "bin/flux-*",
    "lib/libflux-*.so*",
    "lib/flux",
    "lib/lua/5.*/flux.so",
    "lib/*/libflux-*.so*",
    "lib/*/flux",
    "libexec/flux",
    "share/flux",
    "share/lua/5.*/flux",
    "share/lua/5.*/fluxometer*",
)
ETC = ("flux/modprobe", "flux/shell", "flux/system/cron.d")
PYTHON_PACKAGES = ("python3-cffi", "python3-ply", "python3-yaml")


class FluxFilesError(Exception):
    """This machine's Flux cannot be copied; the message is one line."""


def real_flux_version() -> str | None:
    """Return the version of the Flux in /usr, for instance "0.88.0"; None where there is none."""
    try:
        done = subprocess.run(
            [PREFIX / "bin" / "flux", "version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return parse_version(done.stdout) if done.returncode == 0 else None


def parse_version(text: str) -> str | None:
    """Return "0.88.0" of the output of `flux version`, without what a git build appends."""
    for line in text.splitlines():
        name, _unused, value = line.partition(":")
        if name.strip() == "libflux-core" and value.strip():
            return value.strip().split("-")[0]
    return None


def flux_files() -> list[Path]:
    """Return the files and links of Flux, sorted, without Python's compiled ones."""
    found: set[Path] = set()
    for base, patterns in ((PREFIX, PATTERNS), (Path("/etc"), ETC)):
        for pattern in patterns:
            for path in base.glob(pattern):
                found.update(_leaves(path))
    return sorted(path for path in found if path.suffix not in (".a", ".la", ".pyc"))


def _leaves(path: Path) -> Iterator[Path]:
    """Yield the files and links at or below a path, and what a link to a directory leads to."""
    for leaf in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]:
        if leaf.is_symlink() or leaf.is_file():
            yield leaf
        if leaf.is_symlink() and leaf.is_dir() and leaf.resolve().is_relative_to(PREFIX):
            yield from _leaves(leaf.resolve())


def build_id() -> str:
    """Return a short hash that changes when the installed Flux does."""
    parts = [
        f"{path} {info.st_size} {info.st_mtime_ns} {_mode(path, info)}"
        for path in flux_files()
        for info in [path.lstat()]
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries() -> set[Path]:
    """Return the shared libraries, real paths outside of Flux itself, that its programs load."""
    ours = flux_files()
    programs = [str(path) for path in ours if not path.is_symlink() and _is_elf(path)]
    done = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False)
    missing = [line.split()[0] for line in done.stdout.splitlines() if "=> not found" in line]
    if missing:
        raise FluxFilesError(
            f"wanted all libraries of the Flux in {PREFIX}, found {missing[0]} missing: "
            "put Flux's installation right, or use --flux standin."
        )
    known = {path.resolve() for path in ours}
    found = {
        Path(words[2]) for words in map(str.split, done.stdout.splitlines()) if words[1:2] == ["=>"]
    }
    return {path for path in found if path.resolve() not in known}


def needs() -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Return (Debian packages to install, libraries that no package owns and so are copied)."""
    owners = _owners(libraries())
    packages = {owner for owner in owners.values() if owner}
    loose = tuple(sorted(library for library, owner in owners.items() if not owner))
    return tuple(sorted(packages | set(PYTHON_PACKAGES))), loose


def _owners(found: set[Path]) -> dict[Path, str | None]:
    """Return library -> the package that owns it, or None."""
    # dpkg may know a file by its link, its real name, or without the /usr of merged systems.
    names = {
        library: {library, library.resolve(), Path(str(library.resolve()).removeprefix("/usr"))}
        for library in found
    }
    every = sorted({str(name) for alternatives in names.values() for name in alternatives})
    done = subprocess.run(["dpkg", "-S", *every], capture_output=True, text=True, check=False)
    known = {}
    for line in done.stdout.splitlines():
        owner, _unused, path = line.partition(": ")
        known[Path(path)] = owner.split(":")[0]
    return {
        library: next((known[name] for name in sorted(alternatives) if name in known), None)
        for library, alternatives in names.items()
    }


def install(root: Path, loose: tuple[Path, ...]) -> None:
    """Copy Flux and the loose libraries into a root, with owners and modes (the IMP is setuid)."""
    for path in [*flux_files(), *loose]:
        _copy(path, root)
        if path in loose and path.is_symlink():
            _copy(path.resolve(), root)
    # flux-core's Python modules are compiled once here, not by every machine at its first command.
    subprocess.run(
        ["chroot", root, "python3", "-m", "compileall", "-q", "-l", *_python_directories(root)],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    subprocess.run(["ldconfig", "-r", root], check=True)


def _python_directories(root: Path) -> list[str]:
    found = {path.parent for path in flux_files() if path.suffix == ".py" and not path.is_symlink()}
    return sorted(str(path) for path in found if (root / path.relative_to("/")).is_dir())


def _copy(path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copy2(path, target, follow_symlinks=False)
    info = path.lstat()
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        target.chmod(stat.S_IMODE(_mode(path, info)))


def _mode(path: Path, info: os.stat_result) -> int:
    """Return a file's mode in the machines. flux-security's `make install` leaves the IMP without setuid."""
    return info.st_mode | (stat.S_ISUID if path.name == "flux-imp" else 0)
