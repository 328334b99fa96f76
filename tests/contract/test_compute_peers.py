# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""google.cloud's modules and inventory, whose endpoint is fixed, reach the sandbox through its proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compute_server import TOP, ComputeServer

from tools.peers import PeersError, google_cloud

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
PLAYBOOK = TOP / "tests" / "bench" / "peer_machines.yml"


@pytest.fixture(scope="module")
def collections() -> Path:
    """The collections path that has google.cloud."""
    try:
        return google_cloud()
    except PeersError as error:
        if error.absent:
            pytest.skip(str(error))
        raise


def ansible(
    server: ComputeServer, collections: Path, *words: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's commands behind the proxy."""
    done = subprocess.run(
        [BIN / str(words[0]), *words[1:]],
        env={**server.proxy_environment, "ANSIBLE_COLLECTIONS_PATH": str(collections)},
        cwd=server.state,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def play(server: ComputeServer, collections: Path, **variables: Any) -> str:
    """Run the playbook; return its recap."""
    given = {
        "burst": "peer",
        "credentials": str(server.credentials_file),
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    done = ansible(server, collections, "ansible-playbook", PLAYBOOK, "-e", json.dumps(given))
    return done.stdout.split("PLAY RECAP")[1]


def test_the_modules_make_machines_and_the_inventory_lists_them(
    compute_server: ComputeServer, collections: Path
) -> None:
    assert "changed=6" in play(compute_server, collections, machines=["m-1", "m-2"])
    assert "changed=0" in play(compute_server, collections, machines=["m-1", "m-2"])
    more = play(compute_server, collections, machines=["m-3", "m-4"], loose=True)
    assert "failed=0" in more
    file = compute_server.state / "gcp.yml"
    options = {
        "plugin": "google.cloud.gcp_compute",
        "projects": [compute_server.project],
        "auth_kind": "serviceaccount",
        "service_account_file": str(compute_server.credentials_file),
        "filters": ["labels.flux-burst = peer"],
        "hostnames": ["name"],
    }
    file.write_text(json.dumps(options))
    words = ("ansible-inventory", "-i", file, "--list", "--export")
    listed = json.loads(ansible(compute_server, collections, *words).stdout)
    assert sorted(listed["_meta"]["hostvars"]) == ["m-1", "m-2", "m-3", "m-4"]
