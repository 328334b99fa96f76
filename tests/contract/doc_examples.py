# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of our modules as ansible-doc shows them, and plays that run them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]


def examples(module: str) -> list[dict[str, Any]]:
    """Return the tasks that ansible-doc shows for a module."""
    tree = ast.parse((TOP / f"plugins/modules/{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            found: list[dict[str, Any]] = yaml.safe_load(ast.literal_eval(node.value))
            return found
    raise AssertionError(f"{module} has no EXAMPLES")


def run(play: Mapping[str, Any], file: Path, environment: Mapping[str, str] | None = None) -> str:
    """Write a play into a file and run it on this machine, where it has to succeed; return what it printed."""
    file.write_text(yaml.safe_dump([dict(play)], sort_keys=False))
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", file]
    done = subprocess.run(
        [*command, "-c", "local"],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
