# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server answers is told in one line, asked again, or taken for what it says, and never for more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_client, _gce_session
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from google.auth.credentials import AnonymousCredentials

DONE = {"name": "op-1", "status": "DONE"}
STARTED = _gce_client.Started(
    "op-1", "zone", {"zone": "us-central1-a"}, "create 1 instances", False
)


class Endpoint:
    """A server that gives the answers it was told to, the last one for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urlsplit(self.path)
                endpoint.asked.append((self.command, url.path, parse_qs(url.query)))
                status, body = endpoint.answers[min(len(endpoint.asked), len(endpoint.answers)) - 1]
                page = isinstance(body, str)
                data = body.encode() if page else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if page else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_unused: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def session(self, *answers: tuple[int, Any]) -> _gce_session.GceSession:
        """Return a session that gets these answers."""
        self.answers = list(answers)
        return _gce_session.GceSession(self.url, None)

    def client(self, *answers: tuple[int, Any]) -> _gce_client.GceClient:
        """Return a client that gets these answers."""
        self.answers = list(answers)
        return _gce_client.GceClient("my-project", self.url, None)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A server that no credentials are needed for."""
    for module in (_gce_session, _gce_client):
        monkeypatch.setattr(module, "credentials", lambda _unused: AnonymousCredentials())
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def refusal(status: int, reason: str, message: str) -> tuple[int, Any]:
    """Return an error as Compute Engine says it."""
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return status, {"error": {"code": status, "message": message, "errors": errors}}


GONE = refusal(404, "notFound", "The resource was not found")
LATER = refusal(503, "backendError", "Try again")


@pytest.mark.parametrize("status", [200, 302, 404])
@pytest.mark.parametrize("page", ["<html>proxy</html>", "", "[]"])
def test_a_page_does_not_pass_for_nothing_there(endpoint: Endpoint, status: int, page: str) -> None:
    session = endpoint.session((status, page))
    with pytest.raises(GceError, match=f"wanted JSON .* HTTP {status} with text/html") as caught:
        session.instances("my-project", "t")
    assert caught.value.status == 0
    with pytest.raises(GceError):
        session.host_keys("my-project", "us-central1-a", "b-001")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (GONE, r"HTTP 404 \(The resource was not found\)"),
        (refusal(403, "forbidden", "no\nmore"), r"HTTP 403 \(no more\)"),
        ((400, {"error": "invalid_grant"}), r"HTTP 400 \(invalid_grant\)"),
        ((409, {}), r"HTTP 409 \(Conflict\)"),
    ],
)
def test_a_refusal_is_one_line(endpoint: Endpoint, answer: tuple[int, Any], said: str) -> None:
    with pytest.raises(GceError, match=said) as caught:
        endpoint.session(answer).instances("my-project", "t")
    assert caught.value.status == answer[0]
    assert "\n" not in str(caught.value)


def test_a_server_that_is_busy_is_asked_again(endpoint: Endpoint) -> None:
    page = {"items": {"zones/us-central1-a": {"instances": [{"name": "b-001"}]}}}
    session = endpoint.session((502, "<html>"), LATER, (200, page))
    assert session.instances("my-project", "t") == [{"name": "b-001"}]
    assert len(endpoint.asked) == 3


def test_the_machines_of_a_burst_are_one_list_of_every_zone_page_by_page(
    endpoint: Endpoint,
) -> None:
    first = {"items": {"zones/a": {"instances": [{"name": "b-002"}]}, "zones/b": {}}}
    second = {"items": {"zones/b": {"instances": [{"name": "b-001"}]}}}
    session = endpoint.session((200, {**first, "nextPageToken": "2"}), (200, second))
    assert [it["name"] for it in session.instances("my-project", "t")] == ["b-001", "b-002"]
    assert [path for _verb, path, _query in endpoint.asked] == [
        "/compute/v1/projects/my-project/aggregated/instances"
    ] * 2
    queries = [query for _verb, _path, query in endpoint.asked]
    assert [query["filter"] for query in queries] == [["labels.flux-burst=t"]] * 2
    assert [query.get("pageToken") for query in queries] == [None, ["2"]]


