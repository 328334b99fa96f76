# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What passes does not fail a burst, and what fails is told whole: against the sandbox's Compute Engine with faults."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_refusal
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_client import GceClient
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession
from compute_bodies import FOUNDATION, ZONE, bulk
from compute_server import ComputeServer
from gce_modules import Modules

from sandbox.server import validate

pytestmark = pytest.mark.slow

NAME = "r-net"
NETWORK = {"name": NAME, "autoCreateSubnetworks": False}
PATH = f"global/networks/{NAME}"
STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED"


class Burst:
    """A client and a session of ours against a server, and what the client warned of."""

    def __init__(self, server: ComputeServer) -> None:
        self.server, self.warnings = server, list[str]()
        auth = Auth(credentials_file=str(server.credentials_file))
        endpoint = server.compute_endpoint
        self.client = GceClient(server.project, endpoint, auth, self.warnings.append)
        self.session = GceSession(endpoint, auth)

    def create(self) -> None:
        """Create the network and wait for it."""
        self.client.wait(self.client.insert("network", NETWORK, str(uuid.uuid4())))

    def failure(self) -> GceError:
        """Return how the creation of the network fails."""
        with pytest.raises(GceError) as caught:
            self.create()
        assert "\n" not in str(caught.value)
        return caught.value

    @property
    def there(self) -> bool:
        """Whether there is the network."""
        return self.server.call("GET", PATH)[0] == 200


@pytest.fixture(scope="module")
def started(compute_server: ComputeServer) -> Burst:
    """A client of the module's own; making one costs seconds."""
    return Burst(compute_server)


@pytest.fixture
def burst(started: Burst) -> Iterator[Burst]:
    """A client to a server without faults and without the network, and both again at the end."""
    started.warnings.clear()
    yield started
    started.server.faults()
    if started.there:
        started.server.done("DELETE", PATH)


def rule(method: str, at: str, **more: Any) -> dict[str, Any]:
    """Return a fault."""
    return {"method": method, "at": at, **more}


def entries(server: ComputeServer, path: str) -> list[dict[str, Any]]:
    """Return the requests to a path so far."""
    log = map(json.loads, (server.state / "requests.jsonl").read_text().splitlines())
    return [entry for entry in log if entry["path"].endswith(path) and entry["method"] == "POST"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 0])
def test_a_change_outlives_what_passes_and_its_repeats_are_the_same_request(
    burst: Burst, status: int
) -> None:
    before = len(entries(burst.server, "/global/networks"))
    burst.server.faults(rule("networks.insert", "request", status=status, times=2))
    burst.create()
    asked = entries(burst.server, "/global/networks")[before:]
    assert [entry["status"] for entry in asked] == [status, status, 200]
    assert len({entry["query"]["requestId"] for entry in asked}) == 1


@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_read_and_a_wait_outlive_what_passes(burst: Burst, status: int) -> None:
    burst.server.faults(
        rule("networks.list", "request", status=status, times=2),
        rule("globalOperations.wait", "request", status=status, times=2),
    )
    burst.create()
    path = f"projects/{burst.server.project}/global/networks"
    assert [each["name"] for each in burst.session.listed(path, "name")] == [NAME]


def test_a_server_is_asked_again_when_it_says(burst: Burst) -> None:
    burst.server.faults(rule("networks.insert", "request", status=429, times=1, retry_after=1))
    before = len(entries(burst.server, "/global/networks"))
    burst.create()
    first, second = entries(burst.server, "/global/networks")[before:]
    assert second["time"] > first["time"]
    burst.server.faults(rule("networks.insert", "request", status=429, retry_after=600))
    failed = burst.failure()
    assert failed.status == 429
    assert "run again later" in str(failed)


def test_what_stays_out_of_order_is_told_in_the_end(
    burst: Burst, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gce_refusal, "RETRY_SECONDS", 0.5)
    burst.server.faults(rule("networks.insert", "request", status=503, message="Try later"))
    failed = burst.failure()
    assert failed.status == 503
    assert "HTTP 503 backendError (Try later): asked again" in str(failed)
    burst.server.faults(rule("networks.insert", "request", status=0))
    assert "check the endpoint and the network" in str(burst.failure())


def test_an_answer_that_was_lost_makes_no_second_one(burst: Burst) -> None:
    burst.server.faults(rule("networks.insert", "answer", status=0, times=1))
    burst.create()
    assert burst.there


