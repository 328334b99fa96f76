# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tests come first, where the test command has two workers that take file after file."""

from __future__ import annotations

import signal

import pytest

# A shell that runs the tests in the background lets all that they start ignore it, and some try just that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those that boot machines begin: they take longest, and the short ones fill what they leave."""
    items.sort(key=lambda item: item.get_closest_marker("machines") is None)
