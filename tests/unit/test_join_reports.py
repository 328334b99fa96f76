# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of each machine that was not configured it is known why, and of the others nothing is said."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.filter.join_reports import FilterModule, join_reports
from ansible_collections.flux.burst.plugins.module_utils._diagnose import of_message

JOINED = {"status_text": "Running as member of 5 node Flux instance"}
REFUSED = {"unreachable": True, "msg": "Task failed: Connection refused\nby x"}
BOOT = {"unreachable": True, "msg": "stage boot: wanted host keys within 3 s, found none: wait."}


def reports(**hosts: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = FilterModule().filters()["join_reports"](list(hosts), hosts)
    return made


@pytest.mark.parametrize(
    "known", [{"__node_broker": JOINED}, {"__node_broker": {"status_text": ""}}]
)
def test_nothing_is_said_of_a_machine_that_joined_or_would_in_check_mode(
    known: dict[str, Any],
) -> None:
    assert reports(a=known, b={**known, "__node_failure": {}}) == {}


def test_what_a_task_said_goes_before_all_else_with_the_machine_s_evidence() -> None:
    failure = {"failure": "stage munge: x: y.", "status": "Joining"}
    assert reports(a={"__node_broker": JOINED, "__node_failure": failure}) == {"a": failure}


@pytest.mark.parametrize("task", ["__node_base_release", "__node_broker"])
def test_a_machine_that_could_not_be_reached_tells_what_the_first_try_said(task: str) -> None:
    said = reports(a={task: REFUSED}, b={task: BOOT})
    assert said["b"] == {"failure": BOOT["msg"]}
    [finding] = of_message("a", said["a"]["failure"])
    assert (finding.host, finding.stage) == ("a", "tunnel")
    assert "Connection refused by x" in finding.cause
    assert finding.remedy.startswith("see its serial console")


@pytest.mark.parametrize("known", [{}, {"__node_base_release": {"rc": 0}}])
def test_a_machine_that_was_lost_in_between_is_told_as_lost(known: dict[str, Any]) -> None:
    [finding] = of_message("a", reports(a=known)["a"]["failure"])
    assert (finding.stage, "lost on the way" in finding.cause) == ("tunnel", True)


@pytest.mark.parametrize("gone", [REFUSED, {"msg": "x", "failed": True}])
def test_nothing_is_said_of_machines_whose_gateway_did_not_join(gone: dict[str, Any]) -> None:
    failure = {"failure": "stage base: wanted a, found b: get it."}
    hosts = {
        "g": {
            "__node_broker": gone,
            **({} if "unreachable" in gone else {"__node_failure": failure}),
        },
        "left-out": {"__node_base_release": {"rc": 0}},
        "lost-before": {"__node_base_release": REFUSED},
        "failed-before": {"__node_failure": failure},
    }
    made = join_reports(hosts, hosts, "g")
    assert set(made) == {"g", "lost-before", "failed-before"}
    joined = {**hosts, "g": {"__node_broker": JOINED}}
    assert set(join_reports(joined, joined, "g")) == set(hosts) - {"g"}


def test_each_line_of_a_message_is_a_finding_of_its_own() -> None:
    text = "stage base: wanted uid 1, found 2: remove it.\nstage base: wanted a, found b: get: it."
    assert [str(finding) for finding in of_message("h", text)] == [
        "h: stage base: wanted uid 1, found 2: remove it",
        "h: stage base: wanted a, found b: get: it",
    ]


def test_a_message_of_no_stage_is_told_whole() -> None:
    [finding] = of_message("h", "Traceback\n  boom")
    assert (finding.stage, finding.cause) == ("machine", "Traceback boom")
