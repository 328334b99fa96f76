# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules, the inventory and the tunnel use the credentials that they are given, and say which ones failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from compute_server import TOP, ComputeServer
from gce_modules import Modules

pytestmark = pytest.mark.slow

TARGET = "other@sandbox-project.iam.gserviceaccount.com"
DENIED = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
VARIABLES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_OAUTH_ACCESS_TOKEN",
    "FLUX_BURST_ACCESS_TOKEN",
)


class Google:
    """What of Google gives tokens: STS, IAM credentials and a metadata server; and a Compute Engine that notes them."""

    def __init__(self) -> None:
        self.bearers: list[str] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.denies = False
        google = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                url = urlsplit(self.path)
                google.bearers.append(self.headers.get("Authorization", "").removeprefix("Bearer "))
                google.asked.append((self.command, url.path, data))
                status, body = google.answered(url.path, parse_qs(url.query), data)
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response(status)
                kind = "application/text" if isinstance(body, str) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = answer

            def log_message(self, *_unused: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"

    def answered(self, path: str, query: dict[str, list[str]], data: str) -> tuple[int, Any]:
        """Return the answer to one request."""
        if path.endswith(":generateAccessToken"):
            if self.denies:
                errors = [{"reason": "forbidden", "message": DENIED, "domain": "global"}]
                return 403, {"error": {"code": 403, "message": DENIED, "errors": errors}}
            return 200, {"accessToken": "impersonated", "expireTime": "2099-01-01T00:00:00Z"}
        if path == "/sts":
            given = parse_qs(data)["subject_token"][0]
            kind = "urn:ietf:params:oauth:token-type:access_token"
            token = {"access_token": f"federated-{given}", "expires_in": 3600}
            return 200, {**token, "issued_token_type": kind, "token_type": "Bearer"}
        if path.endswith("/token"):
            return 200, {"access_token": "machine", "expires_in": 3600, "token_type": "Bearer"}
        if path.endswith("/project/project-id"):
            return 200, "sandbox-project"
        if path.endswith("/service-accounts/default/"):
            return 200, {"email": "machine@sandbox-project.iam", "scopes": [], "aliases": []}
        if path.startswith("/compute/v1/"):
            return 200, {"items": [{"name": "n2-standard-4", "guestCpus": 4, "memoryMb": 16384}]}
        return 200, "computeMetadata/\n"


@pytest.fixture
def google() -> Iterator[Google]:
    """Google's identity services."""
    made = Google()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def machine_types(around: dict[str, str], **options: Any) -> dict[str, Any]:
    """Run a module that reads one machine type, in an environment; return what it returns.

    Not forked as elsewhere: google-auth reads some of that environment as it is imported.
    """
    arguments = {"zones": ["us-central1-a"], "names": ["n2-standard-4"], **options}
    clean = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ansible_collections.flux.burst.plugins.modules.gce_machine_type_info",
        ],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        env={
            **clean,
            "PYTHONPATH": str(TOP / ".cache/collections"),
            "CLOUDSDK_CONFIG": "/nonexistent",
            "NO_GCE_CHECK": "true",
            **around,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip().startswith("{"), done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_project_that_is_not_given_is_that_of_the_service_account(
    compute_server: ComputeServer,
) -> None:
    file = str(compute_server.credentials_file)
    around = {
        "GOOGLE_APPLICATION_CREDENTIALS": file,
        "FLUX_BURST_COMPUTE_ENDPOINT": compute_server.compute_endpoint,
    }
    found = machine_types(around)
    assert found.get("machine_types"), found


def endpoint(server: ComputeServer | Google) -> dict[str, str]:
    """Return the option that says where Compute Engine is."""
    where = server.url if isinstance(server, Google) else server.compute_endpoint
    return {"compute_endpoint": where}


def test_a_token_is_sent_as_it_is_and_not_shown(google: Google) -> None:
    token = "ya29.secret-token"
    found = machine_types({"FLUX_BURST_ACCESS_TOKEN": token}, project="p-1234", **endpoint(google))
    assert found.get("machine_types"), found
    assert google.bearers == [token]
    assert token not in json.dumps(found)
    without = machine_types({}, access_token=token, **endpoint(google))
    assert "project: wanted a Google Cloud project" in without["msg"]
    assert token not in json.dumps(without)


def test_another_service_account_is_acted_as(compute_server: ComputeServer, google: Google) -> None:
    options = {
        "credentials_file": str(compute_server.credentials_file),
        "impersonate_service_account": f"first@p,{TARGET}",
        "iam_endpoint": google.url,
        "scopes": ["https://www.googleapis.com/auth/compute"],
        **endpoint(google),
    }
    found = machine_types({}, **options)
    assert found.get("machine_types"), found
    (verb, path, body), (_get, reading, _none) = google.asked
    assert (verb, path) == ("POST", f"/v1/projects/-/serviceAccounts/{TARGET}:generateAccessToken")
    asked = json.loads(body)
    assert asked["scope"] == ["https://www.googleapis.com/auth/compute"]
    assert asked["delegates"] == ["first@p"]
    assert google.bearers[1] == "impersonated"
    assert reading.startswith("/compute/v1/projects/sandbox-project/")


def test_who_may_not_impersonate_is_told_which_role_that_takes(
    compute_server: ComputeServer, google: Google
) -> None:
    google.denies = True
    found = machine_types(
        {},
        credentials_file=str(compute_server.credentials_file),
        impersonate_service_account=TARGET,
        iam_endpoint=google.url,
        **endpoint(google),
    )
    assert f"with service account {TARGET}, impersonated by service account burst@" in found["msg"]
    assert "(in roles/iam.serviceAccountTokenCreator)" in found["msg"]
    assert "\n" not in found["msg"]


def test_a_federated_identity_is_exchanged_for_a_token(google: Google, tmp_path: Path) -> None:
    (tmp_path / "subject").write_text("mine")
    file = tmp_path / "federated.json"
    info = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{google.url}/sts",
        "credential_source": {"file": str(tmp_path / "subject")},
    }
    file.write_text(json.dumps(info))
    found = machine_types({}, credentials_file=str(file), project="p-1234", **endpoint(google))
    assert found.get("machine_types"), found
    assert google.bearers[-1] == "federated-mine"


