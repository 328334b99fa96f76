# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulated Compute Engine is what Google's discovery document says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_answers
from compute_bodies import FIREWALL, FOUNDATION, NAT, PARTS, REGION, ZONE, bulk, properties, single
from compute_server import ComputeServer

from sandbox.server import app, validate
from sandbox.server.api import METHODS

LABEL = "labels.flux-burst%3Dt"


@pytest.fixture(scope="module")
def foundation(compute_server: ComputeServer) -> Iterator[ComputeServer]:
    """A server with a network to put machines in."""
    for path, body in FOUNDATION:
        compute_server.done("POST", path, body)
    yield compute_server


@pytest.fixture(scope="module")
def discovery() -> validate.Discovery:
    """Google's document."""
    found = validate.load()
    assert found is not None, "install google-api-python-client"
    return found


def refused(answer: tuple[int, Any]) -> tuple[int, str]:
    """Return code and reason of an error answer."""
    return answer[0], answer[1]["error"]["errors"][0]["reason"]


def test_every_method_has_googles_verb_and_path(discovery: validate.Discovery) -> None:
    assert len(app.METHOD_MODULES) and len(METHODS) > 50
    for name, method in METHODS.items():
        spec = discovery.methods[name]
        ours = method.verb, method.path.replace("{name}", "{}")
        assert ours == (spec["httpMethod"], spec["flatPath"]), name


def test_a_whole_burst_leaves_a_log_without_problems(foundation: ComputeServer) -> None:
    server = foundation
    operation = server.done("POST", f"{ZONE}/instances/bulkInsert", bulk("n-1", "n-2"))
    assert "error" not in operation
    server.done("POST", f"{ZONE}/instances", single("n-3"))
    for path in (
        "",
        "zones",
        "regions",
        f"{ZONE}/machineTypes",
        "aggregated/machineTypes?maxResults=5",
        "global/images",
        f"{ZONE}/instances",
        "aggregated/instances?includeAllScopes=true",
        f"{ZONE}/instances/n-1/getGuestAttributes?queryPath=hostkeys/",
        f"{ZONE}/instances/n-1/serialPort",
        "aggregated/operations",
        f"{ZONE}/operations",
        "global/operations",
        "aggregated/routers",
        "aggregated/subnetworks",
        "aggregated/addresses",
        "global/networks",
        "global/firewalls",
        *PARTS,
    ):
        assert server.call("GET", path)[0] == 200, path
    one = server.call("GET", f"{ZONE}/instances/n-1")[1]
    labels = {"labels": {"a": "b"}, "labelFingerprint": one["labelFingerprint"]}
    server.done("POST", f"{ZONE}/instances/n-1/setLabels", labels)
    metadata = {"items": [], "fingerprint": one["metadata"]["fingerprint"]}
    server.done("POST", f"{ZONE}/instances/n-1/setMetadata", metadata)
    server.done("PATCH", "global/firewalls/t-ssh", {"name": "t-ssh", "priority": 900})
    server.done("PUT", "global/firewalls/t-ssh", FIREWALL)
    server.done("PATCH", f"{REGION}/routers/t-router", {"nats": [NAT]})
    for name in ("n-1", "n-2", "n-3"):
        server.done("DELETE", f"{ZONE}/instances/{name}")
    assert server.call("GET", f"{ZONE}/instances")[1].get("items") is None
    assert validate.check_log(server.state / "requests.jsonl") == []


def test_bulk_insert_groups_its_operations(foundation: ComputeServer) -> None:
    operation = foundation.done("POST", f"{ZONE}/instances/bulkInsert", bulk("g-1", "g-2"))
    group = operation["operationGroupId"]
    found = foundation.call("GET", f"{ZONE}/operations?filter=operationGroupId%3D{group}")[1]
    kinds = sorted(it["operationType"] for it in found["items"])
    assert kinds == ["bulkInsert", "insert", "insert"]
    status = operation["instancesBulkInsertOperationMetadata"]["perLocationStatus"][ZONE]
    assert (status["createdVmCount"], status["targetVmCount"]) == (2, 2)


def test_bulk_insert_with_one_taken_name_makes_nothing(foundation: ComputeServer) -> None:
    foundation.done("POST", f"{ZONE}/instances", single("taken"))
    answer = foundation.call("POST", f"{ZONE}/instances/bulkInsert", bulk("new", "taken"))
    assert refused(answer) == (409, "alreadyExists")
    assert foundation.call("GET", f"{ZONE}/instances/new")[0] == 404


