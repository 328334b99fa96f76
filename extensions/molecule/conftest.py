# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Testinfra in the sandbox's machines, without a connection that the roles could have broken or mended."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

from sandbox.inside import whole_command

TOP = Path(__file__).resolve().parents[2]


class Machine(BaseBackend):
    """Runs commands as root in a machine of the sandbox, as `python -m sandbox exec` does."""

    NAME = "sandbox"

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """Run a shell command."""
        words = ["/bin/sh", "-c", self.get_command(command, *args)]
        name = os.environ["FLUX_BURST_SANDBOX"]
        return self.run_local(shlex.join(whole_command(name, self.hostname, None, "root", words)))


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Host]:
    """Return the host of a name."""
    return lambda name: Host(Machine(name))


@pytest.fixture(scope="session")
def compute() -> Callable[[str], dict[str, Any]]:
    """Return a resource of the burst's project in Compute Engine, by its path there."""
    name = os.environ["FLUX_BURST_SANDBOX"]
    port = json.loads(Path(f"/run/flux-burst-sandbox/{name}/sandbox.json").read_text())[
        "compute_port"
    ]

    def get(path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{port}/compute/v1/projects/sandbox-project/{path}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    return get


@pytest.fixture
def holdings() -> dict[str, Any]:
    """What the burst's project holds in Compute Engine."""
    command = [sys.executable, "-m", "sandbox", "status", "--json"]
    said = subprocess.run(command, cwd=TOP, stdout=subprocess.PIPE, check=True).stdout
    found: dict[str, Any] = json.loads(said)["projects"]["sandbox-project"]
    return found


@pytest.fixture(scope="session")
def lead(machine: Callable[[str], Host]) -> Host:
    """The lead."""
    return machine("flux-sample-0")
