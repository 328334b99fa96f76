# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostlists and specifications as no one should write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._hostlist import MOST_NAMES, expand, fold
from ansible_collections.flux.burst.plugins.module_utils._spec import specification
from fuzzing import changed_json, fuzzed, loaded, soon, survives, told
from hypothesis import strategies as st

TOP = Path(__file__).resolve().parents[2]
OPTIONS = yaml.safe_load((TOP / "roles/burst/meta/argument_specs.yml").read_text())[
    "argument_specs"
]["main"]["options"]
SANDBOX = yaml.safe_load((TOP / "inventory/sandbox/group_vars/all.yml").read_text())
# What only a template says has a default.
GOOD = {name: value for name, value in SANDBOX.items() if "{{" not in str(value)}
PARTS = st.sampled_from(
    [
        *(
            "gffw-compute-a-",
            "a",
            "b-1",
            "",
            "-",
            ".",
            "_",
            ",",
            ",,",
            "[",
            "]",
            "[]",
            "[,]",
            "[1]",
        ),
        *("[001-003]", "[1-3,5]", "[3-1]", "[0-999999999]", "[1-99999999999999999999]", "[0-1/2]"),
        *(
            "[1-60000]",
            "[a-b]",
            "[[1-2]]",
            "@all",
            "!",
            "&",
            "^",
            "%2d",
            " ",
            "\t",
            "\n",
            "\0",
            "*",
        ),
        *(
            "[0-0]",
            "[00-9]",
            "[09-10]",
            "[1-2",
            "1-2]",
            "٣",
            "[²]",
            "\u202e",
            "\x1b[2J",
            "9" * 5000,
        ),
    ]
)


@fuzzed(0.16, parts=st.lists(PARTS | st.text(max_size=3), max_size=12))
def test_hostlists(parts: list[str]) -> None:
    names = survives(lambda: expand("".join(parts)), SpecError)
    if names is not None:
        assert 0 < len(names) <= 2 * MOST_NAMES
        assert len(set(names)) == len(names)
        assert all(name.isprintable() and not set(name) & set(" [],") for name in names)
        assert set(expand(fold(names[:50]))) == set(names[:50])


@fuzzed(0.14, text=changed_json(GOOD, 4))
def test_specifications(text: str) -> None:
    given: Any = loaded(text)
    if not isinstance(given, dict):
        return
    with soon():
        try:
            made = specification(given, OPTIONS)
        except SpecError as error:
            # A line for each thing that is wrong.
            for line in str(error).split("\n"):
                told(ValueError(line))
        else:
            assert expand(made["burst_hostlist"])
            assert 30 <= made["burst_max_run_seconds"] <= 120 * 86400
