# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every bench shares: how a figure is told, and on which machine it was measured."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine() -> str:
    """Return the machine in a line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def timed(what: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> str:
    """Return median, smallest and largest of some runs."""
    return (
        f"{len(values)} runs, median {statistics.median(values):.4g}, from {min(values):.4g} to "
        f"{max(values):.4g}"
    )


def figure(name: str, values: Sequence[float], unit: str, target: str, detail: str = "") -> bool:
    """Tell the median of some runs beside its target, such as ">= 12" or "< 1"; return whether it holds."""
    value = statistics.median(values)
    sign, _unused, limit = target.partition(" ")
    good = {
        ">=": value >= float(limit),
        "<": value < float(limit),
        "<=": value <= float(limit),
    }[sign]
    say(f"# {name}: {spread(values)} {unit}{'; ' + detail if detail else ''}")
    say(f"bench {name} {value:.4g} {unit} target {sign}{limit} {'ok' if good else 'short'}")
    return good
