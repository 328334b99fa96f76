# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's server as tests start it: machines that are records only, and no latency."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0


@dataclass(frozen=True)
class ComputeServer:
    """A running server: its endpoints, and the files in its state directory."""

    compute_endpoint: str
    iap_endpoint: str
    proxy: str
    state: Path
    pid: int
    project: str = "sandbox-project"

    @property
    def ca_file(self) -> Path:
        """The authority that signed the relay's certificate."""
        return self.state / "ca.pem"

    @property
    def credentials_file(self) -> Path:
        """A service account whose token_uri is this server."""
        return self.state / "credentials.json"

    @property
    def access_token(self) -> str:
        """A token that the relay accepts."""
        return (self.state / "access_token").read_text()

    @property
    def gcloud_environment(self) -> Mapping[str, str]:
        """What points gcloud at this server."""
        return {
            **os.environ,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{self.compute_endpoint}/compute/v1/",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(self.state / "access_token"),
            "CLOUDSDK_CORE_PROJECT": self.project,
            "CLOUDSDK_CONFIG": str(self.state / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        }

    @property
    def proxy_environment(self) -> Mapping[str, str]:
        """What leads a client with a fixed https endpoint here."""
        return {
            **os.environ,
            "HTTPS_PROXY": self.proxy,
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": str(self.state / "ca-bundle.pem"),
        }

    def call(
        self, verb: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Call a method; path is below the project. Return status and JSON."""
        url = f"{self.compute_endpoint}/compute/v1/projects/{self.project}/{path}".rstrip("/")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, dict(headers or {}), method=verb)
        try:
            with urllib.request.urlopen(request) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text else None

    def faults(self, *rules: Mapping[str, Any]) -> None:
        """Let calls fail from now on as sandbox/server/faults.py describes it; without rules, none."""
        data = json.dumps({"faults": rules}).encode()
        request = urllib.request.Request(f"{self.compute_endpoint}/sandbox/faults", data)
        urllib.request.urlopen(request).close()

    def grant(self, permissions: Iterable[str] | None) -> None:
        """Let the caller have these IAM permissions and no others from now on; None is all."""
        given = None if permissions is None else list(permissions)
        data = json.dumps({"permissions": given}).encode()
        url = f"{self.compute_endpoint}/sandbox/permissions"
        urllib.request.urlopen(urllib.request.Request(url, data, method="PUT")).close()

    def done(self, verb: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call a method that has to succeed and wait for its operation, which is returned."""
        status, operation = self.call(verb, path, body)
        assert status == 200, operation
        below = operation["selfLink"].partition(f"/projects/{self.project}/")[2]
        status, operation = self.call("POST", f"{below}/wait")
        assert (status, operation["status"]) == (200, "DONE")
        assert isinstance(operation, dict)
        return operation


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _unused in range(count)]
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while "ready" not in log.read_text().splitlines():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, "the server did not get ready"
        time.sleep(0.02)


@contextmanager
def serving(state: Path, latency: str = "none") -> Iterator[ComputeServer]:
    """Run a server with its files in a directory; stop it at the end, which has to be clean."""
    compute, relay, proxy = free_ports(3)
    log = state / "server.log"
    command = [sys.executable, "-m", "sandbox.server", "--name", "contract", "--state", str(state)]
    command += ["--compute-port", str(compute), "--relay-port", str(relay)]
    command += ["--proxy-port", str(proxy), "--backend", "records", "--latency", latency]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=TOP, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(process, log)
        yield ComputeServer(
            f"http://127.0.0.1:{compute}",
            f"wss://127.0.0.1:{relay}",
            f"http://127.0.0.1:{proxy}",
            state,
            process.pid,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
    assert code == 0, log.read_text()
