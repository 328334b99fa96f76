# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller that was killed leaves behind is found and mended from labels, ranks and claims alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from burst_sandbox import LEAD, PREPARED, Run, Sandbox, bursting, flux_kinds, submit, succeeded

pytestmark = pytest.mark.machines

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
# As when all that it finds is old.
AT_ONCE = ("-e", "burst_reconcile_patience=0")


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def burst(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A burst of three machines."""
    with bursting("mend", request.param) as made:
        yield made


def reconcile(burst: Sandbox, *options: str) -> Run:
    """Run the playbook, which has to succeed."""
    return succeeded(burst.playbook("reconcile", *options))


def said(done: Run) -> str:
    """What a run printed, without the breaks of its lines."""
    return " ".join(done.output.split())


def lose(burst: Sandbox, *hosts: str) -> None:
    """Delete machines behind Flux's back."""
    arguments = {
        "state": "absent",
        "burst": "flux-burst",
        "hosts": hosts,
        "project": "sandbox-project",
        "credentials_file": str(burst.state / "credentials.json"),
    }
    words = ("localhost", "-m", "flux.burst.gce_instances", "-a", json.dumps(arguments))
    succeeded(burst.run("ansible", *words))


def machines(burst: Sandbox) -> list[str]:
    """The machines that are there."""
    found = burst.status()["projects"]["sandbox-project"]["instances"]
    return sorted(row["name"] for row in found)


def test_a_burst_that_serves_is_left_alone(burst: Sandbox) -> None:
    done = reconcile(burst, *AT_ONCE)
    assert "nothing is amiss" in said(done)
    assert done.changed == {}


def test_a_machine_whose_broker_is_gone_and_a_rank_whose_machine_is_are_reported_by_a_check(
    burst: Sandbox,
) -> None:
    succeeded(burst.execute(HOSTS[1], "systemctl", "stop", "flux"))
    reason = ("flux.burst", "teardown", "of", "flux-burst")
    succeeded(burst.on_lead("flux", "resource", "drain", HOSTS[0], *reason))
    lose(burst, HOSTS[0])
    done = reconcile(burst, *AT_ONCE, "--check")
    assert f"instance {HOSTS[1]}: its broker has been gone for" in said(done)
    assert f"rank {HOSTS[0]}: drained ({' '.join(reason)}), and the machine is gone" in said(done)
    assert HOSTS[2] not in done.output
    assert machines(burst) == HOSTS[1:]
    assert HOSTS[0] in drained(burst)


def test_what_is_young_is_left_alone(burst: Sandbox) -> None:
    done = reconcile(burst, "--check")
    assert f"instance {HOSTS[1]}" not in done.output
    assert f"rank {HOSTS[0]}" in said(done)


def drained(burst: Sandbox) -> str:
    """The hosts that are drained."""
    return succeeded(burst.on_lead("flux", "resource", "drain", "-o", "{nodelist}")).output


def test_they_are_mended_and_the_other_machine_serves_on(burst: Sandbox) -> None:
    done = reconcile(burst, *AT_ONCE)
    assert done.changed == {LEAD: 2, "localhost": 1}
    assert machines(burst) == [HOSTS[2]]
    assert HOSTS[0] not in drained(burst)
    again = reconcile(burst, *AT_ONCE)
    assert "nothing is amiss" in again.output
    assert again.changed == {}


def test_while_another_controller_is_at_work_nothing_is_done(burst: Sandbox) -> None:
    other = "root@login2:4711"
    entry = {"t": 1.0, "burst": other, "until": 4e9}
    text = f"burst.locks.flux-burst={json.dumps(entry)}\n"
    succeeded(burst.on_lead("flux", "kvs", "put", "--raw", text))
    for name in ("burst", "reconcile", "teardown"):
        refused = burst.playbook(name)
        assert refused.code != 0
        assert f"set burst_take_over to {other}." in said(refused)
        assert refused.changed == {}
    assert machines(burst) == [HOSTS[2]]
    succeeded(burst.playbook("reconcile", "-e", f"burst_take_over={other}"))
    assert "nothing is amiss" in said(reconcile(burst))


def test_a_burst_whose_machines_are_all_gone_leaves_nothing(burst: Sandbox) -> None:
    job = submit(burst, "-N", "4")
    claim = {"burst": "flux-burst", "jobs": [job], "ttl": 3600}
    words = ("flux_lead", "-b", "-m", "flux.burst.flux_job_claim", "-a", json.dumps(claim))
    succeeded(burst.run("ansible", *words))
    lose(burst, HOSTS[2])
    done = reconcile(burst, *AT_ONCE)
    assert re.search(r"claim f\w+: claimed \d+ s ago, and the burst has no machine:", said(done))
    host = rf"claim {HOSTS[2]}: claimed \d+ s ago, and the burst has no such machine:"
    assert re.search(host, said(done))
    found = burst.status()["projects"]["sandbox-project"]
    assert not any(found.values()), found
    again = reconcile(burst, *AT_ONCE)
    assert "nothing is amiss" in again.output
    assert again.changed == {}
    plan = succeeded(burst.playbook("burst", "--check", *PREPARED))
    assert "burst 3 machines" in plan.output
