# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests may run beside which: the test command has two workers."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests together, and all that boot machines in one worker, which has them first.

    Machines take most of the time, and their waiting leaves room for the others.
    """
    items.sort(key=lambda item: item.get_closest_marker("machines") is None)
    for item in items:
        boots = item.get_closest_marker("machines") is not None
        item.add_marker(pytest.mark.xdist_group("machines" if boots else item.path.name))
