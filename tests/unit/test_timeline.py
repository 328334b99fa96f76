# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timeline names the plays in order and the slowest tasks of each."""

from __future__ import annotations

from ansible_collections.flux.burst.plugins.callback.timeline import Span, render


def test_plays_stand_in_order_with_their_slowest_tasks() -> None:
    plays = [
        Span("Read", 0.0, 2.0, [Span("identity", 0.0, 0.5), Span("queue", 0.5, 2.0)]),
        Span("Create", 2.0, 10.0, [Span("network", 2.0, 4.0)]),
    ]
    assert render(plays, slowest=1) == [
        "   10.0 s  whole run",
        "    2.0 s  Read",
        "        1.5 s  queue",
        "    8.0 s  Create",
        "        2.0 s  network",
    ]


def test_tasks_that_took_no_time_are_left_out() -> None:
    plays = [Span("Check", 0.0, 0.3, [Span("quick", 0.0, 0.01)])]
    assert render(plays, slowest=3) == ["    0.3 s  whole run", "    0.3 s  Check"]


def test_no_play_is_no_time() -> None:
    assert render([], slowest=3) == ["    0.0 s  whole run"]
