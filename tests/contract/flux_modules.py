# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that run on the lead, as processes of their own against a small instance of either kind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux_instances import Instance

TOP = Path(__file__).resolve().parents[2]


def python(instance: Instance) -> tuple[str, dict[str, str]]:
    """Return the interpreter and environment in which modules find the instance's bindings by `flux env` alone."""
    collections = str(TOP / ".cache/collections")
    environment = instance.environment()
    if instance.kind == "real":
        # The system's Python, as on a lead; Ansible itself comes from ours.
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        return "/usr/bin/python3", {**environment, "PYTHONPATH": f"{collections}:{ours}"}
    bindings = instance.flux("env", "printenv", "PYTHONPATH").stdout.strip()
    return sys.executable, {**environment, "PYTHONPATH": f"{collections}:{bindings}"}


def start(
    instance: Instance,
    name: str,
    *,
    check: bool = False,
    run: Sequence[str] = ("-m",),
    **options: Any,
) -> subprocess.Popen[str]:
    """Start a module; run is how the interpreter is told to run it."""
    command, environment = python(instance)
    arguments = {
        "uri": instance.uri("lead"),
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        **options,
    }
    process = subprocess.Popen(
        [command, *run, f"ansible_collections.flux.burst.plugins.modules.{name}"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process.stdin.close()
    process.stdin = None
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a module returns; it must end with exit_json or fail_json, not a traceback."""
    output, errors = process.communicate(timeout=120)
    assert output.strip().startswith("{"), output + errors
    found: dict[str, Any] = json.loads(output)
    assert ("failed" in found) == (process.returncode != 0), output + errors
    return found


def module(instance: Instance, name: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    """Return what a module returns."""
    return result(start(instance, name, check=check, **options))
