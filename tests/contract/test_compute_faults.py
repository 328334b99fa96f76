# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults are set over HTTP, and arrive at clients as Compute Engine's own would."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from compute_server import ComputeServer

from sandbox import cli, lifecycle
from sandbox.server import validate

NETWORK = {"name": "f-net", "autoCreateSubnetworks": False}


@pytest.fixture(autouse=True)
def healthy(compute_server: ComputeServer) -> Iterator[None]:
    """Leave no faults behind."""
    yield
    compute_server.faults()


@pytest.fixture
def running(compute_server: ComputeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line find this server."""
    port = int(compute_server.compute_endpoint.rpartition(":")[2])
    sandbox = lifecycle.Sandbox("t", port, 0, 0, "records", "none", "standin", "", 0, 0)
    monkeypatch.setattr(cli, "_running", lambda _unused: sandbox)


def faults(server: ComputeServer, verb: str) -> list[dict[str, Any]]:
    """Ask about the faults."""
    request = urllib.request.Request(f"{server.compute_endpoint}/sandbox/faults", method=verb)
    with urllib.request.urlopen(request) as answer:
        found: list[dict[str, Any]] = json.load(answer)["faults"]
    return found


def test_faults_are_shown_until_they_are_dropped(compute_server: ComputeServer) -> None:
    compute_server.faults({"method": "zones.*", "at": "request", "times": 1})
    assert compute_server.call("GET", "zones")[0] == 503
    [shown] = faults(compute_server, "GET")
    assert (shown["method"], shown["seen"], shown["fired"]) == ("zones.*", 1, 1)
    assert faults(compute_server, "DELETE") == []
    assert compute_server.call("GET", "zones")[0] == 200


def test_a_rule_that_is_wrong_is_told(compute_server: ComputeServer) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        compute_server.faults({"method": "zones.lost", "at": "request"})
    error = json.load(caught.value)["error"]
    assert caught.value.code == error["code"] == 400
    assert "serves no such method" in error["message"]


def test_the_command_line_sets_shows_and_drops_them(
    compute_server: ComputeServer, running: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = '[{"method": "zones.list", "at": "request"}]'
    file = compute_server.state / "faults.json"
    file.write_text(rules)
    for words in ([rules], [str(file)], []):
        assert cli.main(["faults", *words]) == 0
        assert json.loads(capsys.readouterr().out)[0]["method"] == "zones.list"
    assert cli.main(["faults", "[]"]) == 0
    assert capsys.readouterr().out == "[]\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nowhere.json", "found 'nowhere.json' ("),
        ("[", "found '[' ("),
        ('[{"method": "*", "at": "noon"}]', "Must be one of request, answer"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_them(
    running: None, capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert cli.main(["faults", words]) == 1
    assert said in capsys.readouterr().err


def test_a_refusal_says_when_to_come_back(compute_server: ComputeServer) -> None:
    compute_server.faults({"method": "*", "at": "request", "status": 429, "retry_after": 7})
    url = f"{compute_server.compute_endpoint}/compute/v1/projects/{compute_server.project}/zones"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url)
    assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "7")
    caught.value.close()


def test_a_connection_is_closed_without_an_answer(compute_server: ComputeServer) -> None:
    compute_server.faults({"method": "zones.list", "at": "request", "status": 0, "times": 1})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        compute_server.call("GET", "zones")
    assert compute_server.call("GET", "zones")[0] == 200


def test_what_faults_answer_is_as_google_answers(compute_server: ComputeServer) -> None:
    warning = {"method": "networks.insert", "at": "warning", "message": "slow"}
    failure = {
        "method": "networks.delete",
        "at": "operation",
        "status": 403,
        "code": "QUOTA_EXCEEDED",
    }
    lost = {"method": "networks.get", "at": "answer", "status": 0, "times": 1}
    compute_server.faults(warning, failure, lost)
    assert compute_server.done("POST", "global/networks", NETWORK)["warnings"]
    assert compute_server.done("DELETE", "global/networks/f-net")["error"]
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        compute_server.call("GET", "global/networks/f-net")
    compute_server.faults()
    assert "error" not in compute_server.done("DELETE", "global/networks/f-net")
    assert validate.check_log(compute_server.state / "requests.jsonl") == []
