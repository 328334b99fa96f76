# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests run beside which, where the test command has two workers: a file's tests stay together."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

MACHINES = "tests/integration/"
"""Tests that boot machines: one worker has them all, since two sandboxes would starve each other."""


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """A file is the unit of work, and all that boot machines are one."""

    def _split_scope(self, nodeid: str) -> str:
        return MACHINES if nodeid.startswith(MACHINES) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Return what hands the tests out."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let machines begin: they take longest, and their waiting leaves room for the others."""
    items.sort(key=lambda item: not item.nodeid.startswith(MACHINES))