def test_a_repeated_request_id_is_one_operation(foundation: ComputeServer) -> None:
    path = f"{ZONE}/instances?requestId=11111111-2222-4333-8444-555555555555"
    first = foundation.call("POST", path, single("once"))[1]
    second = foundation.call("POST", path, single("once"))[1]
    assert first["name"] == second["name"]
    other = "global/networks?requestId=11111111-2222-4333-8444-555555555555"
    body = {"name": "other", "autoCreateSubnetworks": False}
    assert refused(foundation.call("POST", other, body)) == (400, "invalid")
    bad = f"{ZONE}/instances?requestId=nonsense"
    assert refused(foundation.call("POST", bad, single("twice"))) == (400, "invalid")


@pytest.mark.parametrize(
    ("path", "body", "code", "reason", "words"),
    [
        ("global/networks", {"name": "Bad_Name", "autoCreateSubnetworks": False}, 400, "invalid",
         "Invalid value for field 'resource.name': 'Bad_Name'. Must be a match of regex"),
        ("global/networks", {"name": "t-net", "autoCreateSubnetworks": False}, 409,
         "alreadyExists", "The resource 'projects/sandbox-project/global/networks/t-net' already"),
        ("global/networks", {"name": "x", "colour": "red"}, 400, "badRequest",
         "Unknown name \"colour\""),
        ("global/firewalls", {**FIREWALL, "name": "f", "direction": "UP"}, 400, "invalid",
         "Must be one of"),
        ("global/firewalls", {**FIREWALL, "name": "f", "network": "global/networks/default"}, 400,
         "invalid", "The referenced network resource cannot be found."),
        ("global/firewalls", {**FIREWALL, "name": "f", "sourceRanges": ["10.0.0.1/8"]}, 400,
         "invalid", "Must be a valid CIDR address range."),
        (f"{REGION}/subnetworks", {"name": "s", "network": "global/networks/t-net",
         "ipCidrRange": "10.10.0.128/25"}, 400, "invalid", "conflicts with existing subnetwork"),
        (f"{ZONE}/instances", {**single("i"), "machineType": "n2-standard-2"}, 400,
         "invalid", "The URL is malformed."),
        (f"{ZONE}/instances", single("i", labels={"Bad": "x"}), 400, "invalid", "format constraints"),
        ("zones/mars-a/instances", single("i"), 400, "invalid", "Unknown zone."),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_googles_words(
    foundation: ComputeServer, path: str, body: Any, code: int, reason: str, words: str
) -> None:
    answer = foundation.call("POST", path, body)
    assert refused(answer) == (code, reason)
    assert words in answer[1]["error"]["message"]


def test_a_stale_fingerprint_is_refused(foundation: ComputeServer) -> None:
    foundation.done("POST", f"{ZONE}/instances", single("stale"))
    labels = {"labels": {"a": "b"}, "labelFingerprint": "AAAAAAAAAAA="}
    answer = foundation.call("POST", f"{ZONE}/instances/stale/setLabels", labels)
    assert refused(answer) == (412, "conditionNotMet")
    metadata = {"items": [], "fingerprint": "AAAAAAAAAAA="}
    answer = foundation.call("POST", f"{ZONE}/instances/stale/setMetadata", metadata)
    assert refused(answer) == (412, "conditionNotMet")


def test_what_is_used_cannot_be_deleted(foundation: ComputeServer) -> None:
    foundation.done("POST", f"{ZONE}/instances", single("user"))
    for path in ("global/networks/t-net", f"{REGION}/subnetworks/t-subnet"):
        answer = foundation.call("DELETE", path)
        assert refused(answer) == (400, "resourceInUseByAnotherResource"), path


def test_guest_attributes_need_the_metadata_that_allows_them(foundation: ComputeServer) -> None:
    foundation.done("POST", f"{ZONE}/instances", single("silent", metadata={"items": []}))
    path = f"{ZONE}/instances/silent/getGuestAttributes?queryPath=hostkeys/"
    assert refused(foundation.call("GET", path)) == (412, "conditionNotMet")
    foundation.done("POST", f"{ZONE}/instances", single("open"))
    path = f"{ZONE}/instances/open/getGuestAttributes?queryPath="
    items = foundation.call("GET", f"{path}hostkeys/")[1]["queryValue"]["items"]
    assert items[0]["namespace"] == "hostkeys" and items[0]["key"] == "ssh-ed25519"
    status, body = foundation.call("GET", f"{path}other/")
    assert status == 404 and "of type 'Guest Attribute' was not found" in body["error"]["message"]


def test_lists_filter_page_and_select_fields(foundation: ComputeServer) -> None:
    names = [f"page-{n}" for n in range(5)]
    body = bulk(*names, labels={"flux-burst": "paged"})
    foundation.done("POST", f"{ZONE}/instances/bulkInsert", body)
    query = "filter=labels.flux-burst%3Dpaged&maxResults=2&fields=items(name,status),nextPageToken"
    found, token = [], ""
    while True:
        page = foundation.call("GET", f"{ZONE}/instances?{query}&pageToken={token}")[1]
        assert set(page) <= {"items", "nextPageToken"}
        found += page["items"]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert found == [{"name": name, "status": "RUNNING"} for name in names]


def test_max_run_duration_needs_what_to_do_then(foundation: ComputeServer) -> None:
    for scheduling in (
        {"maxRunDuration": {"seconds": "3600"}},
        {"maxRunDuration": {"seconds": "5"}, "instanceTerminationAction": "DELETE"},
    ):
        answer = foundation.call("POST", f"{ZONE}/instances", single("i", scheduling=scheduling))
        assert refused(answer) == (400, "invalid")


def test_the_checker_finds_what_a_log_does_wrong(tmp_path: Path) -> None:
    base = "/compute/v1/projects/p/zones/us-central1-a/instances"
    good: dict[str, Any] = {"query": {}, "status": 200, "request": None, "response": {"items": []}}
    records = [
        {**good, "method": "GET", "path": f"{base}s"},
        {**good, "method": "GET", "path": base, "query": {"colour": "red"}},
        {**good, "method": "GET", "path": base, "response": {"items": [{"id": "seven"}]}},
        {
            **good,
            "method": "GET",
            "path": base,
            "response": {"items": [{"creationTimestamp": "1"}]},
        },
        {**good, "method": "GET", "path": base, "status": 404, "response": {"error": {}}},
        {**good, "method": "POST", "path": base, "request": properties(), "response": {}},
        {**good, "method": "POST", "path": base, "request": single("x", id="1"), "response": {}},
    ]
    log = tmp_path / "log"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    problems = validate.check_log(log)
    lines = [int(problem.removeprefix(f"{log}:").partition(":")[0]) for problem in problems]
    assert lines == [1, 2, 3, 4, 5, 6, 7], problems


READ = [
    "Address",
    "Disk",
    "Firewall",
    "GuestAttributes",
    "Image",
    "Instance",
    "MachineType",
    "Network",
    "NetworksGetEffectiveFirewallsResponse",
    "Operation",
    "Project",
    "Region",
    "ResourcePolicy",
    "Router",
    "SerialPortOutput",
    "Subnetwork",
]
TIME, RANGE = "2026-11-26T11:00:00.000-08:00", "10.10.0.0/24"
WORDS = {
    "creationTimestamp": TIME,
    "insertTime": TIME,
    "lastStartTimestamp": TIME,
    "lastStopTimestamp": TIME,
    "ipCidrRange": RANGE,
    "ports": "22-23",
    "selfLink": "https://www.googleapis.com/compute/v1/projects/p",
    "sourceRanges": RANGE,
    "srcIpRanges": RANGE,
}
"""Of texts that have a form the document says it in words only."""


def example(discovery: validate.Discovery, spec: dict[str, Any], name: str, depth: int = 0) -> Any:
    """Return a value with every field that the document gives a schema."""
    if "$ref" in spec:
        spec = discovery.schemas[spec["$ref"]]
    if spec["type"] == "array":
        return [example(discovery, spec["items"], name, depth)]
    if spec["type"] == "object" and depth < 6:
        keys = {"key": spec["additionalProperties"]} if "additionalProperties" in spec else {}
        fields = {**keys, **spec.get("properties", {})}
        return {key: example(discovery, each, key, depth + 1) for key, each in fields.items()}
    text = "1" if spec.get("format") in ("int64", "uint64") else WORDS.get(name, "text")
    return {"string": text, "integer": 1, "number": 1.5, "boolean": True}.get(spec["type"], {})


@pytest.mark.parametrize("kind", READ)
def test_every_field_that_we_read_has_googles_type(
    discovery: validate.Discovery, kind: str
) -> None:
    """An answer is refused where a field is not as we know it: nothing that Google gives may be."""
    assert _gce_answers.wrong(example(discovery, {"$ref": kind}, "")) == ""
