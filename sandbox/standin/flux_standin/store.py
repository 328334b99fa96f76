# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key-value store (RFC 11), as far as claims need it: values that are appended to, and directories."""

from __future__ import annotations

import base64
import copy
import errno
import hashlib
import json
from typing import Any

from .local import fail

READDIR, APPEND = 1, 32
# What is longer than this in base 64 lies outside its directory, which has a reference only.
SHORT = 72

Folder = dict[str, Any]


class Store:
    """A tree: a directory is a dict, a value the list of what was appended to it."""

    def __init__(self) -> None:
        self.root: Folder = {}
        self.commits = 0

    def commit(self, namespace: str, operations: list[dict[str, Any]]) -> dict[str, Any]:
        """Do all of a transaction or, with OSError, nothing."""
        _known(namespace)
        root = copy.deepcopy(self.root)
        for operation in operations:
            _change(root, operation["key"], operation["flags"], operation["dirent"])
        self.root = root
        self.commits += 1
        return {"rootref": _reference(self.commits), "rootseq": self.commits}

    def lookup(self, namespace: str, key: str, flags: int) -> dict[str, Any]:
        """Return an entry. Raises OSError."""
        _known(namespace)
        if flags not in (0, READDIR):
            raise fail(errno.EINVAL)
        entry: Any = self.root
        for part in _path(key):
            if not isinstance(entry, dict) or part not in entry:
                raise fail(errno.ENOENT)
            entry = entry[part]
        if isinstance(entry, dict):
            if not flags & READDIR:
                raise fail(errno.EISDIR)
            return _entry("dir", {name: _shown(inner) for name, inner in entry.items()})
        if flags & READDIR:
            raise fail(errno.ENOTDIR)
        return _entry("val", base64.b64encode(b"".join(entry)).decode())


def _known(namespace: str) -> None:
    if namespace != "primary":
        raise fail(errno.EOPNOTSUPP)


def _path(key: str) -> list[str]:
    # The root is "."; the empty key is a name like others.
    return [part for part in key.split(".") if part] if key else [""]


def _change(root: Folder, key: str, flags: int, entry: dict[str, Any] | None) -> None:
    *above, name = _path(key) or [key]
    folder = root
    for part in above:
        inner = folder.get(part)
        if not isinstance(inner, dict):
            if entry is None:
                return
            # A value that stands where a directory has to be gives way to it.
            inner = folder[part] = {}
        folder = inner
    if entry is None:
        folder.pop(name, None)
        return
    if entry.get("type") != "val" or not isinstance(entry.get("data"), str):
        raise fail(errno.EINVAL)
    kept = folder.get(name, []) if flags & APPEND else []
    if isinstance(kept, dict):
        raise fail(errno.EISDIR)
    folder[name] = [*kept, base64.b64decode(entry["data"])]


def _shown(inner: Any) -> dict[str, Any]:
    """Return an entry as its directory has it."""
    if isinstance(inner, dict):
        return _entry("dirref", [_reference(sorted(inner))])
    data = base64.b64encode(inner[0]).decode()
    if len(inner) == 1 and len(data) <= SHORT:
        return _entry("val", data)
    return _entry("valref", [_reference(str(part)) for part in inner])


def _reference(thing: Any) -> str:
    return f"sha1-{hashlib.sha1(json.dumps(thing).encode(), usedforsecurity=False).hexdigest()}"


def _entry(kind: str, data: Any) -> dict[str, Any]:
    return {"ver": 1, "type": kind, "data": data}
