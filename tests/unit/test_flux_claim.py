# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is first in a log holds the job, however many read it and whenever they do."""

from __future__ import annotations

import json

import pytest
from ansible_collections.flux.burst.plugins.module_utils._flux_claim import (
    Claim,
    holder,
    line,
    release_line,
)
from hypothesis import given
from hypothesis import strategies as st


def taken(burst: str, now: float, until: float) -> str:
    return line(Claim(burst, until), now)


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        pytest.param("", None, id="nobody wrote"),
        pytest.param(taken("a", 1, 9), "a", id="one claims"),
        pytest.param(taken("a", 1, 9) + taken("b", 1, 9), "a", id="the first wins"),
        pytest.param(taken("a", 1, 9) + taken("b", 9, 20), "b", id="an expired claim can be taken"),
        pytest.param(taken("a", 1, 9) + taken("b", 8.9, 20), "a", id="not a moment before"),
        pytest.param(
            taken("a", 1, 9) + release_line("a", 2) + taken("b", 3, 9), "b", id="a released claim"
        ),
        pytest.param(
            taken("a", 1, 9) + release_line("b", 2), "a", id="another cannot give it back"
        ),
        pytest.param(taken("a", 1, 9) + release_line("a", 2), None, id="given back"),
        pytest.param("junk\n[1]\n{}\n" + taken("a", 1, 9) + '{"t": "x"}', "a", id="junk between"),
        pytest.param(
            '{"t": 1, "burst": "b", "until": NaN}\n' + taken("a", 1, 9), "a", id="no time"
        ),
        pytest.param("[" * 9999 + "\n" + taken("a", 1, 9), "a", id="nested too deeply"),
    ],
)
def test_the_holder_is_the_first_until_it_released_or_expired(log: str, wanted: str | None) -> None:
    held = holder(log)
    assert (held.burst if held else None) == wanted


def test_a_claim_of_ones_own_is_renewed() -> None:
    assert holder(taken("a", 1, 9) + taken("a", 5, 20)) == Claim("a", 20)


def test_an_entry_is_one_line_whatever_the_names_are() -> None:
    assert line(Claim("a\nb", 1.0, "x\ny"), 0.0).count("\n") == 1
    assert json.loads(line(Claim("a", 2.0, "c"), 1.0)) == {
        "t": 1.0,
        "burst": "a",
        "until": 2.0,
        "by": "c",
    }


ENTRIES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=12)


@given(ENTRIES, ENTRIES)
def test_what_is_appended_later_never_takes_a_claim_that_still_holds(
    before: list[tuple[str, int, bool]], after: list[tuple[str, int, bool]]
) -> None:
    now = 0.0
    log = ""
    for burst, lasts, release in before:
        now += 1
        log += release_line(burst, now) if release else taken(burst, now, now + lasts)
    held = holder(log)
    for burst, lasts, release in after:
        if held is None or burst == held.burst:
            continue
        # Others that come while it holds, in whatever order, change nothing.
        when = min(now, held.until - 0.001)
        log += release_line(burst, when) if release else taken(burst, when, when + lasts)
    if held is not None:
        assert holder(log) == held


@given(st.text(max_size=200))
def test_no_text_in_a_log_is_a_traceback(text: str) -> None:
    assert holder(text) is None or isinstance(holder(text), Claim)
