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
from collections.abc import Mapping
from typing import Any

import pytest
from compute_bodies import FOUNDATION, ZONE, bulk, single
from compute_server import ComputeServer
from google.api_core.exceptions import Conflict, NotFound
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import compute_v1
from google.oauth2 import service_account
from googleapiclient import discovery

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


def test_the_api_clients_library_builds_on_the_discovery_document_and_lists_all_pages(
    machines: ComputeServer,
) -> None:
    compute = discovery.build(
        "compute",
        "v1",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": f"{machines.compute_endpoint}/compute/v1/"},
        static_discovery=True,
    )
    names: list[str] = []
    request = compute.instances().list(**PLACE, maxResults=2)
    while request is not None:
        answer = request.execute()
        names += [it["name"] for it in answer["items"]]
        request = compute.instances().list_next(request, answer)
    assert names == NAMES
    body = single("by-library")
    operation = compute.instances().insert(**PLACE, body=body).execute()
    waiting = {**PLACE, "operation": operation["name"]}
    assert compute.zoneOperations().wait(**waiting).execute()["status"] == "DONE"
    operation = compute.instances().delete(**PLACE, instance="by-library").execute()
    waiting = {**PLACE, "operation": operation["name"]}
    assert "error" not in compute.zoneOperations().wait(**waiting).execute()


def gcloud(server: ComputeServer, *words: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run `gcloud compute ... --format=json` and return what it prints."""
    done = subprocess.run(
        ["gcloud", "compute", *words, "--format=json"],
        env=dict(environment or server.gcloud_environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_gcloud_reaches_the_machines_through_the_proxy(machines: ComputeServer) -> None:
    proxy = urllib.parse.urlsplit(machines.proxy)
    environment = {
        **machines.gcloud_environment,
        "CLOUDSDK_PROXY_TYPE": "http",
        "CLOUDSDK_PROXY_ADDRESS": str(proxy.hostname),
        "CLOUDSDK_PROXY_PORT": str(proxy.port),
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": str(machines.state / "ca-bundle.pem"),
    }
    del environment["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"]
    found = gcloud(machines, "instances", "list", environment=environment)
    assert [it["name"] for it in found] == NAMES


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


IN_REGION, IN_ZONE = "--region=us-central1", "--zone=us-central1-a"
MACHINE = (
    IN_ZONE,
    "--machine-type=n2-standard-2",
    "--subnet=g-subnet",
    "--no-address",
    "--image-family=flux-fw-bursted-x86-64",
    "--image-project=sandbox-project",
    "--no-service-account",
    "--no-scopes",
)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_gcloud_makes_a_network_with_nat_and_machines_and_deletes_them(
    compute_server: ComputeServer,
) -> None:
    def run(*words: str) -> Any:
        return gcloud(compute_server, *words, "--quiet")

    run("networks", "create", "g-net", "--subnet-mode=custom")
    subnet = ("--network=g-net", IN_REGION, "--range=10.50.0.0/24")
    run("networks", "subnets", "create", "g-subnet", *subnet)
    ssh = ("--network=g-net", "--allow=tcp:22", "--source-ranges=35.235.240.0/20")
    run("firewall-rules", "create", "g-ssh", *ssh)
    assert run("firewall-rules", "describe", "g-ssh")["allowed"][0]["ports"] == ["22"]
    run("routers", "create", "g-router", "--network=g-net", IN_REGION)
    nat = ("--router=g-router", IN_REGION)
    every = ("--auto-allocate-nat-external-ips", "--nat-all-subnet-ip-ranges")
    run("routers", "nats", "create", "g-nat", *nat, *every)
    assert [it["name"] for it in run("routers", "nats", "list", *nat)] == ["g-nat"]

    run("instances", "create", "g-1", *MACHINE)
    made = run("instances", "bulk", "create", "--predefined-names=g-2,g-3", *MACHINE)
    assert made["createdInstanceCount"] == 2
    assert run("instances", "describe", "g-2", IN_ZONE)["status"] == "RUNNING"
    serial = run("instances", "get-serial-port-output", "g-2", IN_ZONE)
    assert "g-2 is a record only" in serial["contents"]
    listed = run("instances", "list", "--filter=name:g-")
    assert sorted(it["name"] for it in listed) == ["g-1", "g-2", "g-3"]

    run("instances", "delete", "g-1", "g-2", "g-3", IN_ZONE)
    run("routers", "nats", "delete", "g-nat", *nat)
    run("routers", "delete", "g-router", IN_REGION)
    run("firewall-rules", "delete", "g-ssh")
    run("networks", "subnets", "delete", "g-subnet", IN_REGION)
    run("networks", "delete", "g-net")
    assert compute_server.call("GET", "global/networks/g-net")[0] == 404
