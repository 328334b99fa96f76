# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostlists are read as Flux writes them, and what Flux would refuse is refused."""

from __future__ import annotations

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand, fold
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.builds(
    lambda prefix, number: f"{prefix}-{number:03}",
    st.sampled_from(["gffw-compute-a", "gffw-compute-b", "n"]),
    st.integers(0, 999),
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a-[001-003]", ["a-001", "a-002", "a-003"]),
        ("a-[1,3],b", ["a-1", "a-3", "b"]),
        ("a[08-11]", ["a08", "a09", "a10", "a11"]),
        ("b-1,a-[1-2],b-1", ["b-1", "a-1", "a-2"]),
        ("a[1-2]x", ["a1x", "a2x"]),
        ("a-[7,1-2]", ["a-7", "a-1", "a-2"]),
    ],
)
def test_a_hostlist_is_its_names(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize("text", ["a-[001-", "a-[1-x]", "@all", "a!b", "a b", "", "a[3-1]", "a,"])
def test_what_is_no_hostlist_is_refused_and_shown(text: str) -> None:
    with pytest.raises(SpecError, match="wanted a Flux hostlist") as caught:
        expand(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["a[-1]", "a[1-2]b[1-2]", "a[0-8/2]", "a!b", "a&b", "a^b"])
def test_what_clustershell_reads_otherwise_than_flux_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="wanted a Flux hostlist"):
        expand(text)


@pytest.mark.parametrize(
    "text",
    [
        "a[0-99999999]",
        "a[1-60000],b[1-60000]",
        f"a[0-{'9' * 30}]",
        f"a[0-{'9' * 5000}]",
        "9" * 5000,
        f"{'a' * 300_000}[",
    ],
)
def test_a_range_that_no_machine_can_hold_is_refused_before_it_is_expanded(text: str) -> None:
    with pytest.raises(SpecError, match="wanted a Flux hostlist") as caught:
        expand(text)
    assert len(str(caught.value)) < 400


@given(st.sets(NAMES, min_size=1, max_size=30))
def test_folded_names_expand_to_the_same_names(names: set[str]) -> None:
    assert set(expand(fold(names))) == names
