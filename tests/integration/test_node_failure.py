# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of machines that fail, by burst_on_node_failure, with the real Flux: in their order, in one sandbox.

fail is the default, and tests/integration/test_faults.py sees it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from burst_sandbox import LEAD, PREPARED, Run, Sandbox, bursting, flux_kinds, submit, succeeded

pytestmark = pytest.mark.machines

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
IMP = "/usr/libexec/flux/flux-imp"
# A user that still runs something is not removed.
NO_USER = "systemctl stop flux; for n in 1 2 3 4 5; do userdel flux && exit; sleep 1; done; exit 1"
NO_SECURITY = "rm /etc/flux/security/conf.d/*; systemctl restart flux || true"
# Connections that are open would go on.
NO_SSH = """
systemctl stop ssh flux
for name in /proc/[0-9]*/comm; do
  test "$(cat $name 2>/dev/null)" != sshd || kill $(basename $(dirname $name)) || true
done
"""
NO_MUNGE = "chmod a-x /usr/sbin/munged; systemctl stop munge"


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def burst(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A burst of three machines with the real Flux."""
    with bursting("policy", request.param) as made:
        yield made


def run(sandbox: Sandbox, policy: str, *options: str) -> Run:
    """Burst with a policy."""
    given = (*PREPARED, "-e", f"burst_on_node_failure={policy}")
    return sandbox.playbook("burst", *given, *options)


def at_the_end(done: Run) -> str:
    """The last failure, before the recap."""
    return done.output[done.output.rindex("fatal: ") : done.output.rindex("PLAY RECAP")]


def machines(sandbox: Sandbox) -> dict[str, str]:
    """The burst's machines by name, each with what it alone has."""
    found = sandbox.status()["projects"]["sandbox-project"]["instances"]
    words = ("cat", "/etc/machine-id")
    return {row["name"]: succeeded(sandbox.execute(row["name"], *words)).output for row in found}


def free(sandbox: Sandbox) -> str:
    """The bursted hosts that are free."""
    words = (
        "flux",
        "resource",
        "list",
        "-n",
        "-s",
        "free",
        "-i",
        ",".join(HOSTS),
        "-o",
        "{nodelist}",
    )
    return succeeded(sandbox.on_lead(*words)).output.strip()


def test_machines_are_repaired_where_they_can_be(burst: Sandbox) -> None:
    before = machines(burst)
    burst.shell(HOSTS[0], NO_SECURITY)
    burst.shell(HOSTS[1], NO_USER)
    done = succeeded(run(burst, "repair"))
    assert f"{HOSTS[0]}: stage security: " in done.output
    assert f"{HOSTS[1]}: stage base: wanted user flux, found none: " in done.output
    assert set(done.changed) == {HOSTS[0], HOSTS[1], LEAD}, "the third was left in peace"
    assert machines(burst) == before
    assert free(burst) == "gffw-compute-a-[001-003]"


def test_a_machine_that_a_repair_does_not_help_fails_the_run_and_names_it(burst: Sandbox) -> None:
    burst.shell(HOSTS[2], NO_MUNGE)
    done = run(burst, "repair")
    assert done.code != 0
    told = at_the_end(done)
    assert f"{HOSTS[2]}: stage munge: " in told, told
    assert HOSTS[0] not in told
    assert "Traceback" not in done.output


def test_machines_are_replaced_and_no_other_is_touched(burst: Sandbox) -> None:
    before = machines(burst)
    burst.shell(HOSTS[0], f"rm {IMP}")
    burst.shell(HOSTS[2], NO_SSH)
    done = succeeded(run(burst, "replace"))
    assert f"{HOSTS[0]}: stage base: wanted {IMP}, found none: " in done.output
    assert f"{HOSTS[2]}: stage tunnel: " in done.output
    assert HOSTS[1] not in done.changed
    after = machines(burst)
    assert {name for name in HOSTS if before[name] == after[name]} == {HOSTS[1]}
    assert free(burst) == "gffw-compute-a-[001-003]"
    assert succeeded(run(burst, "replace")).changed == {}


def test_a_machine_is_left_out_and_the_jobs_that_no_longer_fit_are_given_back(
    burst: Sandbox,
) -> None:
    # The first node lets neither job start before its machine has been looked at.
    succeeded(burst.on_lead("flux", "resource", "drain", "flux-sample-1"))
    submitted = {size: submit(burst, "-N", size) for size in ("4", "3")}
    burst.shell(HOSTS[2], f"chmod 755 {IMP}; systemctl stop flux")
    done = succeeded(run(burst, "leave_out", "-e", "burst_sizing=widest"))
    assert f"{HOSTS[2]} was left out and deleted: stage base: " in done.output
    assert set(machines(burst)) == set(HOSTS[:2])
    assert free(burst) == "gffw-compute-a-[001-002]"
    words = ("flux", "jobs", "-n", "-o", "{user.burst.name}", submitted["4"])
    assert succeeded(burst.on_lead(*words)).output.strip() == "", "given back"
    assert "gffw" not in succeeded(burst.on_lead("flux", "resource", "drain")).output


def test_where_every_machine_fails_the_run_fails_and_deletes_none(burst: Sandbox) -> None:
    succeeded(burst.on_lead("flux", "cancel", "--all"))
    for host in HOSTS[:2]:
        burst.shell(host, f"chmod 755 {IMP}")
    done = run(burst, "leave_out")
    assert done.code != 0
    told = at_the_end(done)
    assert all(f"{host}: stage base: " in told for host in HOSTS[:2])
    assert set(machines(burst)) == set(HOSTS[:2])
