# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of files that is put in place whole, with owners and modes right from the first byte, or not at all.

Every file is written beside its target first. Nothing that stands is touched until all of them are there, and what
was replaced is kept under a second name until the last is in place.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._changes import Change
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

NEW, OLD = "new", "old"
LEFTOVER = re.compile(rf"\..+\.flux-burst-({NEW}|{OLD})")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
CREATION = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
DIRECTORY_MODE = 0o755
ADVICE = "apply role flux.burst.node_base, or bake it into the image"


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
        """Return what a diff against other may show: of a secret, whether it differs and no more.

        The content is a list of lines, so that a diff of it shows those that differ.
        """
        content: str | list[str] = self.content.decode(errors="replace").splitlines()
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

    Raises BurstError where it is not a regular file, or a directory above it is a link: that could lead a secret
    anywhere.
    """
    try:
        with Directory(wanted.path) as directory:
            handle = os.open(
                directory.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory.handle
            )
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


def leftovers(paths: Iterable[str]) -> list[str]:
    """Return what a run that was killed has left beside these files."""
    found = set()
    for folder in {os.path.dirname(path) for path in paths}:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        found |= {os.path.join(folder, name) for name in names if LEFTOVER.fullmatch(name)}
    return sorted(found)


def remove(path: str) -> None:
    """Remove a file; a link is removed, not what it leads to. Raises BurstError where it cannot be."""
    try:
        with Directory(path) as directory:
            os.unlink(directory.name, dir_fd=directory.handle)
            os.fsync(directory.handle)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BurstError(
            f"{path}: wanted it removed, found '{error.strerror}': remove it by hand."
        ) from None


class Directory:
    """The directory of a file, opened from the root on without following a link.

    `created` are the directories that were missing, the outermost first: with create they are made, for root and
    readable by all. Raises FileNotFoundError without it.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        self.created: list[str] = []
        parts = path.split("/")
        self.path, self.name = "/".join(parts[:-1]) or "/", parts[-1]
        self.handle = os.open("/", DIRECTORY)
        try:
            for depth, part in enumerate(parts[1:-1], 2):
                self._enter(part, "/".join(parts[:depth]), path, create=create)
        except BaseException:
            self.__exit__()
            for made in reversed(self.created):
                os.rmdir(made)
            raise

    def _enter(self, part: str, reached: str, path: str, *, create: bool) -> None:
        try:
            inner = os.open(part, DIRECTORY, dir_fd=self.handle)
        except FileNotFoundError:
            if not create:
                raise
            os.mkdir(part, 0o700, dir_fd=self.handle)
            self.created.append(reached)
            inner = os.open(part, DIRECTORY, dir_fd=self.handle)
            # Whatever the umask is.
            os.fchmod(inner, DIRECTORY_MODE)
        except NotADirectoryError:
            # Of a link too, see open(2).
            raise BurstError(
                f"{path}: wanted {reached} to be a directory, found a link or a file: give the path without links, "
                "or remove what is there."
            ) from None
        os.close(self.handle)
        self.handle = inner

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_unused: object) -> None:
        os.close(self.handle)


@dataclass(frozen=True)
class _Undo:
    """How one step is taken back. Of a step that failed it may find nothing to do."""

    what: str
    how: Callable[[], object]


