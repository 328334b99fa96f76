# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file is whole, has its owner and mode from the start, and its secret is never shown."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _files
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name


def wanted(
    path: Path, content: bytes = b"key", mode: int = 0o400, secret: bool = False
) -> _files.File:
    return _files.File(str(path), content, ME, MINE, mode, secret)


def test_a_written_file_is_what_was_wanted(tmp_path: Path) -> None:
    file = wanted(tmp_path / "munge.key")
    _files.write(file)
    assert _files.read(file) == file
    assert [path.name for path in tmp_path.iterdir()] == ["munge.key"]


def test_a_file_as_wanted_is_no_change(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a")
    _files.write(file)
    assert _files.difference(file, _files.read(file)) is None


def test_a_missing_file_is_created_and_a_mode_is_mended(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a")
    missing = _files.difference(file, _files.read(file))
    assert missing is not None and missing.action == "create"
    _files.write(file)
    (tmp_path / "a").chmod(0o644)
    changed = _files.difference(file, _files.read(file))
    assert changed is not None and changed.action == "update"
    assert (changed.before["mode"], changed.after["mode"]) == ("0644", "0400")


def test_a_secret_is_in_no_diff(tmp_path: Path) -> None:
    old, new = (
        wanted(tmp_path / "a", b"old-key", secret=True),
        wanted(tmp_path / "a", b"new-key", secret=True),
    )
    _files.write(old)
    changed = _files.difference(new, _files.read(new))
    assert changed is not None
    assert "old-key" not in str(changed) and "new-key" not in str(changed)
    assert changed.before["content"] == "(secret, differs)"


def test_a_secret_whose_mode_alone_differs_is_said_to_be_the_same(tmp_path: Path) -> None:
    file = wanted(tmp_path / "a", secret=True)
    _files.write(file)
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
        _files.write(file)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BurstError, match="node_base"):
        _files.write(wanted(tmp_path / "missing" / "a"))
