# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benches of the Compute Engine side run, and what a run costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute_bodies import FOUNDATION, ZONE, bulk
from compute_server import TOP, ComputeServer

from sandbox.server import validate
from tools.peers import google_cloud

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent
BULK = 5000


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds, CPU seconds and MiB at most of it and its children, and what it printed."""

    wall: float
    cpu: float
    memory: float
    output: str


def run(command: Sequence[str | Path], environment: Mapping[str, str], given: str = "") -> Cost:
    """Run a command that has to succeed, with what it shall read from its standard input."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        done = subprocess.run(
            [sys.executable, HERE / "measure.py", result, *command],
            env=environment,
            cwd=HERE,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise SystemExit(f"bench: wanted {command[0]} to succeed, found\n{said}")
        return Cost(**json.loads(result.read_text()), output=done.stdout)


def environment(server: ComputeServer, *, proxy: bool = False) -> dict[str, str]:
    """Return the environment of Ansible's commands, with both collections in reach."""
    given = server.proxy_environment if proxy else os.environ
    return {
        **given,
        "ANSIBLE_COLLECTIONS_PATH": f"{TOP}/.cache/collections:{google_cloud()}",
        "ANSIBLE_INVENTORY_ENABLED": "auto,yaml,host_list",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(TOP / ".cache" / "collections"),
    }


def play(server: ComputeServer, name: str, *words: str, **variables: Any) -> Cost:
    """Run one of the playbooks here."""
    given = {
        "endpoint": server.compute_endpoint,
        "credentials": str(server.credentials_file),
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    command = [str(BIN / "ansible-playbook"), name, "-e", json.dumps(given), *words]
    return run(command, environment(server, proxy=name.startswith("peer")))


def module(server: ComputeServer, name: str, **options: Any) -> Cost:
    """Run one of our modules as a process of its own."""
    arguments = {
        "project": server.project,
        "compute_endpoint": server.compute_endpoint,
        "credentials_file": str(server.credentials_file),
        **options,
    }
    command = [sys.executable, "-m", f"ansible_collections.flux.burst.plugins.modules.{name}"]
    return run(command, environment(server), json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))


class Calls:
    """Counts the calls of Compute Engine in a server's request log from now on."""

    def __init__(self, server: ComputeServer) -> None:
        self._path = server.state / "requests.jsonl"
        self._from = self._path.stat().st_size
        self._discovery = validate.load()

    def counted(self) -> tuple[Counter[str], int]:
        """Return the calls by method, and how many of them ask for a further page of a list."""
        with self._path.open("rb") as log:
            log.seek(self._from)
            records = [json.loads(line) for line in log]
        methods: Counter[str] = Counter()
        pages = 0
        for record in records:
            path = record["path"].removeprefix("/compute/v1/")
            found = self._discovery and self._discovery.match(record["method"], path)
            if found:
                methods[found[0]] += 1
                pages += "pageToken" in record["query"]
        return methods, pages


def machines(count: int, prefix: str = "gffw-compute-a") -> list[str]:
    """Return names of machines."""
    return [f"{prefix}-{number:05}" for number in range(1, count + 1)]


def fill(server: ComputeServer, count: int) -> None:
    """Put that many machines of burst t into a server, without a client of ours."""
    for path, body in FOUNDATION:
        wide = {"ipCidrRange": "10.64.0.0/18"} if "ipCidrRange" in body else {}
        server.done("POST", path, {**body, **wide})
    names = machines(count)
    for start in range(0, count, BULK):
        server.done("POST", f"{ZONE}/instances/bulkInsert", bulk(*names[start : start + BULK]))


def inventories(server: ComputeServer, folder: Path) -> dict[str, Path]:
    """Write inventory files: of nothing, of ours, of google.cloud's plugin, and of that as it is without options."""
    spec = {
        "burst_name": "t",
        "burst_project": server.project,
        "burst_ssh_private_key_file": "/keys/burst",
        "burst_compute_endpoint": server.compute_endpoint,
        "burst_credentials_file": str(server.credentials_file),
    }
    peer = {
        "plugin": "google.cloud.gcp_compute",
        "projects": [server.project],
        "auth_kind": "serviceaccount",
        "service_account_file": str(server.credentials_file),
        "filters": ["labels.flux-burst = t"],
        "hostnames": ["name"],
    }
    # The groups that ours makes by itself.
    constructed = {
        "groups": {"burst_nodes": "labels['flux-burst'] == 't'"},
        "keyed_groups": [
            {"key": "labels['flux-burst']", "prefix": "flux_burst"},
            {"key": "zone", "prefix": "zone"},
            {"key": "status | lower", "prefix": "state"},
        ],
    }
    files = {
        "bare.yml": {"all": {"hosts": {}}},
        "spec.yml": spec,
        "gce.yml": {"plugin": "flux.burst.gce", "specification": "spec.yml"},
        "gcp.yml": {**peer, **constructed},
        "plain.gcp.yml": peer,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    called = {"bare": "bare", "ours": "gce", "peer": "gcp", "peer without groups": "plain.gcp"}
    return {name: folder / f"{file}.yml" for name, file in called.items()}


def listing(server: ComputeServer, file: Path) -> Cost:
    """Run ansible-inventory on a file."""
    command = [BIN / "ansible-inventory", "-i", file, "--list"]
    return run(command, environment(server, proxy=file.name.endswith("gcp.yml")))


def addresses(listed: str) -> dict[str, str]:
    """Return the internal address of each machine in an inventory, ours or google.cloud's."""
    found = json.loads(listed, object_hook=lambda it: it.get("__ansible_unsafe", it))
    return {
        name: it.get("gce_internal_ip") or it["networkInterfaces"][0]["networkIP"]
        for name, it in found["_meta"]["hostvars"].items()
    }


def groups(listed: str) -> dict[str, list[str]]:
    """Return the machines of each group in an inventory."""
    found = json.loads(listed)
    return {
        name: sorted(it["hosts"])
        for name, it in found.items()
        if name != "ungrouped" and it.get("hosts")
    }


def peak(server: ComputeServer) -> float:
    """Return the most memory that a server has had, in MiB."""
    text = Path(f"/proc/{server.pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
