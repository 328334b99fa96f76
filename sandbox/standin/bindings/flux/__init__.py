# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our modules use of Flux's Python bindings."""

from __future__ import annotations

from typing import Any

from flux_standin.local import Client


class Future:
    """An answer that is there already."""

    def __init__(self, client: Client, topic: str, payload: dict[str, Any] | None) -> None:
        self._ask = (client, topic, payload)

    def get(self) -> dict[str, Any] | None:
        """Return the response. Raises OSError with Flux's errno."""
        client, topic, payload = self._ask
        response: dict[str, Any] | None = client.ask(topic, payload)
        return response


class Flux:
    """A connection to the local broker."""

    def __init__(self, url: str | None = None) -> None:
        self._client = Client(url)

    def rpc(self, topic: str, payload: dict[str, Any] | None = None) -> Future:
        """Ask one thing."""
        return Future(self._client, topic, payload)
