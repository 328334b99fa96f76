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
from typing import Any, Generic, TypeVar

ERROR, DEBUG = 3, 7
LINES: deque[str] = deque(maxlen=1000)

Item = TypeVar("Item")


class Followers(Generic[Item]):
    """Who is told of what comes."""

    def __init__(self) -> None:
        self._queues: list[asyncio.Queue[Item]] = []

    def tell(self, item: Item) -> None:
        """Tell all of them."""
        for queue in self._queues:
            queue.put_nowait(item)

    async def after(self, known: list[Item]) -> AsyncIterator[Item]:
        """Yield what is known already, and what comes from the first of it on."""
        queue: asyncio.Queue[Item] = asyncio.Queue()
        self._queues.append(queue)
        try:
            for item in known:
                yield item
            while True:
                yield await queue.get()
        finally:
            self._queues.remove(queue)


LISTENERS: Followers[str] = Followers()


def say(text: str, level: int = ERROR) -> None:
    """Log a line: for flux dmesg in its form (RFC 5424 with severity * 8), and errors to systemd's journal too."""
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line = f"<{level * 8}>1 {when} 0 overlay {os.getpid()} - - {text}"
    LINES.append(line)
    LISTENERS.tell(line)
    if level <= ERROR:
        print(text, file=sys.stderr, flush=True)


async def lines(follow: bool, backlog: bool) -> AsyncIterator[str]:
    """Yield what was logged so far, and what will be."""
    known = [*LINES] if backlog else []
    if follow:
        async for line in LISTENERS.after(known):
            yield line
    for line in known:
        yield line


class Journal:
    """The events of the resources (RFC 21), for readers who follow them."""

    def __init__(self) -> None:
        # An R belongs to the event that defines it, and makes a response of its own.
        self.batches: list[dict[str, Any]] = []
        self._followers: Followers[dict[str, Any]] = Followers()

    def note(self, name: str, R: dict[str, Any] | None = None, **context: Any) -> None:
        """Add an event."""
        event = {"timestamp": time.time(), "name": name, "context": context}
        more = {} if R is None else {"R": R}
        last = self.batches[-1] if len(self.batches) > 2 else None
        if last is None or more:
            self.batches.append({"events": [event], **more})
        else:
            last["events"].append(event)
        self._followers.tell({"events": [event], **more})

    async def follow(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the events so far, an empty batch, and then each new one."""
        known = [{**batch, "events": [*batch["events"]]} for batch in self.batches]
        async for batch in self._followers.after([*known, {"events": []}]):
            yield batch
