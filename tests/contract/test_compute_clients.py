# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Google's own clients drive the emulated Compute Engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
from compute_bodies import FOUNDATION, ZONE, bulk
from compute_server import ComputeServer
from google.api_core.exceptions import Conflict, NotFound
from google.auth.transport.requests import AuthorizedSession
from google.cloud import compute_v1
from google.oauth2 import service_account

NAMES = ["m-1", "m-2", "m-3"]
PLACE = {"project": "sandbox-project", "zone": "us-central1-a"}


@pytest.fixture(scope="module")
def machines(compute_server: ComputeServer) -> ComputeServer:
    """A server with three machines."""
    for path, body in FOUNDATION:
        compute_server.done("POST", path, body)
    compute_server.done("POST", f"{ZONE}/instances/bulkInsert", bulk(*NAMES))
    return compute_server


def client(kind: Any, server: ComputeServer) -> Any:
    """Return one of google-cloud-compute's clients, pointed at the server."""
    path = str(server.credentials_file)
    credentials = service_account.Credentials.from_service_account_file(path)
    options = {"api_endpoint": server.compute_endpoint}
    return kind(credentials=credentials, client_options=options)


def test_instances_client_lists_the_machines(machines: ComputeServer) -> None:
    found = list(client(compute_v1.InstancesClient, machines).list(**PLACE))
    assert [it.name for it in found] == NAMES
    assert {it.status for it in found} == {"RUNNING"}
    assert [it.network_interfaces[0].network_i_p for it in found] == [
        f"10.10.0.{n}" for n in (2, 3, 4)
    ]


def test_instances_client_aggregates_pages(machines: ComputeServer) -> None:
    request = compute_v1.AggregatedListInstancesRequest(
        project=machines.project, filter="labels.flux-burst=t", max_results=2
    )
    pages = client(compute_v1.InstancesClient, machines).aggregated_list(request)
    assert [it.name for _unused, scope in pages for it in scope.instances] == NAMES


def test_bulk_insert_by_the_client_and_its_operation(machines: ComputeServer) -> None:
    body = json.dumps(bulk("c-1", "c-2", labels={"flux-burst": "c"}))
    instances = client(compute_v1.InstancesClient, machines)
    resource = compute_v1.BulkInsertInstanceResource.from_json(body)
    operation = instances.bulk_insert_unary(
        **PLACE, bulk_insert_instance_resource_resource=resource
    )
    waiter = client(compute_v1.ZoneOperationsClient, machines)
    done = waiter.wait(**PLACE, operation=operation.name)
    assert done.status == compute_v1.Operation.Status.DONE
    assert not done.error.errors
    with pytest.raises(Conflict):
        instances.bulk_insert_unary(**PLACE, bulk_insert_instance_resource_resource=resource)
    for name in ("c-1", "c-2"):
        operation = instances.delete_unary(**PLACE, instance=name)
        waiter.wait(**PLACE, operation=operation.name)
        with pytest.raises(NotFound):
            instances.get(**PLACE, instance=name)


def test_a_session_gets_its_token_from_our_endpoint(machines: ComputeServer) -> None:
    credentials = service_account.Credentials.from_service_account_file(
        str(machines.credentials_file),
        scopes=["https://www.googleapis.com/auth/cloud-platform"],
    )
    session = AuthorizedSession(credentials)
    url = f"{machines.compute_endpoint}/compute/v1/projects/{machines.project}/{ZONE}/instances"
    found = session.get(url, params={"fields": "items/name"}).json()
    assert [it["name"] for it in found["items"]] == NAMES
    log = (machines.state / "requests.jsonl").read_text()
    assert '"path":"/token"' in log
    assert credentials.token and credentials.token not in log


def test_a_token_is_not_issued_for_another_key(machines: ComputeServer) -> None:
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    form = urllib.parse.urlencode({"grant_type": grant, "assertion": "e30.e30.AAAA"}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{machines.compute_endpoint}/token", form)
    assert json.load(caught.value)["error"] == "invalid_grant"


def gcloud(server: ComputeServer, *words: str) -> Any:
    """Run `gcloud compute ... --format=json` and return what it prints."""
    done = subprocess.run(
        ["gcloud", "compute", *words, "--format=json"],
        env=dict(server.gcloud_environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["instances", "list"], NAMES),
        (["instances", "list", "--filter=labels.flux-burst=t AND name=m-2"], ["m-2"]),
        (["networks", "list"], ["t-net"]),
        (["networks", "subnets", "list"], ["t-subnet"]),
        (["firewall-rules", "list"], ["t-ssh"]),
        (["routers", "list"], ["t-router"]),
        (["addresses", "list"], ["t-address"]),
        (["images", "list", "--filter=family=flux-fw-bursted-x86-64"], None),
    ],
)
def test_gcloud_lists(machines: ComputeServer, words: list[str], names: list[str] | None) -> None:
    found = [it["name"] for it in gcloud(machines, *words)]
    assert found == (names or ["flux-fw-bursted-x86-64-v20261101"])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_gcloud_makes_and_deletes_a_network(machines: ComputeServer) -> None:
    gcloud(machines, "networks", "create", "by-gcloud", "--subnet-mode=custom")
    assert machines.call("GET", "global/networks/by-gcloud")[0] == 200
    gcloud(machines, "networks", "delete", "by-gcloud", "--quiet")
    assert machines.call("GET", "global/networks/by-gcloud")[0] == 404
