# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of the emulated Compute Engine fail where they were told to, and nowhere else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from test_server_machines import ZONE, Engine, bulk, names, properties

from sandbox.server.api import METHODS
from sandbox.server.errors import ApiError
from sandbox.server.faults import Faults

INSERT = f"{ZONE}/instances"
STOCKOUT = "ZONE_RESOURCE_POOL_EXHAUSTED"


@pytest.fixture
async def engine() -> Engine:
    """An API with a network."""
    made = Engine()
    await made.foundation()
    return made


def tell(engine: Engine, *rules: dict[str, Any]) -> None:
    """Set faults."""
    engine.api.faults.replace({"faults": list(rules)}, METHODS)


def single(name: str) -> dict[str, Any]:
    """Describe one machine."""
    return {"name": name, **properties()}


@pytest.mark.parametrize(
    ("rule", "fails"),
    [
        ({"method": "instances.insert"}, True),
        ({"method": "instances.*"}, True),
        ({"method": "*"}, True),
        ({"method": "instances.bulkInsert"}, False),
        ({"method": "*", "scope": ZONE}, True),
        ({"method": "*", "scope": "zones/us-central1-b"}, False),
        ({"method": "*", "contains": "n2-standard-2"}, True),
        ({"method": "*", "contains": "/zones/us-central1-a/"}, True),
        ({"method": "*", "contains": "n2-standard-4"}, False),
    ],
)
async def test_a_rule_means_the_calls_that_it_names(
    engine: Engine, rule: dict[str, Any], fails: bool
) -> None:
    tell(engine, {"at": "request", **rule})
    status, _unused = await engine.call("POST", INSERT, single("a"))
    assert status == (503 if fails else 200)


async def test_calls_fail_after_some_and_so_many_times(engine: Engine) -> None:
    tell(engine, {"method": "instances.list", "at": "request", "after": 1, "times": 2})
    found = [(await engine.call("GET", INSERT))[0] for _unused in range(5)]
    assert found == [200, 503, 503, 200, 200]
    [shown] = engine.api.faults.shown()["faults"]
    assert (shown["seen"], shown["fired"]) == (5, 2)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"status": 403}, "forbidden"),
        ({"status": 429}, "rateLimitExceeded"),
        ({"status": 502}, "backendError"),
        ({"status": 403, "code": "quotaExceeded"}, "quotaExceeded"),
    ],
)
async def test_a_request_is_refused_in_googles_words(
    engine: Engine, rule: dict[str, Any], reason: str
) -> None:
    tell(engine, {"method": "*", "at": "request", "message": "No", "retry_after": 2, **rule})
    status, answer = await engine.call("GET", INSERT)
    assert status == answer["error"]["code"] == rule["status"]
    assert answer["error"]["errors"] == [{"message": "No", "domain": "global", "reason": reason}]
    assert answer["error"]["details"][0]["retryDelay"] == "2s"


async def test_a_refused_request_is_not_remembered_and_a_lost_answer_is(engine: Engine) -> None:
    query = {"requestId": "11111111-2222-4333-8444-555555555555"}
    path = f"/compute/v1/projects/sandbox-project/{INSERT}"
    body = json.dumps(single("a")).encode()

    async def ask() -> tuple[int, Any]:
        return (await engine.api.answer("POST", path, query, body))[:2]

    tell(
        engine,
        {"method": "instances.insert", "at": "request", "times": 1},
        {"method": "instances.insert", "at": "answer", "status": 0, "times": 1},
    )
    assert (await ask())[0] == 503
    assert await names(engine) == []
    assert await ask() == (0, None)
    assert await names(engine) == ["a"]
    status, operation = await ask()
    assert (status, operation["operationType"]) == (200, "insert")


