# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lead in GKE as a user has it, step by step in one sandbox: the tests of this module run in their order.

Lead -> again -> what else options say -> a burst from it -> teardown -> no lead.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from burst_sandbox import Run, Sandbox, sandbox_name, succeeded

pytestmark = [pytest.mark.machines, pytest.mark.slow]

URI = "local:///mnt/flux/config/run/flux/local"
HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
LEAD = "flux-hpc-0"
# One pod, of two that there may be, in a namespace that has to be made.
OPTIONS = {
    "lead_gke_minicluster": "flux-hpc",
    "lead_gke_namespace": "hpc",
    "lead_gke_size": 1,
    "lead_gke_max_size": 2,
    "lead_gke_timeout": 120,
}
INVENTORY = ("-i", "inventory/gke", "-e", "@sandbox/lead_gke.yml", "-e", json.dumps(OPTIONS))


class Lead:
    """A sandbox whose lead is a pod."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.kubeconfig = sandbox.state / "bursts" / "kubeconfig-flux-cluster"

    def playbook(self, name: str, *options: str) -> Run:
        """Run a playbook that has to succeed, with the inventory of a lead in GKE."""
        return succeeded(self.sandbox.playbook(name, *INVENTORY, *options))

    def kubectl(self, *words: str) -> str:
        """Return what kubectl prints."""
        return succeeded(
            self.sandbox.run("kubectl", "--kubeconfig", str(self.kubeconfig), *words)
        ).output

    def flux(self, *words: str) -> str:
        """Return what a command prints that runs as the instance's owner in the lead's container."""
        pod = self.kubectl("get", "pods", "-n", "hpc", "-l", "job-index=0", "-o", "name").strip()
        command = ["runuser", "-u", "flux", "--", "env", f"FLUX_URI={URI}", *words]
        return self.kubectl("exec", "-n", "hpc", pod, "-c", "flux-hpc", "--", *command).strip()

    def holdings(self) -> dict[str, list[Any]]:
        """What the project holds beside the network that every project has."""
        found = self.sandbox.status()["projects"].get("sandbox-project", {})
        return {
            kind: names
            for kind, rows in found.items()
            if (names := [it for it in rows if "default" not in str(it)])
        }


@pytest.fixture(scope="module")
def lead() -> Iterator[Lead]:
    """A sandbox without a lead, with the real Flux where there is one."""
    flux = "real" if shutil.which("flux") else "standin"
    made = Sandbox(sandbox_name("gke"), flux)
    made.command("down")
    try:
        done = succeeded(made.command("up", "--flux", flux, "--latency", "none", "--lead", "gke"))
        assert "Compute Engine" in done.output
        made.env |= made.exports()
        yield Lead(made)
    finally:
        made.command("down")


def test_a_lead_is_made_and_a_second_run_changes_nothing(lead: Lead) -> None:
    made = lead.playbook("lead_gke")
    assert made.changed == {"localhost": 9}
    assert re.search(r"a burst\s+reaches\s+it\s+at\s+203\.0\.113\.1\d:30093", made.output)
    assert stat.S_IMODE(lead.kubeconfig.stat().st_mode) == 0o600
    token = (lead.sandbox.state / "access_token").read_text()
    assert token not in lead.kubeconfig.read_text()
    assert "private_key" not in lead.kubeconfig.read_text()
    again = lead.playbook("lead_gke")
    assert (again.changed, set(again.recap)) == ({}, {"localhost", LEAD})


OTHER_CLUSTER = {
    "burst_name": "other-burst",
    "lead_gke_cluster": "other",
    "lead_gke_location": "us-central1-b",
    "lead_gke_nodes": 7,
    "lead_gke_machine_type": "n2-standard-8",
    "lead_gke_network": "hpc-net",
    "lead_gke_subnetwork": "hpc-subnet",
    "lead_gke_service_account": "lead@my-project.iam.gserviceaccount.com",
    "lead_gke_labels": {"team": "hpc-team"},
    "lead_gke_source_ranges": ["203.0.113.77"],
}


def test_check_mode_shows_what_the_options_say_and_makes_nothing(lead: Lead) -> None:
    before = lead.holdings()
    endpoint = lead.sandbox.env["FLUX_BURST_CONTAINER_ENDPOINT"].replace("127.0.0.1", "localhost")
    given = {**OTHER_CLUSTER, "lead_gke_container_endpoint": endpoint}
    other = lead.playbook("lead_gke", "--check", "--diff", "-e", json.dumps(given)).output
    shown = ["initialNodeCount: 7", "n2-standard-8", "hpc-net", "hpc-subnet", "hpc-team"]
    for text in [*shown, "cluster other", "lead@my-project", "203.0.113.77/32"]:
        assert text in other
    assert lead.holdings() == before


def test_the_inventory_finds_the_lead_by_another_s_kubeconfig_and_inside_the_vpc(
    lead: Lead,
) -> None:
    given = {"lead_gke_address": "internal", "lead_gke_kubeconfig": str(lead.kubeconfig)}
    words = ["ansible-inventory", *INVENTORY, "-e", json.dumps(given), "--host", LEAD]
    found = json.loads(succeeded(lead.sandbox.run(*words)).output)
    assert found["gke_lead_address"].startswith("10.128.0.")
    assert found["ansible_kubectl_pod"].startswith(LEAD)


def test_hosts_that_the_lead_does_not_expect_are_refused(lead: Lead) -> None:
    given = {"burst_hostlist": "gffw-compute-a-001", "lead_gke_operator_manifest": ""}
    options = ("-e", json.dumps(given), "-e", f"lead_gke_kubeconfig={lead.kubeconfig}")
    done = lead.sandbox.playbook("lead_gke", *INVENTORY, *options)
    assert done.code != 0
    said = " ".join(done.output.split())
    assert "wanted bursting.hostlist flux-hpc-[0-1],gffw-compute-a-001, found flux-hpc-" in said
    assert "which cannot be changed while it exists" in said


def test_a_burst_from_the_pod_ends_as_the_one_by_hand(lead: Lead) -> None:
    job = lead.flux("flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname")
    lead.playbook("burst")
    output = lead.flux("timeout", "-k", "5", "60", "flux", "job", "attach", job)
    assert sorted(output.split()) == [LEAD, *HOSTS]
    rows = [line.split() for line in lead.flux("flux", "resource", "list").splitlines()]
    shown = [[row[0], row[1], row[-1]] for row in rows]
    assert ["free", "4", f"{LEAD},gffw-compute-a-[001-003]"] in shown
    assert ["down", "1", "flux-hpc-1"] in shown


def test_the_teardowns_leave_nothing(lead: Lead) -> None:
    lead.playbook("teardown")
    refused = lead.sandbox.playbook(
        "lead_gke_teardown", *INVENTORY, "-e", "lead_gke_delete_cluster=another"
    )
    assert refused.code != 0
    assert "wanted flux-cluster, which lead_gke_cluster names" in refused.output
    assert "flux-cluster-default-pool" in lead.kubectl("get", "nodes")
    lead.playbook("lead_gke_teardown", "-e", "lead_gke_delete_cluster=flux-cluster")
    assert lead.holdings() == {}
    assert not lead.kubeconfig.exists()
