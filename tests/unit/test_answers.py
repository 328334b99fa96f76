# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not as its reference has it is named by its place, and what is told of it is one line."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _flux_answers, _gce_answers
from ansible_collections.flux.burst.plugins.module_utils._answers import (
    NUMBER,
    Each,
    Readable,
    misfit,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    LONGEST,
    BurstError,
    printable,
)


@pytest.mark.parametrize(
    ("value", "shape", "wrong"),
    [
        ("a", str, ""),
        (1, str, "it is a whole number, and not a text"),
        (True, int, "it is true or false, and not a whole number"),
        (1 << 64, int, "it has more than 64 bits"),
        (float("nan"), NUMBER, "it is a whole number, and not a number"),
        ([1, "2"], [int], "it[1] is a text, and not a whole number"),
        ({"a": 1}, {"a": int, "b?": str}, ""),
        ({"a": 1, "b": 2}, {"a": int, "b?": str}, "it.b is a whole number, and not a text"),
        ({}, {"a": int}, "it.a is null, and not a whole number"),
        ({"x": "y"}, Each(int), "it.x is a text, and not a whole number"),
        (None, (str, type(None)), ""),
        ("x", Readable(str, int, "a whole number"), "it is 'x', and not a whole number"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, shape: Any, wrong: str) -> None:
    if isinstance(value, float):
        assert misfit(value, shape, "it")
    else:
        assert misfit(value, shape, "it") == wrong


def test_attributes_that_were_asked_for_must_be_there() -> None:
    job = {"id": 1, "state": 8}
    asked = {"attrs": ["state", "name"]}
    assert _flux_answers.wrong("job-list.list-id", asked, {"job": job}) == ""
    asked = {"attrs": ["state", "userid"]}
    assert "userid is null" in _flux_answers.wrong("job-list.list-id", asked, {"job": job})
    assert "number of a job" in _flux_answers.wrong("job-list.list", {}, {"jobs": [{"id": -1}]})


def test_a_partial_response_has_what_is_never_left_out() -> None:
    fields = "id,name,labels,networkInterfaces(networkIP,accessConfigs/natIP),scheduling"
    assert _gce_answers.asked(fields) == ["id", "name", "networkInterfaces"]
    assert _gce_answers.asked("") == []


def test_labels_may_be_called_as_fields_are() -> None:
    assert _gce_answers.wrong({"labels": {"id": "x", "disks": "y"}}) == ""
    assert _gce_answers.wrong({"labels": {"id": 7}}) != ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ƒ text", "plain ƒ text"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\0", r"a\nb\x00"),
        ("\x9b31m\u202e\ud800", r"\x9b31m\u202e\ud800"),
    ],
)
def test_no_text_acts_on_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(BurstError(text.replace("\n", ""))) == shown.replace(r"\n", "")


def test_a_message_keeps_its_lines_and_cuts_what_is_too_long() -> None:
    lines = str(BurstError(f"one\n{'x' * 2 * LONGEST}")).split("\n")
    assert [len(line) for line in lines] == [3, LONGEST]
