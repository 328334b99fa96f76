# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode tells is what a run does, and a failure is one message."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage, apply
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    BurstError,
    FluxError,
    GceError,
    SpecError,
    failing_module,
)

CREATE = Change("network", "t-net", "create", {}, {"mtu": 1500})
UPDATE = Change("firewall", "t-ssh", "update", {"priority": 1}, {"priority": 1000})
DELETE = Change("router", "t-router", "delete", {"name": "t-router"}, {})


class Module:
    """Records how it ended."""

    def __init__(self) -> None:
        self.failed: dict[str, Any] = {}

    def fail_json(self, msg: str, **facts: Any) -> None:
        self.failed = {"msg": msg, **facts}


def test_check_mode_returns_what_a_run_returns_and_does_nothing() -> None:
    done: list[Stage] = []
    stages = [[CREATE], [], [UPDATE, DELETE]]
    planned = apply(stages, done.append, check=True)
    assert done == []
    assert apply(stages, done.append, check=False) == planned
    assert done == [[CREATE], [UPDATE, DELETE]]


def test_an_empty_plan_is_no_change() -> None:
    assert apply([[], []], pytest.fail, check=False) == {
        "changed": False,
        "diff": [],
        "resources": [],
    }


def test_a_failed_stage_keeps_the_later_ones_from_beginning() -> None:
    begun: list[Stage] = []

    def act(stage: Stage) -> None:
        begun.append(stage)
        raise GceError("no")

    with pytest.raises(GceError):
        apply([[CREATE], [UPDATE]], act, check=False)
    assert begun == [[CREATE]]


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        (CREATE, "", {"mtu": 1500}),
        (UPDATE, {"priority": 1}, {"priority": 1000}),
        (DELETE, {"name": "t-router"}, ""),
    ],
)
def test_a_diff_is_empty_where_nothing_is(change: Change, before: Any, after: Any) -> None:
    assert (change.diff["before"], change.diff["after"]) == (before, after)
    assert change.diff["before_header"] == f"{change.kind} {change.name}"


@pytest.mark.parametrize("kind", [BurstError, GceError, FluxError, SpecError])
def test_an_error_of_ours_is_the_modules_failure_with_its_facts(kind: type[BurstError]) -> None:
    module = Module()
    with failing_module(module):
        raise kind("wanted this, found that", stage="boot")
    assert module.failed == {"msg": "wanted this, found that", "stage": "boot"}


def test_a_defect_is_not_taken_for_a_failure() -> None:
    module = Module()
    with pytest.raises(KeyError), failing_module(module):
        raise KeyError("a defect")
    assert module.failed == {}
