# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key-value store, as far as claims need it: values that are appended to, directories, and only for the owner."""

from __future__ import annotations

import base64
import errno
from typing import Any

from .local import fail

READDIR, APPEND = 1, 32


class Store:
    """Values by key; each is a list of what was appended to it."""

    def __init__(self) -> None:
        self.values: dict[str, list[bytes]] = {}
        self.folders: set[str] = set()

    def commit(self, operations: list[dict[str, Any]]) -> None:
        """Do all of a transaction."""
        for operation in operations:
            key, entry = operation["key"], operation["dirent"]
            if entry is None:
                self.values.pop(key, None)
                continue
            data = base64.b64decode(entry["data"])
            kept = self.values.get(key, []) if operation["flags"] & APPEND else []
            self.values[key] = [*kept, data]
            parts = key.split(".")
            self.folders |= {".".join(parts[:end]) for end in range(1, len(parts))}

    def lookup(self, key: str, flags: int) -> dict[str, Any]:
        """Return an entry (RFC 11). Raises OSError."""
        if flags & READDIR:
            if key in self.values:
                raise fail(errno.ENOTDIR)
            if key not in self.folders:
                raise fail(errno.ENOENT)
            return {"ver": 1, "type": "dir", "data": dict(self._inside(key))}
        if key in self.folders:
            raise fail(errno.EISDIR)
        if key not in self.values:
            raise fail(errno.ENOENT)
        return _value(b"".join(self.values[key]))

    def _inside(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for key, parts in self.values.items():
            above, _unused, name = key.rpartition(".")
            if above == folder:
                # Only what was written at once lies in the folder itself.
                refs = [f"sha1-{number:040x}" for number in range(len(parts))]
                ref = {"ver": 1, "type": "valref", "data": refs}
                found.append((name, _value(parts[0]) if len(parts) == 1 else ref))
        return found


def _value(data: bytes) -> dict[str, Any]:
    return {"ver": 1, "type": "val", "data": base64.b64encode(data).decode()}