def test_a_repeat_that_meets_what_it_made_itself_has_succeeded(burst: Burst) -> None:
    burst.server.faults(
        rule("networks.insert", "answer", status=0, times=1),
        rule("networks.insert", "request", after=1, times=1, status=409),
    )
    before = len(entries(burst.server, "/global/networks"))
    burst.create()
    asked = entries(burst.server, "/global/networks")[before:]
    assert [entry["status"] for entry in asked] == [0, 409]
    assert burst.there


def test_what_somebody_else_made_is_in_the_way(burst: Burst) -> None:
    burst.server.done("POST", "global/networks", NETWORK)
    failed = burst.failure()
    assert (failed.status, failed.codes) == (409, ("alreadyExists",))


def test_an_operation_that_fails_late_tells_every_error(burst: Burst) -> None:
    more = [{"code": "IN_USE_ADDRESSES", "message": "none left"}]
    late = rule(
        "networks.insert", "operation", status=403, code="QUOTA_EXCEEDED", message="NETWORKS"
    )
    burst.server.faults({**late, "seconds": 0.5, "more": more})
    failed = burst.failure()
    assert failed.codes == ("QUOTA_EXCEEDED", "IN_USE_ADDRESSES")
    assert failed.status == 403
    assert str(failed) == (
        f"wanted to create network {NAME}, found QUOTA_EXCEEDED (NETWORKS); IN_USE_ADDRESSES (none left): "
        "raise the quota, or lower burst_max_hosts."
    )
    assert not burst.there


def test_a_stockout_of_a_bulk_is_told_and_leaves_nothing(burst: Burst) -> None:
    for path, body in FOUNDATION:
        burst.server.done("POST", path, body)
    burst.server.faults(rule("instances.bulkInsert", "operation", code=STOCKOUT, message="No"))
    body = {**bulk("n-1", "n-2"), "count": "2"}
    started = burst.client.bulk_insert(body, str(uuid.uuid4()), "us-central1-a")
    with pytest.raises(GceError, match="us-central1-a has none left") as caught:
        burst.client.wait(started)
    assert caught.value.codes == (STOCKOUT,)
    assert burst.server.call("GET", f"{ZONE}/instances")[1].get("items") is None
    for path, body in reversed(FOUNDATION):
        burst.server.done("DELETE", f"{path}/{body['name']}")


def test_what_an_operation_warns_of_is_told(burst: Burst) -> None:
    burst.server.faults(rule("networks.insert", "warning", message="it is old"))
    burst.create()
    [warning] = burst.warnings
    assert f"create network {NAME}" in warning and "it is old" in warning


def test_an_operation_that_takes_long_is_waited_for(burst: Burst) -> None:
    burst.server.faults(rule("networks.insert", "hang", seconds=1.5))
    burst.create()
    assert burst.there


def test_an_operation_that_vanished_is_judged_by_what_it_was_for(burst: Burst) -> None:
    vanished = rule("globalOperations.wait", "request", status=404)
    burst.server.faults(vanished)
    burst.create()
    assert burst.there
    burst.server.faults(vanished, rule("networks.delete", "hang"))
    deletion = burst.client.delete("network", NAME)
    assert deletion is not None
    with pytest.raises(GceError, match=f"gone before it was done and network {NAME} still there"):
        burst.client.wait(deletion)
    burst.server.faults()
    burst.client.wait(deletion)


def test_a_stage_tells_every_failure_and_waits_for_the_others(burst: Burst) -> None:
    server = burst.server
    server.faults(
        rule("routers.insert", "operation", status=403, code="QUOTA_EXCEEDED", message="ROUTERS"),
        rule(
            "firewalls.insert",
            "request",
            contains="allow-internal",
            status=403,
            message="Required 'compute.firewalls.create' permission for 'x'",
        ),
        rule("subnetworks.insert", "hang", seconds=1.0),
        rule("networks.insert", "warning", message="it is old"),
    )
    failed = Modules(server, "r").network(state="present")
    for part in (
        "create router r-router, found QUOTA_EXCEEDED (ROUTERS): raise the quota",
        " Also wanted to create ",
        "compute.firewalls.create (in roles/compute.securityAdmin)",
    ):
        assert part in failed["msg"]
    assert "it is old" in str(failed["warnings"])
    subnetwork = server.call("GET", "regions/us-central1/subnetworks/r-subnet")
    assert subnetwork[0] == 200
    assert server.call("GET", "global/firewalls/r-allow-iap-ssh")[0] == 200
    server.faults()
    made = Modules(server, "r").network(state="present")
    assert [each["name"] for each in made["resources"]] == ["r-router", "r-allow-internal"]
    assert Modules(server, "r").network(state="absent")["changed"]


def test_all_of_it_is_as_google_would_ask_and_answer(burst: Burst) -> None:
    assert validate.check_log(burst.server.state / "requests.jsonl") == []
