# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the doctor asks Google: each fault there is named, beside all others too, and nothing but reads is asked."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compute_server import TOP, ComputeServer
from gce_modules import IMAGE, Modules, held

from sandbox.server import validate

SPECS = yaml.safe_load((TOP / "roles/burst/meta/argument_specs.yml").read_text())
OPTIONS: dict[str, Any] = SPECS["argument_specs"]["main"]["options"]
ROLE: list[str] = yaml.safe_load((TOP / "docs/iam-role.yaml").read_text())["includedPermissions"]
ASKED = {
    "credentials",
    "project",
    "permissions",
    "machine types",
    "quota",
    "image",
    "network",
}


@pytest.fixture
def server(compute_server: ComputeServer) -> Iterator[ComputeServer]:
    """A server with all that is granted and nothing that is there."""
    yield compute_server
    compute_server.grant(None)
    quotas(compute_server, {})


def quotas(server: ComputeServer, limits: dict[str, dict[str, float]]) -> None:
    """Set the limits that are not the usual ones."""
    data, url = json.dumps(limits).encode(), f"{server.compute_endpoint}/sandbox/quotas"
    urllib.request.urlopen(urllib.request.Request(url, data, method="PUT")).close()


def examined(server: ComputeServer, **changed: Any) -> dict[str, dict[str, Any]]:
    """What the doctor finds, by check; the last finding of each."""
    spec = {
        "burst_project": server.project,
        "burst_zones": ["us-central1-a", "us-central1-b"],
        "burst_hostlist": "b-[1-3]",
        "burst_machine_types": ["n2-standard-4"],
        "burst_image": IMAGE,
        "burst_lead_address": "203.0.113.10",
        "burst_lead_port": 30093,
        "burst_compute_endpoint": server.compute_endpoint,
        "burst_resource_manager_endpoint": server.compute_endpoint,
        **changed,
    }
    given = {"specification": spec, "options": OPTIONS, "permissions": ROLE}
    # To load a service account's key takes as long as all else here.
    token = None if "burst_credentials_file" in changed else server.access_token
    modules = Modules(server, "", access_token=token)
    result = modules.run("burst_doctor_info", **given, leads=["lead"], lead={})
    assert not result.get("failed") and not result["changed"], result
    assert "Traceback" not in json.dumps(result)
    return {row["check"]: row for row in result["findings"]}


def wrong(findings: dict[str, dict[str, Any]]) -> set[str]:
    """The checks that found something; the lead is not there."""
    return {name for name, row in findings.items() if row["ok"] is False} - {"lead"}


def test_nothing_is_wrong_and_nothing_is_made(server: ComputeServer) -> None:
    log = server.state / "requests.jsonl"
    before = len(log.read_text().splitlines())
    findings = examined(server, burst_credentials_file=str(server.credentials_file))
    assert wrong(findings) == set()
    assert {name for name, row in findings.items() if row["ok"]} >= ASKED
    assert findings["lead"]["ok"] is False and findings["flux"]["ok"] is None
    requests = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    changing = [it["path"] for it in requests if it["method"] != "GET"]
    assert set(changing) == {"/token", f"/v1/projects/{server.project}:testIamPermissions"}
    assert held(server) == []
    assert validate.check_log(log) == []


def test_its_role_suffices_for_the_doctor(server: ComputeServer) -> None:
    server.grant(ROLE)
    assert wrong(examined(server)) == set()


@pytest.mark.parametrize(
    ("changed", "check", "said"),
    [
        ({"burst_project": "no-such-project"}, "project", "HTTP 40"),
        ({"burst_compute_endpoint": "http://127.0.0.1:9"}, "project", "Connection refused"),
        ({"burst_machine_types": ["n2-standard-4", "z9-none"]}, "machine types", "z9-none"),
        ({"burst_image": IMAGE.replace("x86", "vax")}, "image", "found none"),
        ({"burst_image": "projects/debian-cloud/global/images/none"}, "image", "found none"),
        ({"burst_subnetwork": "hpc"}, "network", "wanted subnetwork"),
        ({"burst_credentials_file": "/none"}, "specification", "found none at /none"),
    ],
)
def test_what_the_specification_asks_in_vain_is_named(
    server: ComputeServer, changed: dict[str, Any], check: str, said: str
) -> None:
    findings = examined(server, **changed)
    assert wrong(findings) == {check}
    row = findings[check]
    assert said in f"wanted {row['wanted']}, found {row['found']}: {row['remedy']}"
    assert row["remedy"]


def test_credentials_that_google_does_not_take_are_named(
    server: ComputeServer, tmp_path: Path
) -> None:
    broken = tmp_path / "key.json"
    broken.write_text("{}")
    findings = examined(server, burst_credentials_file=str(broken))
    assert wrong(findings) == {"credentials"}
    assert all(findings[name]["ok"] is None for name in ASKED - {"credentials"})


@pytest.mark.parametrize("missing", ["compute.instances.create", "compute.projects.get"])
def test_a_permission_that_is_missing_is_named(server: ComputeServer, missing: str) -> None:
    server.grant([name for name in ROLE if name != missing])
    findings = examined(server)
    assert missing in findings["permissions"]["found"]
    assert "roles/compute." in findings["permissions"]["remedy"]
    assert wrong(findings) == {"permissions"} | ({"project"} if "projects" in missing else set())


def test_where_permissions_cannot_be_asked_for_nothing_is_called_wrong(
    server: ComputeServer,
) -> None:
    findings = examined(server, burst_resource_manager_endpoint="http://127.0.0.1:9")
    assert wrong(findings) == set()
    assert findings["permissions"]["ok"] is None
    assert "cloudresourcemanager" in findings["permissions"]["remedy"]


def test_all_that_is_wrong_is_named_at_once(server: ComputeServer) -> None:
    server.grant([name for name in ROLE if name != "compute.instances.delete"])
    quotas(server, {"us-central1": {"N2_CPUS": 4}})
    findings = examined(
        server,
        burst_machine_types=["n2-standard-4", "z9-none"],
        burst_image=IMAGE.replace("x86", "vax"),
        burst_lead_port=0,
        burst_subnetwork="hpc",
    )
    named = {"specification", "permissions", "machine types", "quota", "image", "network"}
    assert wrong(findings) == named
    assert "wanted 12 N2_CPUS in us-central1, found 4 left of 4" in findings["quota"]["found"]
