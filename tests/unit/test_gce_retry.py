# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests are repeated with growing pauses and an end, and only where a repeat may help."""

from __future__ import annotations

import itertools

import pytest
import requests
from ansible_collections.flux.burst.plugins.module_utils import _gce_retry
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_retry import (
    Later,
    dropped,
    pauses,
    persist,
)


class Clock:
    """A time that passes when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept: list[float] = []
        monkeypatch.setattr(_gce_retry.time, "monotonic", lambda: sum(self.slept))
        monkeypatch.setattr(_gce_retry.time, "sleep", self.slept.append)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of the test's own."""
    return Clock(monkeypatch)


def test_pauses_double_up_to_the_longest_and_are_half_random() -> None:
    first, second = (list(itertools.islice(pauses(), 12)) for _unused in range(2))
    longest = [min(0.2 * 2**place, 10.0) for place in range(12)]
    for pause, most in zip(first, longest, strict=True):
        assert most / 2 <= pause <= most
    assert first != second


def test_what_passes_is_answered_in_the_end(clock: Clock) -> None:
    answers = iter([Later(GceError("busy")), Later(GceError("busy"), after=7.0), None])

    def attempt() -> str:
        answer = next(answers)
        if answer:
            raise answer
        return "done"

    assert persist(attempt) == "done"
    assert len(clock.slept) == 2
    assert 7.2 <= clock.slept[1] <= 7.4


@pytest.mark.parametrize(("after", "slept"), [(0.0, 60.0), (25.0, 60.0), (61.0, 0.0)])
def test_what_does_not_pass_is_told_before_the_time_is_over(
    clock: Clock, after: float, slept: float
) -> None:
    failure = GceError("busy", status=503)

    def attempt() -> None:
        raise Later(failure, after)

    with pytest.raises(GceError) as caught:
        persist(attempt)
    assert caught.value is failure
    assert slept - 26.0 - 10.0 < sum(clock.slept) <= slept


def test_a_failure_that_stays_is_told_at_once(clock: Clock) -> None:
    def attempt() -> None:
        raise GceError("no")

    with pytest.raises(GceError, match="no"):
        persist(attempt)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("cause", "again"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (BrokenPipeError(32, "Broken pipe"), True),
        (requests.ReadTimeout("30 s"), True),
        (ConnectionRefusedError(111, "Connection refused"), False),
        (requests.exceptions.SSLError("certificate verify failed"), False),
        (requests.ConnectTimeout("30 s"), False),
    ],
)
def test_a_connection_that_broke_is_told_from_one_that_was_never_made(
    cause: Exception, again: bool
) -> None:
    try:
        try:
            raise cause
        except Exception as error:
            raise requests.ConnectionError(error) from None
    except requests.ConnectionError as error:
        assert dropped(error) is again
