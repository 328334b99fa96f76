# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deleting what something else may still use.

Compute Engine lets go of a router, a NAT's address or a machine's interface some time after it says that they are gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ansible_collections.flux.burst.plugins.module_utils._changes import Change
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

RELEASE_SECONDS = 180.0
"""How long to go on asking."""
PAUSE = 3.0
# As an answer and as an operation's error.
IN_USE = (
    "resourceInUseByAnotherResource",
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
    "resourceNotReady",
    "RESOURCE_NOT_READY",
)

Refusal = tuple[Change, GceError]


class Deleter(Protocol):
    """The part of GceClient that is used here."""

    def delete(self, kind: str, name: str, **place: str) -> Any:
        """Start to delete a resource; None: it is gone already."""

    def wait(self, started: Any) -> None:
        """Wait until that is done."""


def in_use(error: GceError) -> bool:
    """Return whether an error says that somebody uses the resource, or is changing it."""
    return any(code in IN_USE for code in error.codes)


def delete_all(
    client: Deleter,
    changes: Sequence[Change],
    occupied: Callable[[], bool],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Refusal]:
    """Delete resources beside one another, and return those that are in use still.

    It asks again for RELEASE_SECONDS, or until occupied() says that who uses them means to stay. A change's `before`
    holds the region, where there is one. Raises GceError for every other failure.
    """
    end = clock() + RELEASE_SECONDS
    left = list(changes)
    while True:
        refused = _round(client, left)
        if not refused or occupied() or clock() > end:
            return refused
        left = [change for change, _unused in refused]
        sleep(PAUSE)


def _round(client: Deleter, changes: Sequence[Change]) -> list[Refusal]:
    started: list[tuple[Change, Any]] = []
    refused: list[Refusal] = []
    for change in changes:
        place = {"region": change.before["region"]} if change.before.get("region") else {}
        try:
            deletion = client.delete(change.kind, change.name, **place)
        except GceError as error:
            if not in_use(error):
                raise
            refused.append((change, error))
            continue
        started += [(change, deletion)] if deletion else []
    for change, deletion in started:
        try:
            client.wait(deletion)
        except GceError as error:
            if not in_use(error):
                raise
            refused.append((change, error))
    return refused
