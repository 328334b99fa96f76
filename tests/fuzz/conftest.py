# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say at the end how many inputs were tried."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the sum, and each property's share."""
    counts = {
        report.nodeid.rpartition("::")[2]: dict(report.user_properties)["inputs"]
        for report in terminalreporter.getreports("passed")
        if dict(report.user_properties).get("inputs")
    }
    if counts:
        terminalreporter.section("fuzzed inputs")
        for name, count in sorted(counts.items()):
            terminalreporter.line(f"{count:7,} {name.removeprefix('test_').replace('_', ' ')}")
        terminalreporter.line(f"{sum(counts.values()):7,} in all: no traceback, none that hung")
