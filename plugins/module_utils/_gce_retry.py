# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking again where an answer may be another one in a moment, with growing pauses and an end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ansible_collections.flux.burst.plugins.module_utils import _gce_refusal
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
Answer = TypeVar("Answer")


class Later(Exception):
    """A request that may be repeated: the failure that it is otherwise, and how many seconds the server asks for."""

    def __init__(self, failure: GceError, after: float = 0.0) -> None:
        super().__init__(str(failure))
        self.failure, self.after = failure, after


def pauses() -> Iterator[float]:
    """Yield the seconds to wait before each next attempt: each time twice as long, of which a random half or more.

    The random part keeps the many who were refused together from coming back together.
    """
    longest = FIRST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)
        longest = min(2 * longest, LONGEST_PAUSE)


def persist(attempt: Callable[[], Answer]) -> Answer:
    """Return what attempt returns; it is repeated while it raises Later and RETRY_SECONDS are not over.

    Raises the GceError of the last attempt.
    """
    end = time.monotonic() + _gce_refusal.RETRY_SECONDS
    paused = pauses()
    while True:
        try:
            return attempt()
        except Later as later:
            wait = later.after + next(paused)
            if time.monotonic() + wait > end:
                raise later.failure from None
        time.sleep(wait)


def dropped(error: BaseException) -> bool:
    """Return whether a connection that was made broke off, or its answer did not come.

    A connection that is refused, a name that is unknown or a certificate that is wrong will be so again.
    """
    import requests
    from urllib3.exceptions import IncompleteRead

    seen: BaseException | None = error
    while seen is not None:
        # http.client.RemoteDisconnected is a ConnectionResetError too.
        if isinstance(
            seen, ConnectionResetError | BrokenPipeError | IncompleteRead | requests.ReadTimeout
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