def test_a_machine_of_compute_engine_needs_no_credentials_and_no_project(google: Google) -> None:
    around = {
        "GCE_METADATA_HOST": google.host,
        "GCE_METADATA_IP": google.host,
        "NO_GCE_CHECK": "false",
    }
    found = machine_types(around, **endpoint(google))
    assert found.get("machine_types"), found
    assert google.bearers[-1] == "machine"
    assert "/projects/sandbox-project/" in google.asked[-1][1]


def test_where_there_are_none_every_place_is_named(google: Google) -> None:
    found = machine_types({}, **endpoint(google))
    said = found["msg"]
    assert said.startswith("wanted application default credentials, found none: ")
    for place in ("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/", "metadata server"):
        assert place in said
    assert google.asked == []


PERMISSIONS = [
    ("machineTypes.list", "compute.machineTypes.list", "roles/compute.viewer"),
    ("networks.insert", "compute.networks.create", "roles/compute.networkAdmin"),
    ("firewalls.insert", "compute.firewalls.create", "roles/compute.securityAdmin"),
]


@pytest.mark.parametrize(("method", "permission", "role"), PERMISSIONS)
def test_a_missing_permission_is_told_with_who_lacks_it_and_the_role_that_has_it(
    compute_server: ComputeServer, method: str, permission: str, role: str
) -> None:
    message = f"Required '{permission}' permission for 'projects/sandbox-project/x'"
    compute_server.faults({"method": method, "at": "request", "status": 403, "message": message})
    try:
        said = refused(compute_server, method)
    finally:
        compute_server.faults()
        Modules(compute_server, "a").network(state="absent")
    who = "service account burst@sandbox-project.iam.gserviceaccount.com"
    assert (
        f"HTTP 403 forbidden ({message}): give {who} ({compute_server.credentials_file}) " in said
    )
    assert f"{permission} (in {role})" in said


def refused(server: ComputeServer, method: str) -> str:
    """Return how a module fails that calls a method."""
    file = str(server.credentials_file)
    if method == "machineTypes.list":
        return str(machine_types({}, credentials_file=file, **endpoint(server))["msg"])
    return str(Modules(server, "a").network(state="present")["msg"])


def test_the_inventory_finds_the_project_of_its_credentials(
    compute_server: ComputeServer, tmp_path: Path
) -> None:
    (tmp_path / "gce.yml").write_text("plugin: flux.burst.gce\nspecification: spec.yml\n")
    spec = {
        "burst_credentials_file": str(compute_server.credentials_file),
        "burst_compute_endpoint": compute_server.compute_endpoint,
        "burst_ssh_private_key_file": "/keys/key",
    }
    (tmp_path / "spec.yml").write_text(json.dumps(spec))
    clean = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-inventory"),
            "-i",
            tmp_path / "gce.yml",
            "--graph",
        ],
        env={**clean, "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".cache/collections")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    log = (compute_server.state / "requests.jsonl").read_text().splitlines()
    reading = json.loads(log[-1])
    assert reading["path"] == "/compute/v1/projects/sandbox-project/aggregated/instances"


def test_the_tunnel_acts_as_the_other_account_too(
    compute_server: ComputeServer, google: Google, tmp_path: Path
) -> None:
    google.denies = True
    words = {
        "project": "sandbox-project",
        "zone": "us-central1-a",
        "instance": "nobody",
        "endpoint": compute_server.iap_endpoint,
        "ca-file": str(compute_server.ca_file),
        "credentials-file": str(compute_server.credentials_file),
        "impersonate-service-account": TARGET,
        "directory": str(tmp_path),
    }
    program = TOP / ".cache/collections/ansible_collections/flux/burst/plugins/module_utils/_iap.py"
    done = subprocess.run(
        [sys.executable, "-P", program, *(f"--{name}={value}" for name, value in words.items())],
        env={**os.environ, "FLUX_BURST_IAM_ENDPOINT": google.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert f"iap: wanted an access token with service account {TARGET}, impersonated" in done.stderr
    assert "roles/iam.serviceAccountTokenCreator" in done.stderr
