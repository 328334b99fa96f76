# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox of its own for a test module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from burst_sandbox import Sandbox, flux_kinds, sandbox_name


@pytest.fixture(scope="module", params=flux_kinds())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A fresh sandbox with real machines, taken away at the end."""
    made = Sandbox(sandbox_name(request.param), request.param)
    made.command("down")
    try:
        done = made.up()
        assert done.code == 0, done.output
        yield made
    finally:
        down = made.command("down")
    assert down.code == 0, down.output
    assert not made.state.exists()
