# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor in a sandbox with the real Flux: silent on a healthy lead, and every fault that was put there is named.

tests/unit/test_doctor.py has every fault in every pair; here those that can be made for real are there all together.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from burst_sandbox import LEAD, TOP, Run, Sandbox, flux_kinds, running

pytestmark = pytest.mark.machines

ROLE = yaml.safe_load((TOP / "docs/iam-role.yaml").read_text())["includedPermissions"]
CERT = "/etc/flux/system/curve.cert"
IMP = "/usr/libexec/flux/flux-imp"
# Machines share the controller's clock; what Python on the lead takes for it is another.
LATE = "import time; time.time = lambda now=time.time: now() - 600"
FAULTS = f"""
packages=$(/usr/bin/python3 -c 'import site; print(site.getsitepackages()[0])')
mkdir -p "$packages"
echo '{LATE}' > "$packages/late.pth"
systemctl stop munge
chmod 644 /etc/munge/munge.key {CERT}
chmod 755 {IMP}
sed -i 's/^flux:x:1004/flux:x:1999/' /etc/passwd
"""


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with a lead and no burst."""
    with running("doctor", request.param) as made:
        yield made


def put(sandbox: Sandbox, what: str, body: Mapping[str, Any]) -> None:
    """Change what Compute Engine lets the caller do."""
    url = f"{sandbox.env['FLUX_BURST_COMPUTE_ENDPOINT']}/sandbox/{what}"
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
    urllib.request.urlopen(request).close()


def examined(sandbox: Sandbox, folder: Path, *options: str) -> tuple[Run, dict[str, Any]]:
    """Run the doctor; return the run and what it wrote for machines."""
    file = folder / "doctor.json"
    done = sandbox.playbook("doctor", f"-edoctor_json={file}", *options)
    assert "Traceback" not in done.output and done.changed == {}, done.output
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["ok"] is (done.code == 0), done.output
    return done, found


def wrong(found: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong, by check."""
    rows = [row for row in found["findings"] if row["ok"] is False]
    assert all(row["wanted"] and row["remedy"] for row in rows), rows
    return {row["check"]: f"{row['wanted']}: {row['found']}" for row in rows}


def test_a_healthy_lead_is_all_right_and_nothing_is_made(sandbox: Sandbox, tmp_path: Path) -> None:
    before, there = len(sandbox.requests), sandbox.status()["projects"]
    done, found = examined(sandbox, tmp_path)
    assert done.code == 0, done.output
    assert [row for row in found["findings"] if not row["ok"]] == []
    assert "WRONG" not in done.output and "checks are right" in done.output
    asked = [json.loads(line) for line in sandbox.requests[before:]]
    changing = {it["path"] for it in asked if it["method"] != "GET"} - {"/token"}
    assert changing == {"/v1/projects/sandbox-project:testIamPermissions"}
    assert sandbox.status()["projects"] == there


def test_all_that_is_wrong_is_named_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.on_lead("flux", "resource", "drain", "gffw-compute-a-002", "broken fan")
    sandbox.shell(LEAD, FAULTS)
    put(sandbox, "permissions", {"permissions": [it for it in ROLE if "instances.c" not in it]})
    put(sandbox, "quotas", {"us-central1": {"N2_CPUS": 0, "CPUS": 0}})
    there = sandbox.status()["projects"]
    try:
        done, found = examined(
            sandbox,
            tmp_path,
            "-eburst_lead_port=30999",
            "-eburst_hostlist=gffw-compute-a-002,gffw-compute-a-[001,003-004]",
            "-eburst_machine_types=n2-standard-2,z9-none",
            "-eburst_image=projects/sandbox-project/global/images/family/none",
            "-eburst_foundation=All",
        )
    finally:
        put(sandbox, "permissions", {"permissions": None})
        put(sandbox, "quotas", {})
    assert done.code != 0
    told = wrong(found)
    assert set(told) == {
        "specification",
        "clock",
        "munge",
        "munge key",
        "owner",
        "certificate",
        "imp",
        "hosts",
        "order",
        "drained",
        "lead port",
        "permissions",
        "machine types",
        "machine type",
        "quota",
        "image",
    }, done.output
    for check, said in (
        ("specification", "burst_foundation"),
        ("clock", "behind"),
        ("munge", "munge.socket"),
        ("munge key", "0644"),
        ("owner", "uid 1004"),
        ("certificate", "0644"),
        ("imp", "0755"),
        ("hosts", "gffw-compute-a-004"),
        ("order", "gffw-compute-a-002 before gffw-compute-a-001"),
        ("drained", "broken fan"),
        ("lead port", "203.0.113.10:30999"),
        ("permissions", "compute.instances.create"),
        ("machine types", "z9-none"),
        ("machine type", "2 cores"),
        ("quota", "N2_CPUS"),
        ("image", "family/none"),
    ):
        assert said in told[check], (check, told[check])
        assert f"WRONG  {check}" in done.output
    assert sandbox.status()["projects"] == there


def test_a_lead_whose_flux_is_down_is_named_and_the_rest_is_looked_at(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.shell(LEAD, "systemctl stop flux")
    done, found = examined(sandbox, tmp_path)
    told = wrong(found)
    assert {"flux", "clock", "munge", "munge key"} == set(told), done.output
    state = {row["check"]: row["ok"] for row in found["findings"]}
    assert state["version"] is None and state["lead port"] is None
    assert state["quota"] and state["image"] and state["permissions"]


def test_a_lead_that_cannot_be_reached_is_named_and_the_rest_is_looked_at(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    text = (TOP / "inventory/sandbox/hosts.yml").read_text()
    (tmp_path / "hosts.yml").write_text(text.replace(LEAD, "flux-sample-9"))
    (tmp_path / "group_vars").symlink_to(TOP / "inventory/sandbox/group_vars")
    done, found = examined(sandbox, tmp_path, "-i", str(tmp_path / "hosts.yml"))
    assert set(wrong(found)) == {"lead"}, done.output
    assert "flux-sample-9" in wrong(found)["lead"]
    state = {row["check"]: row["ok"] for row in found["findings"]}
    assert state["munge"] is None and state["quota"] is True
