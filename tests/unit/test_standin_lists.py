# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in writes lists and job ids as Flux does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.standin.flux_standin.lists import expand, f58, fold, ids, idset, job_id


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a-001", "a-002", "a-003"], "a-[001-003]"),
        (["a-001", "a-003"], "a-[001,003]"),
        (["lead", "n-1", "n-2", "b-1"], "lead,n-[1-2],b-1"),
        (["a9", "a10"], "a[9-10]"),
    ],
)
def test_names_and_their_hostlist(names: list[str], text: str) -> None:
    assert fold(names) == text
    assert expand(text) == names


@given(st.sets(st.integers(0, 200)))
def test_an_idset_holds_its_numbers(numbers: set[int]) -> None:
    assert ids(idset(numbers)) == sorted(numbers)


@given(st.integers(0, 2**63))
def test_a_job_id_can_be_read_in_each_of_its_forms(number: int) -> None:
    assert job_id(f58(number)) == job_id(str(number)) == number
    assert job_id("ƒ" + f58(number)[1:]) == number
