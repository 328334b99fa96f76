# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our modules use of Flux's Python bindings."""

from __future__ import annotations

import json
from typing import Any

from flux_standin.local import Client

STREAMING = 2


class Future:
    """An answer that may not be there yet, or the next one of a stream."""

    def __init__(
        self, client: Client, topic: str, payload: dict[str, Any] | None, stream: bool
    ) -> None:
        self._client = client
        self._number = client.send(topic, payload, stream)

    def wait_for(self, timeout: float = -1.0) -> None:
        """Wait, at most `timeout` seconds. Raises OSError with ETIMEDOUT."""
        self._client.wait(self._number, timeout)

    def get_str(self) -> str | None:
        """Return the response as text. Raises OSError with Flux's errno."""
        payload = self._client.payload(self._number)
        if payload is None or isinstance(payload, str):
            return payload
        return json.dumps(payload, separators=(",", ":"))

    def get(self) -> dict[str, Any] | None:
        """Return the response. Raises OSError with Flux's errno."""
        response: dict[str, Any] | None = self._client.payload(self._number)
        return response

    def reset(self) -> None:
        """Go on to the next response of a stream."""
        self._client.drop(self._number)


class Flux:
    """A connection to the local broker."""

    def __init__(self, url: str | None = None) -> None:
        self._client = Client(url)

    def rpc(
        self,
        topic: str,
        payload: dict[str, Any] | None = None,
        nodeid: int = 0xFFFFFFFF,
        flags: int = 0,
    ) -> Future:
        """Ask one thing; every rank's broker is asked for itself."""
        return Future(self._client, topic, payload, bool(flags & STREAMING))

    def pollevents(self) -> int:
        """Return 0: whether something is there is not known without waiting."""
        return 0