async def test_an_operation_that_fails_leaves_everything_as_it_was(engine: Engine) -> None:
    await engine.done("POST", INSERT, single("kept"))
    before = await engine.call("GET", f"{INSERT}/kept")
    labels = {"labels": {"a": "b"}, "labelFingerprint": before[1]["labelFingerprint"]}
    more = [{"code": "IN_USE_ADDRESSES", "message": "none"}]
    tell(
        engine,
        {"method": "*", "at": "operation", "code": STOCKOUT, "message": "No more", "more": more},
    )
    for verb, path, body in (
        ("POST", INSERT, single("a")),
        ("POST", f"{INSERT}/bulkInsert", bulk("b", "c")),
        ("POST", f"{INSERT}/kept/setLabels", labels),
        ("POST", f"{INSERT}/kept/stop", None),
        ("DELETE", f"{INSERT}/kept", None),
        ("POST", "global/networks", {"name": "m", "autoCreateSubnetworks": False}),
    ):
        operation = await engine.done(verb, path, body)
        codes = [each["code"] for each in operation["error"]["errors"]]
        assert codes == [STOCKOUT, "IN_USE_ADDRESSES"], path
        assert operation["httpErrorStatusCode"] == 503
        assert operation["httpErrorMessage"] == "SERVICE UNAVAILABLE"
    assert await engine.call("GET", f"{INSERT}/kept") == before
    assert await names(engine) == ["kept"]
    assert (await engine.call("GET", "global/networks/m"))[0] == 404
    tell(engine)
    assert "error" not in await engine.done("DELETE", f"{INSERT}/kept")


@pytest.mark.parametrize(("least", "kept"), [("2", ["b", "c"]), ("3", [])])
async def test_machines_of_a_bulk_fail_one_by_one(
    engine: Engine, least: str, kept: list[str]
) -> None:
    rule = {"method": "instances.bulkInsert", "at": "operation", "code": STOCKOUT}
    tell(engine, {**rule, "fail_count": 1})
    body = bulk("a", "b", "c", minCount=least, count="3")
    operation = await engine.done("POST", f"{INSERT}/bulkInsert", body)
    assert await names(engine) == kept
    assert ("error" in operation) == (not kept)
    status = operation["instancesBulkInsertOperationMetadata"]["perLocationStatus"][ZONE]
    assert (status["createdVmCount"], status["failedToCreateVmCount"]) == (2, 1)


async def test_an_operation_hangs_until_the_faults_are_replaced(engine: Engine) -> None:
    tell(engine, {"method": "instances.insert", "at": "hang"})
    _unused, operation = await engine.call("POST", INSERT, single("a"))
    await asyncio.sleep(0.05)
    assert operation["status"] == "RUNNING"
    assert (await engine.call("GET", f"{INSERT}/a"))[1]["status"] == "PROVISIONING"
    tell(engine)
    assert "error" not in await engine.finished(operation)
    assert (await engine.call("GET", f"{INSERT}/a"))[1]["status"] == "RUNNING"


async def test_an_operation_that_succeeds_may_warn(engine: Engine) -> None:
    rule = {"method": "instances.insert", "at": "warning", "message": "image is old"}
    tell(engine, rule)
    operation = await engine.done("POST", INSERT, single("a"))
    assert operation["warnings"] == [
        {"code": "DEPRECATED_RESOURCE_USED", "message": "image is old"}
    ]
    assert await names(engine) == ["a"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "'faults' not specified"),
        ({"faults": {}}, "'faults' not specified"),
        ({"faults": ["x"]}, r"'faults\[0\]': 'x'. Must be an object"),
        ({"faults": [{"at": "request"}]}, r"faults\[0\].method' not specified"),
        ({"faults": [{"method": "*"}]}, r"faults\[0\].at' not specified"),
        ({"faults": [{"method": "*", "at": "noon"}]}, r"faults\[0\].at': 'noon'. Must be one of"),
        ({"faults": [{"method": "instances.inster", "at": "hang"}]}, "serves no such method"),
        ({"faults": [{"method": "*", "at": "hang", "often": 1}]}, "'often'. Must be one of method"),
        ({"faults": [{"method": "*", "at": "hang", "times": "1"}]}, "times': '1'. Must be of type"),
        ({"faults": [{"method": "*", "at": "hang", "after": -1}]}, "Must not be negative"),
        ({"faults": [{"method": "*", "at": "request", "status": 200}]}, "0 or within 400 and 599"),
        ({"faults": [{"method": "*", "at": "operation", "status": 0}]}, "Must be within 400"),
    ],
)
def test_a_rule_that_is_wrong_is_refused(body: Any, said: str) -> None:
    with pytest.raises(ApiError, match=said) as caught:
        Faults().replace(body, METHODS)
    assert caught.value.code == 400
