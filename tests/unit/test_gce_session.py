# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server answers is told in one line, asked again, or taken for what it says, and never for more."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.flux.burst.plugins.module_utils import (
    _gce_client,
    _gce_refusal,
    _gce_retry,
    _gce_session,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_token import Tokens

AUTH = Auth(access_token="ya29.test")
DONE = {"name": "op-1", "status": "DONE"}
STARTED = _gce_client.Started(
    "op-1", "zone", {"zone": "us-central1-a"}, "create 1 instances", False
)


Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""An HTTP status, 0 for a connection that breaks off, with a body and perhaps headers."""


class Endpoint:
    """A server that gives the answers it was told to, the last one for ever, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.warnings: list[str] = []
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urlsplit(self.path)
                endpoint.asked.append((self.command, url.path, parse_qs(url.query)))
                place = min(len(endpoint.asked), len(endpoint.answers)) - 1
                status, body, *more = endpoint.answers[place]
                if status == 0:
                    self.close_connection = True
                    return
                page = isinstance(body, str)
                data = body.encode() if page else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if page else "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_unused: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def session(self, *answers: Answer) -> _gce_session.GceSession:
        """Return a session that gets these answers."""
        self.answers = list(answers)
        return _gce_session.GceSession(self.url, AUTH)

    def client(self, *answers: Answer) -> _gce_client.GceClient:
        """Return a client that gets these answers."""
        self.answers = list(answers)
        return _gce_client.GceClient("my-project", self.url, AUTH, self.warnings.append)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that takes any token."""
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


EXISTS = refusal(409, "alreadyExists", "It exists")
GONE = refusal(404, "notFound", "The resource was not found")
BROKEN_OFF = (0, None)
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
        (GONE, r"HTTP 404 notFound \(The resource was not found\)"),
        (refusal(403, "forbidden", "no\nmore"), r"HTTP 403 forbidden \(no more\)"),
        ((400, {"error": "invalid_grant"}), r"HTTP 400 \(invalid_grant\)"),
        ((409, {}), r"HTTP 409 \(Conflict\)"),
    ],
)
def test_a_refusal_is_one_line(endpoint: Endpoint, answer: tuple[int, Any], said: str) -> None:
    with pytest.raises(GceError, match=said) as caught:
        endpoint.session(answer).instances("my-project", "t")
    assert caught.value.status == answer[0]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ({"items": []}, "the answer.items is a list, and not an object"),
        ({"items": {"zones/a": {"instances": [{}]}}}, "one of its items has no name"),
        (
            {"items": {"zones/a": {"instances": [{"name": 7}]}}},
            "the answer.items.zones/a.instances[0].name is a whole number, and not a text",
        ),
        ({"items": {}, "nextPageToken": "again"}, "it has no end after 2 pages"),
    ],
)
def test_an_answer_that_is_not_googles_is_told_by_the_field(
    endpoint: Endpoint, page: Any, wrong: str
) -> None:
    with pytest.raises(GceError) as caught:
        endpoint.session((200, page)).instances("my-project", "t", "name")
    assert f"as Google gives it, found that {wrong}: check the endpoint" in str(caught.value)


@pytest.mark.parametrize("body", ["null", "true", '{"status": []}', "<html>"])
@pytest.mark.parametrize("status", [200, 400])
def test_what_googles_library_falls_over_is_one_line(
    endpoint: Endpoint, body: str, status: int
) -> None:
    with pytest.raises(GceError, match="wanted to create 1 instances") as caught:
        endpoint.client((status, body)).wait(STARTED)
    assert str(caught.value).isprintable()


def test_a_list_that_does_not_end_is_given_up(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gce_session, "MOST_PAGES", 3)
    pages: list[Answer] = [(200, {"nextPageToken": str(number)}) for number in range(1, 9)]
    with pytest.raises(GceError, match="it has no end after 3 pages"):
        endpoint.session(*pages).instances("my-project", "t", "name")


def test_a_server_that_is_busy_is_asked_again(endpoint: Endpoint) -> None:
    page = {"items": {"zones/us-central1-a": {"instances": [{"name": "b-001"}]}}}
    session = endpoint.session((502, "<html>"), LATER, (200, page))
    assert session.instances("my-project", "t", "name") == [{"name": "b-001"}]
    assert len(endpoint.asked) == 3


def test_a_connection_that_breaks_off_is_made_again(endpoint: Endpoint) -> None:
    assert endpoint.session(BROKEN_OFF, BROKEN_OFF, (200, {"name": "n"})).get("n") == {"name": "n"}
    assert len(endpoint.asked) == 3


def test_a_server_is_asked_again_when_it_says(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(_gce_retry.time, "sleep", slept.append)
    slow_down = (*refusal(429, "rateLimitExceeded", "Slowly"), {"Retry-After": "7"})
    session = endpoint.session(slow_down, (200, {"name": "n"}))
    assert session.get("n") == {"name": "n"}
    [pause] = slept
    assert 7.1 <= pause <= 7.2


def test_a_read_that_is_forbidden_says_who_lacks_what(endpoint: Endpoint) -> None:
    said = "Required 'compute.instances.list' permission for 'projects/my-project'"
    with pytest.raises(GceError) as caught:
        endpoint.session(refusal(403, "forbidden", said)).instances("my-project", "t")
    assert str(caught.value) == (
        "wanted to read projects/my-project/aggregated/instances from Compute Engine, found HTTP 403 forbidden "
        f"({said}): give the access token that was given compute.instances.list (in roles/compute.viewer)."
    )
    assert caught.value.codes == ("forbidden",)


def test_a_token_that_is_not_taken_is_told(endpoint: Endpoint) -> None:
    with pytest.raises(GceError, match="with the access token that was given, found") as caught:
        endpoint.session(refusal(401, "authError", "Invalid Credentials")).get("n")
    assert caught.value.status == 401
    assert "ya29" not in str(caught.value)


def test_the_machines_of_a_burst_are_one_list_of_every_zone_page_by_page(
    endpoint: Endpoint,
) -> None:
    first = {"items": {"zones/a": {"instances": [{"name": "b-002"}]}, "zones/b": {}}}
    second = {"items": {"zones/b": {"instances": [{"name": "b-001"}]}}}
    session = endpoint.session((200, {**first, "nextPageToken": "2"}), (200, second))
    found = session.instances("my-project", "t", "name")
    assert [it["name"] for it in found] == ["b-001", "b-002"]
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
        (refusal(403, "forbidden", "No permission"), "roles/compute.admin in the project"),
        (
            refusal(403, "ZONE_RESOURCE_POOL_EXHAUSTED", "No more"),
            "us-central1-a has none left",
        ),
        (EXISTS, "HTTP 409 alreadyExists .*: put that right"),
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
    monkeypatch.setattr(_gce_refusal, "RETRY_SECONDS", 0.1)
    with pytest.raises(
        GceError, match=r"wanted to create 1 instances, found HTTP 503 .*Try again.*later"
    ):
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


def test_an_operation_tells_every_error(endpoint: Endpoint) -> None:
    errors = [
        {"code": "QUOTA_EXCEEDED", "message": "CPUS"},
        {"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "No\nmore."},
    ]
    failed = {**DONE, "error": {"errors": errors}, "httpErrorStatusCode": 503}
    found = (
        r"QUOTA_EXCEEDED \(CPUS\); ZONE_RESOURCE_POOL_EXHAUSTED \(No more\): us-central1-a has none"
    )
    with pytest.raises(GceError, match=found) as caught:
        endpoint.client((200, failed)).wait(STARTED)
    assert caught.value.codes == ("QUOTA_EXCEEDED", "ZONE_RESOURCE_POOL_EXHAUSTED")
    assert caught.value.status == 503


def test_what_an_operation_warns_of_is_told(endpoint: Endpoint) -> None:
    warning = {"code": "DEPRECATED_RESOURCE_USED", "message": "The image\nis old"}
    endpoint.client((200, {**DONE, "warnings": [warning]})).wait(STARTED)
    assert endpoint.warnings == [
        "Compute Engine was to create 1 instances and warns: DEPRECATED_RESOURCE_USED (The image is old)"
    ]


NETWORK = {"name": "t-net"}
REQUEST = "11111111-1111-4111-8111-111111111111"


def test_a_repeat_that_meets_what_it_made_itself_has_succeeded(endpoint: Endpoint) -> None:
    own = {**DONE, "targetLink": "https://host/projects/my-project/global/networks/t-net"}
    client = endpoint.client(BROKEN_OFF, EXISTS, (200, {"items": [own]}), (200, own))
    started = client.insert("network", NETWORK, REQUEST)
    client.wait(started)
    assert (started.name, started.target) == ("op-1", "t-net")
    _first, _second, listing, _wait = endpoint.asked
    assert listing[2]["filter"] == [f'clientOperationId = "{REQUEST}"']


def test_a_request_without_an_id_has_no_operation_of_its_own(endpoint: Endpoint) -> None:
    with pytest.raises(GceError, match="found HTTP 409 alreadyExists"):
        endpoint.client(EXISTS).label_image("i", {"labels": {}, "labelFingerprint": "lf"})
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("listing", [(200, {}), refusal(403, "forbidden", "No")])
def test_what_somebody_else_made_is_in_the_way(
    endpoint: Endpoint, listing: tuple[int, Any]
) -> None:
    with pytest.raises(GceError, match="found HTTP 409 alreadyExists") as caught:
        endpoint.client(EXISTS, listing).insert("network", NETWORK, REQUEST)
    assert caught.value.codes == ("alreadyExists",)


@pytest.mark.parametrize(
    ("method", "target", "said", "warned"),
    [
        ("insert", (200, NETWORK), "", 0),
        ("insert", GONE, "gone before it was done and network t-net missing: run again", 0),
        ("delete", GONE, "", 0),
        ("delete", (200, NETWORK), "gone before it was done and network t-net still there", 0),
        ("patch", (200, NETWORK), "", 1),
    ],
)
def test_an_operation_that_vanished_is_judged_by_what_it_was_for(
    endpoint: Endpoint, method: str, target: tuple[int, Any], said: str, warned: int
) -> None:
    started = _gce_client.Started(
        "op-1", "global", {}, f"{method} network", False, "network", "t-net", method
    )
    client = endpoint.client(GONE, target)
    with pytest.raises(GceError, match=said) if said else nullcontext():
        client.wait(started)
    assert len(endpoint.warnings) == warned


def test_siblings_of_what_failed_are_waited_for_and_every_failure_is_told(
    endpoint: Endpoint,
) -> None:
    failed = {**DONE, "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "CPUS"}]}}
    stockout = {**DONE, "error": {"errors": [{"code": "STOCKOUT", "message": "none"}]}}
    client = endpoint.client(
        refusal(403, "forbidden", "No"),
        (200, {**DONE, "name": "op-2"}),
        (200, {**DONE, "name": "op-3"}),
        (200, failed),
        (200, stockout),
    )
    names = ("one", "two", "three")
    with pytest.raises(GceError) as caught:
        client.together(
            lambda name=name: client.insert("network", {"name": name}, REQUEST)  # type: ignore[misc]
            for name in names
        )
    waited = {path.split("/")[-2] for _verb, path, _query in endpoint.asked[3:]}
    assert waited == {"op-2", "op-3"}
    parts = str(caught.value).split(" Also ")
    # They are asked side by side, so who gets which answer is open.
    assert {part.split(", found ")[0] for part in parts} == {
        f"wanted to create network {name}" for name in names
    }
    assert set(caught.value.codes) == {"forbidden", "QUOTA_EXCEEDED", "STOCKOUT"}
    assert caught.value.status == 403


def test_all_are_waited_for_where_one_fails(endpoint: Endpoint) -> None:
    failed = {**DONE, "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "CPUS"}]}}
    client = endpoint.client((200, failed), (200, DONE))
    with pytest.raises(GceError, match="QUOTA_EXCEEDED"):
        client.wait_all([STARTED, STARTED])
    assert len(endpoint.asked) == 2
    client.wait_all([])


def test_deleting_what_is_gone_is_done(endpoint: Endpoint) -> None:
    assert endpoint.client(GONE).delete("instance", "b-001", zone="us-central1-a") is None


def test_deleting_what_may_not_be_deleted_is_told(endpoint: Endpoint) -> None:
    client = endpoint.client(refusal(403, "forbidden", "No"))
    with pytest.raises(GceError, match="wanted to delete instance b-001, found HTTP 403"):
        client.delete("instance", "b-001", zone="us-central1-a")


@pytest.fixture
def quick(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> _gce_session.QuickSession:
    monkeypatch.setenv("FLUX_BURST_ACCESS_TOKEN", "ya29.test")
    return _gce_session.QuickSession(endpoint.url, AUTH, Tokens())


def test_a_quick_read_needs_no_google_auth(
    endpoint: Endpoint, quick: _gce_session.QuickSession
) -> None:
    endpoint.answers = [(200, {"id": "7"})]
    assert quick.get("projects/p/zones/z/instances/n", fields="id") == {"id": "7"}
    assert endpoint.asked == [
        ("GET", "/compute/v1/projects/p/zones/z/instances/n", {"fields": ["id"]})
    ]
    assert "_thorough" not in vars(quick)


def test_a_quick_read_tells_what_is_not_there(
    endpoint: Endpoint, quick: _gce_session.QuickSession
) -> None:
    endpoint.answers = [(404, {"error": {"code": 404, "message": "none"}})]
    assert quick.host_keys("p", "z", "n") == {}
    assert "_thorough" not in vars(quick)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ((503, {}), (200, {"id": "7"}), ""),
        ((0, None), (200, {"id": "7"}), ""),
        ((404, "<html>"), (404, "<html>"), "wanted JSON from Compute Engine"),
        ((403, {}), (403, {"error": {"code": 403, "message": "no"}}), "HTTP 403"),
    ],
)
def test_what_a_quick_read_did_not_get_is_asked_for_again_by_who_can_explain(
    endpoint: Endpoint,
    quick: _gce_session.QuickSession,
    first: Answer,
    second: Answer,
    said: str,
) -> None:
    endpoint.answers = [first, second]
    if said:
        with pytest.raises(GceError, match=said):
            quick.get("projects/p")
    else:
        assert quick.get("projects/p") == {"id": "7"}
    assert len(endpoint.asked) == 2
