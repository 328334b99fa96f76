# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are put in place whole, with owner and mode right from their first byte, or not at all."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._reconcile import Change


@dataclass(frozen=True)
class File:
    """A file as it is or as it must be. `owner` and `group` are names, `mode` is the permission bits."""

    path: str
    content: bytes
    owner: str
    group: str
    mode: int
    secret: bool = False

    def shown(self, other: File | None) -> dict[str, Any]:
        """Return what a diff against other may show: of a secret, whether it differs and no more."""
        content: str = self.content.decode(errors="replace")
        if self.secret:
            same = other is not None and other.content == self.content
            content = "(secret)" if same else "(secret, differs)"
        return {
            "owner": self.owner,
            "group": self.group,
            "mode": f"{self.mode:04o}",
            "content": content,
        }


def read(wanted: File) -> File | None:
    """Return what stands at the wanted file's path, None where nothing does.

    Raises BurstError where it is not a regular file: a link could lead a secret anywhere.
    """
    try:
        handle = os.open(wanted.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BurstError(
            f"{wanted.path}: wanted a regular file or none, found '{error.strerror}': remove it."
        ) from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise BurstError(
                f"{wanted.path}: wanted a regular file or none, found something else: remove it."
            )
        content = file.read()
    return File(
        wanted.path,
        content,
        _name(pwd.getpwuid, found.st_uid),
        _name(grp.getgrgid, found.st_gid),
        stat.S_IMODE(found.st_mode),
        wanted.secret,
    )


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def difference(wanted: File, found: File | None) -> Change | None:
    """Return the change that makes found the wanted file, None where it is."""
    if found is None:
        return Change("file", wanted.path, "create", {}, wanted.shown(None))
    if found == wanted:
        return None
    return Change("file", wanted.path, "update", found.shown(wanted), wanted.shown(found))


def write(wanted: File) -> None:
    """Put a file in place. Raises BurstError where its directory, owner or group is missing."""
    try:
        uid, gid = pwd.getpwnam(wanted.owner).pw_uid, grp.getgrnam(wanted.group).gr_gid
    except KeyError as error:
        raise BurstError(
            f"{wanted.path}: wanted owner {wanted.owner} and group {wanted.group}, found {error.args[0]}: "
            "apply role flux.burst.node_base, or bake it into the image."
        ) from None
    path = Path(wanted.path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise BurstError(
            f"{wanted.path}: wanted to write in {path.parent}, found '{error.strerror}': "
            "apply role flux.burst.node_base, or bake it into the image."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchown(file.fileno(), uid, gid)
            os.fchmod(file.fileno(), wanted.mode)
            file.write(wanted.content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
