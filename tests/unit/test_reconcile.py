# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode tells is what a run does."""

from __future__ import annotations

from ansible_collections.flux.burst.plugins.module_utils._reconcile import Change, Stage, apply

CREATE = Change("network", "b-net", "create", {}, {"name": "b-net"})
UPDATE = Change("firewall", "b-ssh", "update", {"disabled": True}, {"disabled": False})
DELETE = Change("router", "b-router", "delete", {"name": "b-router"}, {})


def test_check_mode_returns_the_same_and_does_nothing() -> None:
    done: list[Stage] = []
    told = apply([[CREATE], [UPDATE, DELETE]], done.append, check=True)
    assert done == []
    assert told == apply([[CREATE], [UPDATE, DELETE]], done.append, check=False)
    assert done == [[CREATE], [UPDATE, DELETE]]


def test_an_empty_plan_changes_nothing_and_asks_for_nothing() -> None:
    done: list[Stage] = []
    assert apply([[], []], done.append, check=False) == {
        "changed": False,
        "diff": [],
        "resources": [],
    }
    assert done == []


def test_a_diff_shows_what_was_and_what_will_be() -> None:
    (created, updated, deleted) = apply([[CREATE, UPDATE, DELETE]], lambda stage: None, check=True)[
        "diff"
    ]
    assert (created["before"], created["after"]) == ("", {"name": "b-net"})
    assert (updated["before"], updated["after"]) == ({"disabled": True}, {"disabled": False})
    assert (deleted["before"], deleted["after"]) == ({"name": "b-router"}, "")
    assert updated["before_header"] == "firewall b-ssh"
