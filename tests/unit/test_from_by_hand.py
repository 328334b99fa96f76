# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every play, option, module and test that docs/from-by-hand.md names exists."""

from __future__ import annotations

import re

import pytest
from documented import MODULES, ROLES, TOP, role_options

PAGE = (TOP / "docs/from-by-hand.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| by hand |")
]
OPTIONS = {name for role in ROLES for name in role_options(role)}


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_row_says_what_was_done_what_does_it_and_what_proves_it() -> None:
    assert len(ROWS) > 30
    assert [row for row in ROWS if len(row) != 3 or not all(row)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_what_a_row_names_exists(row: list[str]) -> None:
    tests = quoted(row[2])
    assert tests, "no test"
    for path, _unused, name in (test.partition("::") for test in tests):
        assert (TOP / path).is_file(), path
        wanted = rf"^(async )?def {name}\(" if name else "^(async )?def test_"
        assert re.search(wanted, (TOP / path).read_text(), re.M), name
    for word in quoted(row[1]):
        if word.endswith(".yml"):
            assert (TOP / word).is_file(), word
        elif re.fullmatch(r"(burst|lead|image|node|node_base|shared_home)_\w+", word):
            assert word in OPTIONS | {"burst_nodes", *ROLES}, word
        elif re.fullmatch(r"(gce|gke|flux)_\w+", word):
            assert word in MODULES, word
