# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of one burst, as processes of their own against the sandbox's Compute Engine."""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from compute_server import ComputeServer

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPublic burst"
IMAGE = "projects/sandbox-project/global/images/family/flux-fw-bursted-x86-64"
NETWORK = {"region": "us-central1", "subnet_cidr": "10.10.0.0/24"}
"""What gce_network is given where a test does not say otherwise."""
MACHINES: dict[str, Any] = {
    "zones": ["us-central1-a"],
    "hosts": HOSTS,
    "machine_types": ["n2-standard-2"],
    "image": IMAGE,
    "ssh_public_key": KEY,
    "labels": {"team": "hpc"},
    "boot_timeout": 20,
}
"""What gce_instances is."""

FORKS = multiprocessing.get_context("forkserver")
# The first import costs a second and a half, the others 0.1 s; a module's process has them from the server that it is
# forked from.
FORKS.set_forkserver_preload(
    [
        "google.cloud.compute_v1",
        "google.auth.transport.requests",
        "google.oauth2.service_account",
        "ansible.module_utils.basic",
    ]
)


def forked(
    name: str, given: str, meanwhile: Callable[[BaseProcess], None] | None = None
) -> tuple[int, str]:
    """Run a module in a process of its own and return its exit code and all that it printed.

    meanwhile is called with the process while it runs.
    """
    with tempfile.TemporaryDirectory() as folder:
        taken, printed = Path(folder) / "taken", Path(folder) / "printed"
        taken.write_text(given)
        process = FORKS.Process(target=_module, args=(name, taken, printed, dict(os.environ)))
        process.start()
        if meanwhile:
            meanwhile(process)
        process.join()
        assert process.exitcode is not None
        return process.exitcode, printed.read_text() if printed.exists() else ""


def _module(name: str, taken: Path, printed: Path, environment: dict[str, str]) -> None:
    """Be a module's process: its standard input and output are these files."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(printed, os.O_WRONLY | os.O_CREAT)
    for place, file in enumerate((os.open(taken, os.O_RDONLY), output, output)):
        os.dup2(file, place)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = [name]
    runpy.run_module(f"ansible_collections.flux.burst.plugins.modules.{name}", None, "__main__")


class Modules:
    """Runs modules of one burst against a server; always has options that each of them is given."""

    def __init__(self, server: ComputeServer, burst: str = "t", **always: Any) -> None:
        self.server, self.burst, self.always = server, burst, always

    def run(self, name: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Return what a module returns; it must end with exit_json or fail_json, not a traceback."""
        code, output = forked(name, self.arguments(options, check=check))
        assert output.strip().startswith("{"), output
        result: dict[str, Any] = json.loads(output)
        assert ("failed" in result) == (code != 0)
        return result

    def arguments(self, options: Mapping[str, Any], *, check: bool = False) -> str:
        """Return what a module reads from its standard input."""
        server = self.server
        arguments = {
            **({"burst": self.burst} if self.burst else {}),
            "project": server.project,
            "compute_endpoint": server.compute_endpoint,
            "credentials_file": str(server.credentials_file),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **self.always,
            **options,
        }
        return json.dumps({"ANSIBLE_MODULE_ARGS": arguments})

    def network(self, **options: Any) -> dict[str, Any]:
        """Run gce_network."""
        return self.run("gce_network", **{**NETWORK, **options})

    def instances(self, **options: Any) -> dict[str, Any]:
        """Run gce_instances."""
        return self.run("gce_instances", **{**MACHINES, **options})

    def failure(self, module: str, **options: Any) -> str:
        """Return the message of a module that has to fail, which is one line."""
        result = getattr(self, module)(**options)
        assert result.get("failed"), result
        assert "\n" not in result["msg"]
        return str(result["msg"])


def changed(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (kind, name, action) of what was changed."""
    assert not result.get("failed"), result["msg"]
    found = [(it["kind"], it["name"], it["action"]) for it in result["resources"]]
    assert result["changed"] == bool(found)
    assert len(result["diff"]) == len(found)
    return found


PLACES = (
    "global/networks",
    "global/firewalls",
    "aggregated/subnetworks",
    "aggregated/routers",
    "aggregated/instances",
)
MORE_PLACES = (*PLACES, "aggregated/addresses", "aggregated/resourcePolicies", "aggregated/disks")


def held(server: ComputeServer, places: Sequence[str] = PLACES) -> list[str]:
    """Return the paths of everything in these places of the project."""
    found = []
    for place in places:
        items = server.call("GET", place)[1].get("items", [])
        kind = place.split("/")[1]
        if isinstance(items, dict):
            items = [one for scope in items.values() for one in scope.get(kind, [])]
        found += [f"{kind}/{one['name']}" for one in items]
    return found
