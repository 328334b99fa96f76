# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Print where the time of a playbook went, play by play."""

from __future__ import annotations

DOCUMENTATION = r"""
name: timeline
type: aggregate
short_description: Say where the time of a playbook went
version_added: 0.1.0
author:
  - flux.burst contributors (@flux-framework)
description:
  - After the recap, prints the seconds that each play took and, under it, its slowest tasks.
requirements:
  - enabled in C(ansible.cfg) with C(callbacks_enabled = flux.burst.timeline)
options:
  slowest:
    description: How many of a play's tasks to show.
    type: int
    default: 3
    env:
      - name: FLUX_BURST_TIMELINE_SLOWEST
    ini:
      - section: callback_flux_burst_timeline
        key: slowest
"""

import time
from dataclasses import dataclass, field
from typing import Any

from ansible.plugins.callback import CallbackBase


@dataclass
class Span:
    """A play or a task: its name and when it began and ended, in seconds of the monotonic clock."""

    name: str
    began: float
    ended: float = 0.0
    parts: list[Span] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


def render(plays: list[Span], slowest: int) -> list[str]:
    """Return the lines to print: one a play, and under it its slowest tasks of at least 0.1 s."""
    lines = [f"{sum(play.seconds for play in plays):7.1f} s  whole run"]
    for play in plays:
        lines.append(f"{play.seconds:7.1f} s  {play.name}")
        for task in sorted(play.parts, key=lambda part: -part.seconds)[:slowest]:
            if task.seconds >= 0.1:
                lines.append(f"{task.seconds:11.1f} s  {task.name}")
    return lines


class CallbackModule(CallbackBase):
    """Collects the spans and prints them with the recap."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "flux.burst.timeline"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.plays: list[Span] = []

    def _end_task(self, now: float) -> None:
        if self.plays and self.plays[-1].parts and not self.plays[-1].parts[-1].ended:
            self.plays[-1].parts[-1].ended = now

    def _end_play(self, now: float) -> None:
        self._end_task(now)
        if self.plays and not self.plays[-1].ended:
            self.plays[-1].ended = now

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Begin a play, which ends the one before."""
        now = time.monotonic()
        self._end_play(now)
        self.plays.append(Span(play.get_name().strip(), now))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Begin a task, which ends the one before."""
        now = time.monotonic()
        self._end_task(now)
        self.plays[-1].parts.append(Span(task.get_name().strip(), now))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the timeline."""
        self._end_play(time.monotonic())
        self._display.banner("TIMELINE")
        for line in render(self.plays, self.get_option("slowest")):
            self._display.display(line)
