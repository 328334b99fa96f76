# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst's own directory on the controller: the host keys of its machines, and its SSH key pair where it has one."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, SpecError

VARIABLE = "FLUX_BURST_DIRECTORY"
DEFAULT = "~/.ansible/flux_burst"
KNOWN_HOSTS, KEY = "known_hosts", "ssh_key"
DIAGNOSTICS = "_diagnostics"
"""Beside the bursts' own: no burst has such a name, and no teardown takes it away."""
# What becomes a part of a path.
NAME = re.compile(r"[-_a-z0-9]{1,63}")


def top_of(directory: str | None) -> Path:
    """Return where the bursts' directories are, by default where the environment says."""
    return Path(directory or os.environ.get(VARIABLE) or DEFAULT).expanduser()


def key_of(directory: str | None, burst: str) -> Path:
    """Return where a burst's own private key is."""
    return top_of(directory) / burst / KEY


def path_of(directory: str | None, burst: str) -> Path:
    """Return where a burst's directory is. Raises SpecError for a name that is none."""
    if not NAME.fullmatch(burst):
        raise SpecError(
            f"burst: wanted lower case letters, digits and dashes, found {burst!r}: correct burst_name."
        )
    return top_of(directory) / burst


def check_own(path: Path, wanted: str) -> os.stat_result | None:
    """Return what is at a path, None for nothing. Raises BurstError unless it is a directory or file of ours."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, wanted, error) from None
    kind = "directory" if stat.S_ISDIR(found.st_mode) else "file"
    if stat.S_ISLNK(found.st_mode):
        what = "a symbolic link"
    elif kind != wanted or not (kind == "directory" or stat.S_ISREG(found.st_mode)):
        what = f"a {kind}" if kind != wanted else "a special file"
    elif found.st_uid != os.geteuid():
        what = f"one of uid {found.st_uid}"
    else:
        return found
    raise BurstError(
        f"{path}: wanted a {wanted} of uid {os.geteuid()}, found {what}: remove it, or choose another directory."
    )


def made(directory: str | None, burst: str) -> Path:
    """Return a burst's directory, made where it is missing, and closed to others. Raises BurstError."""
    path = path_of(directory, burst)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = check_own(path, "directory")
        if found and stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise _unusable(path, "directory", error) from None
    return path


def _unusable(path: Path, wanted: str, error: OSError) -> BurstError:
    return BurstError(
        f"{path}: wanted a {wanted} of uid {os.geteuid()}, found '{error.strerror}': choose another directory."
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep out whoever else locks the same file meanwhile, on this machine."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace(path: Path, content: str) -> None:
    """Write a file for its owner alone, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
