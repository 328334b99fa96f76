# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key is in an account's OS Login profile until it is over or taken out, by one key operation each."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from compute_server import ComputeServer
from gce_modules import KEY, Modules

ACCOUNT = "burst@sandbox-project.iam.gserviceaccount.com"


@pytest.fixture
def login(compute_server: ComputeServer, tmp_path: Path) -> Any:
    """Run the module on a public key of the test's own."""
    modules, file = Modules(compute_server, ""), tmp_path / "key.pub"
    file.write_text(f"{KEY.split()[0]} AAAA{tmp_path.name.encode().hex()} burst\n")

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"public_key_file": str(file), "os_login_endpoint": compute_server.compute_endpoint}
        return modules.run("gce_os_login", check=check, **{**given, **options})

    return run


def operations(server: ComputeServer) -> list[dict[str, Any]]:
    """The key operations so far, from the request log."""
    lines = (server.state / "requests.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if '"/v1/users/' in line]
    return [row for row in rows if row["method"] != "GET"]


def test_check_mode_create_again_renew_delete_again(
    login: Any, compute_server: ComputeServer
) -> None:
    before = len(operations(compute_server))
    assert login(check=True)["changed"]
    made = login()
    assert made["changed"]
    assert made["account"] == ACCOUNT
    assert made["username"].startswith("sa_")
    assert abs(made["expires"] - time.time() - 4 * 3600) < 60
    assert not login()["changed"]
    assert not login(valid_for="7h")["changed"], "it has more than half of that left"
    longer = login(valid_for="1d")
    assert [it["action"] for it in longer["resources"]] == ["update"]
    assert abs(longer["expires"] - time.time() - 24 * 3600) < 60
    assert login(state="absent", check=True)["changed"]
    assert login(state="absent")["changed"]
    gone = login(state="absent")
    assert (gone["changed"], gone["expires"]) == (False, 0)
    methods = [row["method"] for row in operations(compute_server)[before:]]
    assert methods == ["POST", "POST", "DELETE"], "one operation for each change"


def test_what_is_wrong_is_told_in_one_line(login: Any, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    for options, said in (
        ({"account": "other@example.com"}, "The caller does not have permission"),
        ({"public_key_file": str(tmp_path / "none")}, "found no file"),
        ({"public_key_file": str(private)}, f"wanted a public key in {private}, found none"),
        ({"valid_for": "long"}, "valid_for: wanted a number with s, m, h or d"),
        ({"os_login_endpoint": "http://127.0.0.1:9"}, "an answer from OS Login"),
    ):
        failed = login(**options)
        assert failed.get("failed"), said
        assert said in failed["msg"]
        assert "\n" not in failed["msg"]
    assert not login(public_key_file=str(tmp_path / "none"), state="absent")["changed"]


@pytest.mark.skipif(not find_spec("googleapiclient"), reason="no discovery documents")
def test_requests_and_answers_are_google_s(login: Any, compute_server: ComputeServer) -> None:
    import googleapiclient

    login()
    top = Path(googleapiclient.__path__[0]) / "discovery_cache/documents/oslogin.v1.json"
    document = json.loads(top.read_text())
    method = document["resources"]["users"]["methods"]["importSshPublicKey"]
    assert (method["httpMethod"], method["flatPath"]) == (
        "POST",
        "v1/users/{usersId}:importSshPublicKey",
    )
    row = operations(compute_server)[-1]
    assert row["path"] == f"/v1/users/{ACCOUNT}:importSshPublicKey"
    assert set(row["query"]) <= set(method["parameters"])
    schemas = {name: set(it["properties"]) for name, it in document["schemas"].items()}
    assert set(row["request"]) <= schemas[method["request"]["$ref"]]
    assert set(row["response"]) <= schemas[method["response"]["$ref"]]
    profile = row["response"]["loginProfile"]
    assert set(profile) <= schemas["LoginProfile"]
    assert set(profile["posixAccounts"][0]) <= schemas["PosixAccount"]
    for key in profile["sshPublicKeys"].values():
        assert set(key) <= schemas["SshPublicKey"]