@pytest.mark.parametrize(
    ("answer", "keys"),
    [
        (GONE, {}),
        ((200, {"queryPath": "hostkeys/"}), {}),
        (
            (200, {"queryValue": {"items": [{"key": "ssh-ed25519", "value": "AAAA"}]}}),
            {"ssh-ed25519": "AAAA"},
        ),
    ],
)
def test_host_keys_are_none_until_they_are_published(
    endpoint: Endpoint, answer: tuple[int, Any], keys: dict[str, str]
) -> None:
    assert endpoint.session(answer).host_keys("my-project", "us-central1-a", "b-001") == keys


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusal(403, "quotaExceeded", "Quota CPUS exceeded"), "raise the quota"),
        (refusal(403, "forbidden", "No permission"), "give the credentials roles/compute.admin"),
        (
            refusal(403, "ZONE_RESOURCE_POOL_EXHAUSTED", "No more"),
            "us-central1-a has none left",
        ),
        (refusal(409, "alreadyExists", "It exists"), "HTTP 409 alreadyExists .*: put that right"),
    ],
)
def test_a_creation_that_is_refused_says_what_to_do(
    endpoint: Endpoint, answer: tuple[int, Any], said: str
) -> None:
    client = endpoint.client(answer)
    with pytest.raises(GceError, match=f"^wanted to create 2 instances .*{said}") as caught:
        client.bulk_insert({"count": "2"}, "11111111-1111-4111-8111-111111111111", "us-central1-a")
    assert caught.value.status == answer[0]


def test_a_change_that_is_sent_again_is_the_same_request(endpoint: Endpoint) -> None:
    client = endpoint.client(LATER, refusal(429, "rateLimitExceeded", "Slowly"), (200, DONE))
    client.set_labels("b-001", {"labels": {}, "labelFingerprint": "lf"}, "us-central1-a")
    client.set_labels("b-001", {"labels": {}, "labelFingerprint": "lf"}, "us-central1-a")
    ids = [query["requestId"] for _verb, _path, query in endpoint.asked]
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_a_wait_outlives_a_server_that_is_busy(endpoint: Endpoint) -> None:
    endpoint.client(LATER, (200, {**DONE, "status": "RUNNING"}), (200, DONE)).wait(STARTED)
    assert len(endpoint.asked) == 3


def test_a_server_that_stays_busy_is_told(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gce_client, "RETRY_SECONDS", 0.1)
    with pytest.raises(GceError, match=r"wanted to create 1 instances, found '503 .*Try again"):
        endpoint.client(LATER).wait(STARTED)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            {"error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "CPUS"}]}},
            r"QUOTA_EXCEEDED \(CPUS\): raise the quota",
        ),
        (
            {"httpErrorStatusCode": 412, "httpErrorMessage": "PRECONDITION FAILED"},
            r"HTTP 412 \(PRECONDITION FAILED\)",
        ),
    ],
)
def test_an_operation_that_failed_does_not_pass_for_done(
    endpoint: Endpoint, failure: dict[str, Any], said: str
) -> None:
    with pytest.raises(GceError, match=f"wanted to create 1 instances, found {said}"):
        endpoint.client((200, {**DONE, **failure})).wait(STARTED)


def test_deleting_what_is_gone_is_done(endpoint: Endpoint) -> None:
    assert endpoint.client(GONE).delete("instance", "b-001", zone="us-central1-a") is None


def test_deleting_what_may_not_be_deleted_is_told(endpoint: Endpoint) -> None:
    client = endpoint.client(refusal(403, "forbidden", "No"))
    with pytest.raises(GceError, match="wanted to delete instance b-001, found HTTP 403"):
        client.delete("instance", "b-001", zone="us-central1-a")
