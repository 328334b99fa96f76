# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are all in place or none, whole, with owner and mode from the start, and a secret is never shown."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _files
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from hypothesis import given, settings
from hypothesis import strategies as st

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name


def wanted(
    path: Path, content: bytes = b"key", mode: int = 0o400, secret: bool = False
) -> _files.File:
    return _files.File(str(path), content, ME, MINE, mode, secret)


def place(*files: _files.File) -> None:
    """Put files in place."""
    with _files.Placement(files) as placement:
        placement.stage()
        placement.commit()


def test_a_written_file_is_what_was_wanted(tmp_path: Path) -> None:
    file = wanted(tmp_path / "munge.key")
    place(file)
    assert _files.read(file) == file
    assert [path.name for path in tmp_path.iterdir()] == ["munge.key"]


def test_a_file_as_wanted_is_no_change(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a")
    place(file)
    assert _files.difference(file, _files.read(file)) is None


def test_a_missing_file_is_created_and_a_mode_is_mended(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a")
    missing = _files.difference(file, _files.read(file))
    assert missing is not None and missing.action == "create"
    place(file)
    (tmp_path / "a").chmod(0o644)
    changed = _files.difference(file, _files.read(file))
    assert changed is not None and changed.action == "update"
    assert (changed.before["mode"], changed.after["mode"]) == ("0644", "0400")


def test_a_secret_is_in_no_diff(tmp_path: Path) -> None:
    old, new = (
        wanted(tmp_path / "a", b"old-key", secret=True),
        wanted(tmp_path / "a", b"new-key", secret=True),
    )
    place(old)
    changed = _files.difference(new, _files.read(new))
    assert changed is not None
    assert "old-key" not in str(changed) and "new-key" not in str(changed)
    assert changed.before["content"] == "(secret, differs)"


def test_a_secret_whose_mode_alone_differs_is_said_to_be_the_same(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a", secret=True)
    place(file)
    (tmp_path / "a").chmod(0o600)
    changed = _files.difference(file, _files.read(file))
    assert changed is not None and changed.before["content"] == "(secret)"


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(BurstError, match="wanted a regular file or none"):
        _files.read(wanted(tmp_path / "a"))


def test_an_unknown_owner_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    file = _files.File(str(tmp_path / "a"), b"", "nobody-here", MINE, 0o644)
    with pytest.raises(BurstError, match="nobody-here"):
        place(file)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_made_and_readable_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        place(wanted(tmp_path / "a" / "b" / "key"))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / way).stat().st_mode) for way in ("a", "a/b")] == [0o755] * 2


@pytest.mark.parametrize("way", ["link/key", "link/deeper/key"])
def test_a_link_above_a_file_is_refused_by_its_name(tmp_path: Path, way: str) -> None:
    (tmp_path / "real" / "deeper").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    file = wanted(tmp_path / way)
    for act in (_files.read, place):
        with pytest.raises(BurstError, match=f"wanted {tmp_path}/link to be a directory, found a"):
            act(file)
    assert list((tmp_path / "real").rglob("key")) == []


