# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator's request log: one JSON line for each HTTP request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.server.state import now


class RequestLog:
    """Appends to a file, which is made anew with the server."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._file = path.open("a", buffering=1, encoding="utf-8")
        path.chmod(0o600)

    def write(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        status: int,
        request: Any,
        response: Any,
    ) -> None:
        """Write one request with its answer; both bodies are JSON values, None where there is none."""
        record = {
            "time": now(),
            "method": method,
            "path": path,
            "query": dict(query),
            "status": status,
            "request": request,
            "response": response,
        }
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
