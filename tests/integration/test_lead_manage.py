# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lead that does not expect a burst's machines is prepared by playbooks/lead.yml: the tests run in their order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from burst_sandbox import LEAD, PREPARED, Sandbox, sandbox_name, succeeded

from sandbox import site

# The stand-in has no broker that can be tried.
pytestmark = [pytest.mark.machines, pytest.mark.real_flux]
WORKER = "flux-sample-1"
CONFIG = "/etc/flux/system/conf.d/system.toml"
MANAGE = "-elead_manage=true"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A sandbox whose lead and worker know of no machine of a burst."""
    made = Sandbox(sandbox_name("manage"), "real")
    made.command("down")
    try:
        succeeded(made.up("--machines", "prepared"))
        text = site.SYSTEM + site.RESOURCES
        table = f'[[resource.config]]\nhosts = "{site.BURSTABLE}"\nproperties = ["burst"]\n\n'
        host = f'  {{ host = "{site.BURSTABLE}" }},\n'
        assert table in text
        assert host in text
        for machine, whole in ((WORKER, site.SYSTEM), (LEAD, text)):
            less = whole.replace(table, "").replace(host, "").replace(f",{site.BURSTABLE}", "")
            made.shell(machine, f"cat > {CONFIG} <<'END'\n{less}END\nsystemctl restart flux")
        made.shell(LEAD, f"until flux resource list | grep -q 'free.*{WORKER}'; do sleep 0.2; done")
        yield made
    finally:
        made.command("down")


def restarts(sandbox: Sandbox) -> str:
    """What tells one start of the lead's broker from another."""
    return sandbox.shell(LEAD, "systemctl show flux -p ExecMainStartTimestampMonotonic").output


def test_check_mode_shows_the_whole_change_and_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.shell(LEAD, "cp -r /etc/flux/system/conf.d /etc/flux/system/other.d")
    sandbox.shell(
        LEAD, "ln -s flux.service /etc/systemd/system/broker.service; systemctl daemon-reload"
    )
    before = restarts(sandbox)
    options = {
        "lead_config_dir": "/etc/flux/system/other.d",
        "lead_service": "broker.service",
        "lead_cores": "4",
        "lead_gpus": "1",
        "lead_restart_timeout": "60",
        "burst_hostlist": "b-[1-9]",
    }
    given = [f"-e{name}={value}" for name, value in options.items()]
    limit = ("--limit", f"localhost,{LEAD}")
    properties = '-e{"lead_properties": ["burst", "cloud"]}'
    done = succeeded(
        sandbox.playbook("lead", "--check", "--diff", MANAGE, *given, properties, *limit)
    )
    for text in (
        "+    - '  { host = \"b-[1-9]\" },'",
        '+    - cores = "0-3"',
        '+    - gpus = "0"',
        '+    - properties = ["burst", "cloud"]',
        "+    hosts: flux-sample-[0-1],b-[1-9]",
    ):
        assert text in done.output
    assert done.changed == {LEAD: 1}
    sandbox.shell(LEAD, "diff -r /etc/flux/system/conf.d /etc/flux/system/other.d")
    assert restarts(sandbox) == before


def test_while_a_job_runs_the_restart_is_refused_and_nothing_is_changed(sandbox: Sandbox) -> None:
    job = succeeded(sandbox.on_lead("flux", "submit", "sleep", "600")).output.strip()
    sandbox.shell(LEAD, f"flux job wait-event -t 20 {job} start")
    before = restarts(sandbox)
    done = sandbox.playbook("lead", MANAGE)
    assert done.code != 0
    told = " ".join(done.output.split())
    assert f"found job {job.replace('ƒ', 'f')}: wait for them" in told
    assert f"lead_restart_over_jobs={LEAD}" in told
    assert "Traceback" not in done.output
    assert done.changed == {}
    assert restarts(sandbox) == before
    for machine in (LEAD, WORKER):
        assert sandbox.execute(machine, "grep", "-q", "gffw", CONFIG).code == 1


def test_the_lead_is_prepared_and_restarted_once(sandbox: Sandbox) -> None:
    before = restarts(sandbox)
    done = succeeded(sandbox.playbook("lead", MANAGE, f"-elead_restart_over_jobs={LEAD}"))
    assert done.changed == {LEAD: 1, WORKER: 1}
    assert f"{LEAD} expects {site.BURSTABLE}" in done.output
    assert restarts(sandbox) != before
    listed = succeeded(sandbox.on_lead("flux", "resource", "list")).output
    assert [line.split()[-1] for line in listed.splitlines() if "burst" in line] == [site.BURSTABLE]
    # A worker that knows fewer hosts joins as well, but reaches none of the others.
    assert sandbox.shell(WORKER, "flux getattr size").output.strip() == "5"
    text = sandbox.shell(LEAD, f"cat {CONFIG}").output
    assert "# A machine that vanishes without a word is noticed after this time.\n[tbon]" in text


def test_a_second_run_changes_nothing(sandbox: Sandbox) -> None:
    before = restarts(sandbox)
    done = succeeded(sandbox.playbook("lead", MANAGE))
    assert done.changed == {}
    assert "WARNING" not in done.output
    assert restarts(sandbox) == before


def test_the_other_topology_moves_the_machines_below_the_first_of_them(sandbox: Sandbox) -> None:
    done = succeeded(sandbox.playbook("lead", MANAGE, "-eburst_topology=gateway"))
    assert done.changed == {LEAD: 1, WORKER: 1}
    below = "flux overlay parentof 3; flux overlay parentof 4; flux overlay parentof 2"
    assert sandbox.shell(LEAD, below).output.split() == ["2", "2", "0"]
    again = succeeded(sandbox.playbook("lead", MANAGE, "-eburst_topology=gateway"))
    assert again.changed == {}


def test_a_burst_then_works(sandbox: Sandbox) -> None:
    job = ("flux", "submit", "-N2", "--cwd", "/tmp", "--setattr=burstable", "hostname")
    name = succeeded(sandbox.on_lead(*job)).output.strip()
    succeeded(sandbox.playbook("burst", *PREPARED, "-eburst_topology=gateway"))
    told = succeeded(sandbox.on_lead("timeout", "30", "flux", "job", "attach", name)).output
    assert sorted(told.split()) == [WORKER, "gffw-compute-a-001"]
