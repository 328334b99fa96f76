# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is planned is what is done: check mode and diff, for every module, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Change:
    """One resource that is not as it should be.

    `before` and `after` hold only what is shown in a diff; both are empty where nothing is there.
    """

    kind: str
    name: str
    action: Literal["create", "update", "delete"]
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def diff(self) -> dict[str, Any]:
        """The change in the form that ansible-playbook --diff prints."""
        title = f"{self.kind} {self.name}"
        return {
            "before_header": title,
            "after_header": title,
            "before": dict(self.before) or "",
            "after": dict(self.after) or "",
        }


Stage = Sequence[Change]


def apply(stages: Sequence[Stage], act: Callable[[Stage], None], *, check: bool) -> dict[str, Any]:
    """Do a plan, or in check mode only tell it, and return what exit_json takes.

    A stage holds changes that are independent of one another; `act` does one stage and returns when all of it is done.
    """
    changes = [change for stage in stages for change in stage]
    if not check:
        for stage in stages:
            if stage:
                act(stage)
    return told(changes)


def told(changes: Sequence[Change]) -> dict[str, Any]:
    """Return what exit_json takes for changes that were made, or that would be."""
    return {
        "changed": bool(changes),
        "diff": [change.diff for change in changes],
        "resources": [
            {"kind": change.kind, "name": change.name, "action": change.action}
            for change in changes
        ],
    }
