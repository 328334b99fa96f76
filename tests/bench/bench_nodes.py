# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines reached and configured, beside what others do it with: `make bench-nodes`, or with some of PARTS."""

from __future__ import annotations

import sys
from importlib import import_module

from figures import TOP, machine, say

sys.path[:0] = [str(path) for path in (TOP, TOP / "tests/contract", TOP / ".cache/collections")]

PARTS = {
    "tunnel": "tunnel_runs",
    "at_once": "tunnel_runs",
    "play": "play_runs",
    "configure": "configure_runs",
}
"""By name: the file beside this one whose function of that name tells its figures and returns whether all hold."""


def main(names: list[str]) -> int:
    """Run the named parts, or all; return the exit code."""
    say(f"# {machine()}")
    done = [getattr(import_module(PARTS[name]), name)() for name in names or PARTS]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
