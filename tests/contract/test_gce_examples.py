# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example of the Compute Engine modules runs as ansible-doc shows it, in the order of a burst."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compute_server import ComputeServer
from doc_examples import TOP, examples, run
from gce_modules import IMAGE, KEY, held

pytestmark = pytest.mark.slow

# Examples that take away come last, in the reverse order.
MODULES = (
    "gce_machine_type_info",
    "gce_network",
    "gce_firewall",
    "burst_ssh_key",
    "gce_os_login",
    "gce_instances",
    "gce_burst_info",
    "burst_diagnostics",
    "gce_image",
    "gce_image_info",
)
# What is so after an example, by its name; `it` is its result.
THEN = {
    "Read what a machine type has": "it.machine_types | map(attribute='name') | unique == ['n2-standard-4']",
    "Create the network": "it is changed",
    "Share one with other bursts, whose machines come from one address that the lead's firewall names": (
        "it.nat_ips | length == 1"
    ),
    "Check that 100 machines can live in a shared VPC's subnetwork": "it is not changed",
    "Let the machines of the burst reach the lead, which come from the NAT's address": "it is changed",
    "Delete the rule": "it is changed",
    "Make the burst's key pair": "it is changed",
    "Let the burst's key in for four hours": "it is changed and it.username is match('sa_')",
    "Let it in no more": "it is changed",
    "Delete the key pair": "it is changed",
    "Create the machines": "it.instances | length == 2 and it is changed",
    "Create spot machines that are near one another, wherever there are any": (
        "it.drift | map(attribute='field') | unique | sort == ['machine_types', 'spot']"
    ),
    "See what the burst has": "it.instances | length == 2",
    "See every burst of the project, and what each has cost": "it.bursts | length == 2",
    "Keep what is known of the machines that failed": (
        "it.files == ['gffw-compute-a-001.json', 'gffw-compute-a-001.serial.log'] and it is changed"
    ),
    "Make an image of the build machine": "it is changed",
    "See the images of a family": "it.newest == 'flux-fw-bursted-x86-64-20261125-201500'",
    "See the images that were made for a burst": "it.images | length == 1",
    "Delete an image": "it is changed",
    "Delete every machine of the burst": "it.resources | length == 2",
    "Delete it": "it is changed",
}
# What no example makes or takes away: the machine that an image is made of, and the shared foundation.
BUILDER: dict[str, Any] = {
    "name": "Make the build machine",
    "flux.burst.gce_instances": {
        "burst": "builder",
        "zones": ["us-central1-a"],
        "hosts": ["flux-burst-image"],
        "machine_types": ["n2-standard-4"],
        "subnetwork": "projects/sandbox-project/regions/us-central1/subnetworks/flux-burst-subnet",
        "image": IMAGE,
        "ssh_public_key": KEY,
    },
}
LEFT: list[dict[str, Any]] = [
    {"flux.burst.gce_instances": {"burst": "builder", "state": "absent"}},
    {
        "flux.burst.gce_network": {
            "burst": "flux-burst",
            "foundation": "hpc",
            "region": "us-central1",
            "state": "absent",
        }
    },
]


def is_deletion(module: str, task: dict[str, Any]) -> bool:
    """Return whether a task takes something away."""
    return bool(task.get(f"flux.burst.{module}", {}).get("state") == "absent")


def play() -> dict[str, Any]:
    """Return one play of all examples."""
    made, gone = [], []
    for module in MODULES:
        tasks = []
        for task in examples(module):
            name = task.setdefault("register", "done")
            tasks.append((is_deletion(module, task), task))
            if task["name"] in THEN:
                wanted = {"that": [THEN[task["name"]]]}
                check = {"ansible.builtin.assert": wanted, "vars": {"it": f"{{{{ {name} }}}}"}}
                tasks.append((is_deletion(module, task), {"name": "See what it did", **check}))
        if module == "gce_image":
            made.append(BUILDER)
        made += [task for deletes, task in tasks if not deletes]
        gone = [task for deletes, task in tasks if deletes] + gone
    return {
        "name": "Examples",
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "module_defaults": {"group/flux.burst.gce": {"project": "sandbox-project"}},
        "tasks": [*made, *LEFT[:1], *gone, *LEFT[1:]],
    }


def shared_vpc(server: ComputeServer) -> None:
    """Make the subnetwork that a site shares."""
    network = {"name": "vpc", "autoCreateSubnetworks": False}
    rule = {
        "name": "vpc-ssh",
        "network": "global/networks/vpc",
        "sourceRanges": ["35.235.240.0/20"],
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
    }
    subnetwork = {
        "name": "hpc",
        "network": "global/networks/vpc",
        "ipCidrRange": "10.20.0.0/24",
        "privateIpGoogleAccess": True,
    }
    for path, body in (
        ("global/networks", network),
        ("regions/us-central1/subnetworks", subnetwork),
        ("global/firewalls", rule),
    ):
        assert "error" not in server.done("POST", path, body)


def test_every_example_runs_against_compute_engine(
    compute_server: ComputeServer, tmp_path: Path
) -> None:
    shared_vpc(replace(compute_server, project="sandbox-host"))
    # Every project has it, and a lead's nodes are in it.
    default = {"name": "default", "autoCreateSubnetworks": False}
    compute_server.done("POST", "global/networks", default)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "burst.pub").write_text(KEY)
    text = json.dumps(play())
    for theirs, ours in (("my-project", "sandbox-project"), ("my-host-project", "sandbox-host")):
        assert theirs in text
        text = text.replace(theirs, ours)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "FLUX_BURST_COMPUTE_ENDPOINT": compute_server.compute_endpoint,
        "FLUX_BURST_OS_LOGIN_ENDPOINT": compute_server.compute_endpoint,
        "GOOGLE_APPLICATION_CREDENTIALS": str(compute_server.credentials_file),
    }
    printed = run(json.loads(text), tmp_path / "examples.yml", environment)
    assert printed.count("TASK [See what it did]") == len(THEN)
    compute_server.done("DELETE", "global/networks/default")
    assert held(compute_server) == []


def test_every_module_of_compute_engine_has_its_examples_run() -> None:
    there = {path.stem for path in (TOP / "plugins/modules").glob("gce_*.py")}
    assert there == {module for module in MODULES if module.startswith("gce_")}