class Placement:
    """All files of a set, or none: use it as a context, `stage` and then `commit` in it.

    Whatever ends the context before commit has returned, an error or an interrupt, leaves what stood before: content,
    owner and mode. A run that is killed meanwhile can leave files under a second name, which `leftovers` finds.
    """

    def __init__(self, files: Sequence[File]) -> None:
        self._files = files
        self._directories: dict[str, Directory] = {}
        self._undo: list[_Undo] = []
        self._kept: list[str] = []
        self._done = False

    def __enter__(self) -> Placement:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _at: TracebackType | None,
    ) -> None:
        left = [] if self._done else self._rolled_back()
        for directory in self._directories.values():
            os.close(directory.handle)
        if left:
            raise BurstError(
                f"{error or 'it did not end'} And wanted the old files back, found {', '.join(left)}: "
                "put that right on this machine and run again."
            ) from None

    def stage(self) -> None:
        """Write every file beside its target. Raises BurstError; nothing that stood was touched."""
        for file in self._files:
            uid, gid = _numbers(file)
            try:
                self._stage(file, uid, gid)
            except OSError as error:
                raise BurstError(
                    f"{file.path}: wanted to write in {os.path.dirname(file.path)}, found "
                    f"'{error.strerror}': {ADVICE}."
                ) from None

    def commit(self) -> None:
        """Put all in place. Raises BurstError; what stood is back."""
        for file in self._files:
            try:
                self._commit(self._directory(file.path), file.path)
            except OSError as error:
                raise BurstError(
                    f"{file.path}: wanted to replace it, found '{error.strerror}': put that right on this machine "
                    "and run again."
                ) from None
        for directory in self._directories.values():
            try:
                os.fsync(directory.handle)
            except OSError as error:
                raise BurstError(
                    f"{directory.path}: wanted it on the disk, found '{error.strerror}': see to that disk."
                ) from None
        self._done = True
        for path in self._kept:
            try:
                _unlink(self._directory(path), _beside(path, OLD))
            except OSError as error:
                raise BurstError(
                    f"{path}: wanted the old file's second name removed, found '{error.strerror}': the new files "
                    "are in place; run again, which removes it."
                ) from None

    def _directory(self, path: str) -> Directory:
        folder = os.path.dirname(path)
        if folder not in self._directories:
            made = Directory(path, create=True)
            self._directories[folder] = made
            for name in made.created:
                self._will_undo(name, partial(os.rmdir, name))
            self._lock(made)
        return self._directories[folder]

    def _lock(self, directory: Directory) -> None:
        """Keep a second run, of another controller, out for as long as the directory is open here."""
        try:
            fcntl.flock(directory.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BurstError(
                f"{directory.path}: wanted to write there, found another run at it: let that one end, and run again."
            ) from None

    def _stage(self, file: File, uid: int, gid: int) -> None:
        directory, name = self._directory(file.path), _beside(file.path, NEW)
        # What a killed run left is removed first, so that what is undone is always our own.
        for old in (name, _beside(file.path, OLD)):
            _unlink(directory, old)
        self._will_undo(name, lambda: _unlink(directory, name))
        handle = os.open(name, CREATION, 0o600, dir_fd=directory.handle)
        with os.fdopen(handle, "wb") as staged:
            os.fchown(staged.fileno(), uid, gid)
            os.fchmod(staged.fileno(), file.mode)
            staged.write(file.content)
            staged.flush()
            os.fsync(staged.fileno())
        self._keep(directory, file.path)

    def _keep(self, directory: Directory, path: str) -> None:
        """Give what stands a second name: taking it back is then a rename, which needs no room on the disk."""
        target, kept = os.path.basename(path), _beside(path, OLD)
        self._will_undo(kept, lambda: _unlink(directory, kept))
        try:
            os.link(
                target,
                kept,
                src_dir_fd=directory.handle,
                dst_dir_fd=directory.handle,
                follow_symlinks=False,
            )
        except FileNotFoundError:
            # Nothing stands there.
            return
        self._kept.append(path)

    def _commit(self, directory: Directory, path: str) -> None:
        target, new, kept = os.path.basename(path), _beside(path, NEW), _beside(path, OLD)

        def undo() -> None:
            if path in self._kept:
                os.rename(kept, target, src_dir_fd=directory.handle, dst_dir_fd=directory.handle)
            elif not _exists(directory, new):
                _unlink(directory, target)

        self._will_undo(path, undo)
        os.rename(new, target, src_dir_fd=directory.handle, dst_dir_fd=directory.handle)

    def _will_undo(self, what: str, how: Callable[[], object]) -> None:
        self._undo.append(_Undo(what, how))

    def _rolled_back(self) -> list[str]:
        """Take every step back, the last first; return what could not be."""
        left = []
        for step in reversed(self._undo):
            try:
                step.how()
            except OSError as error:
                left.append(f"{step.what}: '{error.strerror}'")
        return left


def _numbers(file: File) -> tuple[int, int]:
    try:
        return pwd.getpwnam(file.owner).pw_uid, grp.getgrnam(file.group).gr_gid
    except KeyError as error:
        raise BurstError(
            f"{file.path}: wanted owner {file.owner} and group {file.group}, found {error.args[0]}: {ADVICE}."
        ) from None


def _beside(path: str, which: str) -> str:
    return f".{os.path.basename(path)}.flux-burst-{which}"


def _exists(directory: Directory, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory.handle, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unlink(directory: Directory, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory.handle)