def test_a_second_run_in_the_same_directory_is_kept_out(tmp_path: Path) -> None:
    with _files.Placement([wanted(tmp_path / "a")]) as first:
        first.stage()
        with pytest.raises(BurstError, match="found another run at it"):
            place(wanted(tmp_path / "b"))
        first.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_run_left_is_found_and_is_no_hindrance(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        # As a kill does: no clean-up runs.
        placement = _files.Placement([wanted(tmp_path / name, b"one") for name in "ab"])
        placement.stage()
        os._exit(0)
    os.waitpid(child, 0)
    left = [str(tmp_path / f".{name}.flux-burst-new") for name in "ab"]
    assert _files.leftovers([str(tmp_path / "b"), str(tmp_path / "none" / "c")]) == left
    place(wanted(tmp_path / "a", b"two"))
    _files.remove(left[1])
    _files.remove(left[1])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_is_being_written_can_be_read_by_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the creation of the file and its mode there is nothing for others either."""
    modes = []
    owned = os.fchown

    def fchown(handle: int, uid: int, gid: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        owned(handle, uid, gid)

    monkeypatch.setattr(os, "fchown", fchown)
    before = os.umask(0)
    try:
        place(wanted(tmp_path / "a"))
    finally:
        os.umask(before)
    assert modes == [0o600]


STEPS = ("open", "link", "rename", "fsync", "fchown", "fchmod", "mkdir", "unlink")


@contextmanager
def failing(number: int) -> Iterator[list[str]]:
    """Let the call with this number fail, counted over all that change the disk, and no other one."""
    made: list[str] = []
    kept = {name: getattr(os, name) for name in STEPS}

    def wrapped(name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            made.append(name)
            if len(made) == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return kept[name](*args, **options)

        return call

    for name in STEPS:
        setattr(os, name, wrapped(name))
    try:
        yield made
    finally:
        for name, call in kept.items():
            setattr(os, name, call)


Seen = dict[str, tuple[bytes, int, int, int]]
OWNERS = [ME, "nobody"] if os.getuid() == 0 else [ME]
NAMES = ["a", "b", "c", "d/a", "d/e/b", "f/a"]


def seen(top: Path) -> Seen:
    """All that is below a directory: content, owner, group and mode, of directories no content."""
    found = {}
    for path in top.rglob("*"):
        at = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (content, at.st_uid, at.st_gid, stat.S_IMODE(at.st_mode))
    return found


def files_of(top: Path, rows: Sequence[tuple[str, bytes, str, int]]) -> list[_files.File]:
    return [
        _files.File(str(top / name), text, owner, MINE, mode) for name, text, owner, mode in rows
    ]


def sets() -> st.SearchStrategy[list[tuple[str, bytes, str, int]]]:
    """Sets of files with different names."""
    modes = st.sampled_from([0o400, 0o600, 0o644, 0o755])
    row = st.tuples(st.sampled_from(NAMES), st.binary(max_size=40), st.sampled_from(OWNERS), modes)
    return st.lists(row, max_size=len(NAMES), unique_by=lambda row: row[0])


@settings(max_examples=100, deadline=None)
@given(old=sets(), new=sets(), number=st.integers(1, 120))
def test_whichever_step_fails_all_files_are_new_or_all_are_old(
    old: list[tuple[str, bytes, str, int]], new: list[tuple[str, bytes, str, int]], number: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        place(*files_of(top, old))
        before = seen(top)
        files = files_of(top, new)
        said = ""
        with failing(number) as made:
            try:
                place(*files)
            except BurstError as error:
                said = str(error)
        after = seen(top)
        assert bool(said) == (number <= len(made))
        if said and "the new files are in place" not in said:
            assert after == before
            return
        assert [_files.read(file) for file in files] == files
        left = _files.leftovers(file.path for file in files)
        assert bool(left) == bool(said)
        ours = {*left, *(file.path for file in files)}
        assert {
            path: row for path, row in before.items() if path not in ours
        }.items() <= after.items()


def test_a_file_that_cannot_be_put_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(wanted(tmp_path / "a", b"old"))

    def rename(*_unused: Any, **_options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(BurstError, match=r"wanted the old files back, found .*/a: 'Read-only"):
        place(wanted(tmp_path / "a", b"new"))


@pytest.mark.skipif(os.getuid() != 0, reason="a mount needs root")
def test_a_full_disk_and_a_directory_that_cannot_be_written_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    place(wanted(tmp_path / "a", b"old"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "none", str(tmp_path / "small")]
    subprocess.run(mount, check=True)
    try:
        for big, said in ((b"x" * 100_000, "No space left"), (b"x", "Read-only file system")):
            with pytest.raises(BurstError, match=said):
                place(wanted(tmp_path / "a", b"new"), wanted(tmp_path / "small" / "b", big))
            assert seen(tmp_path)[str(tmp_path / "a")][0] == b"old"
            assert [path.name for path in (tmp_path / "small").iterdir()] == []
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "small")], check=True)
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)
