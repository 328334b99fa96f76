# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clusters of the sandbox's Container API, with kubectl and the Python client pointed at them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from compute_server import TOP, ComputeServer
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account
from kubernetes import client, config

KUBECTL = Path(sys.executable).parent / "kubectl"
LOCATION = "projects/sandbox-project/locations/us-central1-a"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
PATIENCE = 10.0

OPERATOR = (TOP / "sandbox" / "flux-operator.manifest").read_text()
HOSTLIST = "flux-sample-[0-3],gffw-compute-a-[001-003]"
MINICLUSTER: dict[str, Any] = {
    "apiVersion": "flux-framework.org/v1alpha2",
    "kind": "MiniCluster",
    "metadata": {"name": "flux-sample", "namespace": "default"},
    "spec": {
        "size": 2,
        "maxSize": 4,
        "interactive": True,
        "flux": {"bursting": {"hostlist": HOSTLIST}},
        "containers": [{"image": "rockylinux:9"}],
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "lead-broker-service", "namespace": "default"},
    "spec": {
        "type": "NodePort",
        "ports": [{"port": 8050, "nodePort": 30093}],
        "selector": {"job-index": "0"},
    },
}


def text(*things: dict[str, Any]) -> str:
    """Return objects as one manifest."""
    return yaml.safe_dump_all(things)


def until(holds: Callable[[], Any], what: str) -> Any:
    """Return what a function returns once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, f"not in {PATIENCE:.0f} s: {what}"
        time.sleep(0.05)
    return found


def container_session(server: ComputeServer) -> AuthorizedSession:
    """Return Google's own session, as a client of the Container API has it."""
    credentials = service_account.Credentials.from_service_account_file(
        server.credentials_file, scopes=SCOPES
    )
    return AuthorizedSession(credentials)


@dataclass(frozen=True)
class Kubectl:
    """kubectl with a kubeconfig of a test's own."""

    kubeconfig: Path

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of kubectl's."""
        return subprocess.run(
            [KUBECTL, *words],
            input=stdin,
            env={
                "PATH": os.environ["PATH"],
                "KUBECONFIG": str(self.kubeconfig),
                "HOME": "/nonexistent",
                # As root it would make that directory, for what servers answered.
                "KUBECACHEDIR": str(self.kubeconfig.parent / "cache"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def done(self, *words: str, stdin: str = "") -> str:
        """Return the output of a command that has to succeed."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def items(self, *words: str) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` gets."""
        found: list[dict[str, Any]] = json.loads(self.done("get", *words, "-o", "json"))["items"]
        return found

    def api(self) -> client.ApiClient:
        """Return the Python client of the same kubeconfig."""
        made: client.ApiClient = config.new_client_from_config(str(self.kubeconfig))
        return made


def kubeconfig(path: Path, endpoint: str, ca_file: Path, token_file: Path) -> Kubectl:
    """Write a kubeconfig and return the kubectl that uses it."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "gke",
                "cluster": {"server": f"https://{endpoint}", "certificate-authority": str(ca_file)},
            }
        ],
        "users": [{"name": "burst", "user": {"tokenFile": str(token_file)}}],
        "contexts": [{"name": "lead", "context": {"cluster": "gke", "user": "burst"}}],
        "current-context": "lead",
    }
    path.write_text(yaml.safe_dump(content))
    return Kubectl(path)


def make_cluster(
    server: ComputeServer, path: Path, name: str = "flux-cluster", nodes: int = 4
) -> Kubectl:
    """Make a cluster and return the kubectl that is pointed at it by a kubeconfig at path."""
    session = container_session(server)
    base = f"{server.compute_endpoint}/v1/{LOCATION}"
    body = {"cluster": {"name": name, "initialNodeCount": nodes}}
    assert session.post(f"{base}/clusters", json=body).status_code == 200

    def runs() -> Any:
        found = session.get(f"{base}/clusters/{name}").json()
        return found if found["status"] == "RUNNING" else None

    endpoint = until(runs, "the cluster runs")["endpoint"]
    return kubeconfig(path, endpoint, server.ca_file, server.state / "access_token")
