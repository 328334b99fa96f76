# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the broker logs, and what happens to its ranks: both are kept for those who ask later."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

ERROR = 3
LINES: deque[str] = deque(maxlen=1000)


def say(text: str) -> None:
    """Log a line: to the journal under systemd, and for flux dmesg in its form (RFC 5424 with severity * 8)."""
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    LINES.append(f"<{ERROR * 8}>1 {when} 0 overlay {os.getpid()} - - {text}")
    print(text, file=sys.stderr, flush=True)


async def lines() -> AsyncIterator[str]:
    """Yield what was logged so far."""
    for line in [*LINES]:
        yield line


class Journal:
    """The events of the resources (RFC 21), for readers who follow them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._followers: list[asyncio.Queue[dict[str, Any]]] = []

    def note(self, name: str, **context: Any) -> None:
        """Add an event."""
        event = {"timestamp": time.time(), "name": name, "context": context}
        self.events.append(event)
        for follower in self._followers:
            follower.put_nowait(event)

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events so far, an empty batch, and then each new one."""
        fresh: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._followers.append(fresh)
        try:
            yield {"events": [*self.events]}
            yield {"events": []}
            while True:
                yield {"events": [await fresh.get()]}
        finally:
            self._followers.remove(fresh)
