# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that failed ends with its reason, and with what became of claims, machines and diagnostics."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.filter.failure_report import FilterModule

REPORT = FilterModule().filters()["failure_report"]
RELEASED = {
    "released": [{"id": "f1"}, {"id": "f2"}],
    "released_hosts": [{"id": "b-1"}, {"id": "b-2"}],
}
NOTHING: dict[str, Any] = {"released": [], "released_hosts": []}


def machine(name: str, price: float | None = 0.25, left: int | None = 7200) -> dict[str, Any]:
    """One that runs."""
    return {
        "name": name,
        "status": "RUNNING",
        "machine_type": "n2-standard-4",
        "spot": False,
        "price_per_hour": price,
        "cost": price,
        "time_left": left,
    }


THREE = [machine("b-1"), machine("b-2"), machine("b-3")]


def report(**changed: Any) -> list[str]:
    """The lines, where nothing happened but for what is given."""
    given = {
        "claims": NOTHING,
        "machines": [],
        "deleted": [],
        "busy": [],
        "undeleted": "",
        "diagnostics": "/d",
        **changed,
    }
    return str(REPORT("it failed", **given)).splitlines()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "claims: there are none to give back"),
        ({"claims": RELEASED}, "claims: given back on jobs f1, f2 and hosts b-[1-2]"),
        ({"claims": {**RELEASED, "released": []}}, "claims: given back on hosts b-[1-2]"),
        (
            {"claims": {"msg": "no\nlead"}},
            "claims: not given back (no lead): run playbooks/reconcile.yml, or they expire",
        ),
        ({}, "machines: there are none"),
        (
            {"machines": THREE},
            "machines: kept b-[1-3] (3), 0.75 an hour until playbooks/teardown.yml deletes them; "
            "the last one ends in 2h 0m",
        ),
        (
            {"machines": [machine("b-1", None, None)]},
            "machines: kept b-1 (1), 0.00 an hour without n2-standard-4, whose price is unknown, until "
            "playbooks/teardown.yml deletes them",
        ),
        ({"machines": THREE, "deleted": ["b-1", "b-2", "b-3"]}, "machines: deleted b-[1-3] (3)"),
        (
            {"machines": THREE, "deleted": ["b-1", "b-3"], "busy": ["b-2"]},
            "machines: deleted b-[1,3] (2); kept b-2 (1), 0.25 an hour until playbooks/teardown.yml deletes them; "
            "the last one ends in 2h 0m; a job runs on b-2 (1), which therefore stays",
        ),
        (
            {"undeleted": "HTTP 403"},
            "machines: not all could be deleted (HTTP 403): run playbooks/teardown.yml",
        ),
        (
            {"machines": "HTTP 503"},
            "machines: not looked at (HTTP 503): see playbooks/status.yml",
        ),
    ],
)
def test_what_became_of_claims_and_machines_is_told(given: dict[str, Any], line: str) -> None:
    lines = report(**given)
    assert line in lines
    assert lines[0] == "it failed" and lines[-1] == "diagnostics: /d"
