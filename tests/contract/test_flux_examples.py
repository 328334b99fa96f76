# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example of the modules that ask and change a lead runs as ansible-doc shows it, in the order of a burst."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_examples import TOP, examples, run
from flux_instances import Instance, eventually, real_flux

NO_REAL = "no real Flux in /usr/bin: the stand-in alone was asked"
KINDS = [
    "standin",
    pytest.param(
        "real",
        marks=[pytest.mark.real_flux, pytest.mark.skipif(not real_flux(), reason=NO_REAL)],
    ),
]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="brokers need hostnames of their own: root"
)
BURST = [f"gffw-compute-a-{number:03}" for number in range(1, 101)]
# Those that say what they found are asked before those that use it; flux_nodes comes last.
MODULES = (
    "flux_identity_info",
    "flux_lead_info",
    "flux_resource_info",
    "flux_queue_info",
    "burst_preflight",
    "burst_plan",
    "flux_burst_lock",
    "flux_job_claim",
    "burst_reconciliation",
    "flux_nodes",
)
ELSEWHERE = {"flux_broker", "flux_broker_info", "flux_config"}
# What other modules would have registered. The brokers here are root's, and munge need not run.
GIVEN = {
    "found": {"instances": [{"name": BURST[2]}], "bursts": []},
    "types": {
        "machine_types": [
            {"name": "n2-standard-4", "vcpus": 4, "cores": 2, "memory_mb": 16384, "gpus": 0}
        ]
    },
}
# What is so after an example, by its name; `it` is its result.
THEN = {
    "Read the jobs that wait to be burst": "it.jobs | map(attribute='nodes') == [4]",
    "Find the nodes that have been idle for ten minutes": "it.idle == []",
    "Plan the burst": f"it.new_hosts == ['{BURST[2]}']",
    "Be at work on the burst for at most a quarter of an hour": "it.owner is search('@.*:[0-9]+$')",
    "Be at work no more": "it.owner == ''",
    "Claim two jobs for four hours": "it.gone == ['fDDf5hq', 'fDDf5hr']",
    "See what the burst has claimed": "it.released == []",
    "Decide what is amiss": "it.delete == []",
    "Wait until the bursted machines are online, and see that jobs can run there": "it is not changed",
    "Drain them and wait for their jobs": "it is changed",
    "Wait until their brokers have left": "it.ranks | map(attribute='overlay') | unique == ['offline']",
    "Let the next burst use their names": "it is changed",
}


@pytest.fixture(params=KINDS)
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """A lead that declares the hundred machines of the examples, two of which join."""
    made = Instance(request.param, tmp_path, ("lead", "worker", *BURST))
    try:
        lead = made.start("lead")
        eventually("the lead leads", lambda: lead.status.startswith("Running as leader"))
        for host in BURST[:2]:
            made.start(host)
        eventually("two machines have joined", lambda: made.online() == "0,2-3")
        yield made
    finally:
        made.close()


def play(instance: Instance) -> dict[str, Any]:
    """Return one play of all examples."""
    on_lead = "/usr/bin/python3" if instance.kind == "real" else sys.executable
    tasks, kept = [], set()
    for module in MODULES:
        for task in examples(module):
            # burst_* run on the controller, whose interpreter has ClusterShell.
            on_this = not any(key.startswith("flux.burst.flux_") for key in task)
            python = sys.executable if on_this else on_lead
            added = {"ansible_python_interpreter": python}
            if module == "burst_preflight":
                added["lead"] = "{{ identity | combine({'uid': 1004, 'munge': ''}) }}"
            if module == "flux_identity_info":
                task["register"] = "identity"
            # Later examples use what the first found; theirs is of a narrower question.
            name = task.get("register", "done")
            name = task["register"] = "done" if name in kept else name
            kept.add(name)
            tasks.append({**task, "vars": {**task.get("vars", {}), **added}})
            if task["name"] in THEN:
                wanted = {"that": [THEN[task["name"]]]}
                check = {"ansible.builtin.assert": wanted, "vars": {"it": f"{{{{ {name} }}}}"}}
                tasks.append({"name": "See what it found", **check})
            if task.get("flux.burst.flux_nodes", {}).get("state") == "drained":
                pids = [str(instance.brokers[host].process.pid) for host in BURST[:2]]
                stop = {"ansible.builtin.command": {"argv": ["kill", *pids]}}
                tasks.append({"name": "Stop the brokers", **stop})
    return {
        "name": "Examples",
        "hosts": "localhost",
        "gather_facts": False,
        "vars": GIVEN,
        "environment": {"PATH": instance.environment()["PATH"]},
        "module_defaults": {
            "group/flux.burst.flux": {"uri": instance.uri("lead")},
            # Any file that is setuid will do as the IMP of brokers that run no job of another user.
            "flux.burst.flux_nodes": {"uri": instance.uri("lead"), "imp": "/usr/bin/su"},
        },
        "tasks": tasks,
    }


def test_every_example_runs_against_a_lead(instance: Instance, tmp_path: Path) -> None:
    done = instance.flux("submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname")
    assert done.returncode == 0, done.stderr
    printed = run(play(instance), tmp_path / "examples.yml")
    assert printed.count("TASK [See what it found]") == len(THEN)


def test_every_module_of_the_lead_has_its_examples_run() -> None:
    there = {path.stem for path in (TOP / "plugins/modules").glob("flux_*.py")}
    assert there - ELSEWHERE == {name for name in MODULES if name.startswith("flux_")}
