# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lead in GKE as a user has it, step by step in one sandbox: the tests of this module run in their order.

Lead -> again -> other leads in check mode -> a burst from it -> teardown -> no lead.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from burst_sandbox import LEAD, Run, Sandbox, sandbox_name, succeeded

pytestmark = [pytest.mark.machines, pytest.mark.slow]

URI = "local:///mnt/flux/config/run/flux/local"
HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
INVENTORY = ("-i", "inventory/gke", "-e", "@sandbox/lead_gke.yml")


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
        pod = self.kubectl("get", "pods", "-l", "job-index=0", "-o", "name").strip()
        command = ["runuser", "-u", "flux", "--", "env", f"FLUX_URI={URI}", *words]
        return self.kubectl("exec", pod, "-c", "flux-sample", "--", *command).strip()

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
    assert made.changed == {"localhost": 8}
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
OTHER_LEAD = {
    "lead_gke_minicluster": "second",
    "lead_gke_namespace": "hpc",
    "lead_gke_size": 1,
    "lead_gke_max_size": 3,
    "lead_gke_address": "internal",
    "lead_gke_timeout": 60,
}


def test_check_mode_shows_what_the_options_say_and_makes_nothing(lead: Lead) -> None:
    before = lead.holdings()
    endpoint = lead.sandbox.env["FLUX_BURST_CONTAINER_ENDPOINT"].replace("127.0.0.1", "localhost")
    given = {**OTHER_CLUSTER, "lead_gke_container_endpoint": endpoint}
    other = lead.playbook("lead_gke", "--check", "--diff", "-e", json.dumps(given)).output
    shown = ["initialNodeCount: 7", "n2-standard-8", "hpc-net", "hpc-subnet", "hpc-team"]
    for text in [*shown, "cluster other", "lead@my-project", "203.0.113.77/32"]:
        assert text in other
    given = {**OTHER_LEAD, "lead_gke_kubeconfig": str(lead.kubeconfig)}
    second = lead.playbook("lead_gke", "--check", "--diff", "-e", json.dumps(given)).output
    for text in ("namespace: hpc", "second-[0-2],gffw-compute-a-[001-003]", "maxSize: 3"):
        assert text in second
    assert lead.holdings() == before
    assert "second" not in lead.kubectl("get", "miniclusters", "--all-namespaces")


def test_a_burst_from_the_pod_ends_as_the_one_by_hand(lead: Lead) -> None:
    job = lead.flux("flux", "submit", "-N", "5", "--cwd", "/tmp", "--setattr=burstable", "hostname")
    lead.playbook("burst")
    output = lead.flux("timeout", "-k", "5", "60", "flux", "job", "attach", job)
    assert sorted(output.split()) == ["flux-sample-0", "flux-sample-1", *HOSTS]
    rows = [line.split() for line in lead.flux("flux", "resource", "list").splitlines()]
    assert ["free", "5", "flux-sample-[0-1],gffw-compute-a-[001-003]"] in [
        [row[0], row[1], row[-1]] for row in rows
    ]


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
