# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two controllers on one queue: a job, or a host, is claimed by one of them, whatever happens to the lead meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flux_instances import Instance, eventually, real_flux
from flux_modules import module, python

NO_REAL = "no real Flux in /usr/bin: the stand-in alone was asked"
KINDS = [
    "standin",
    pytest.param(
        "real",
        marks=[pytest.mark.real_flux, pytest.mark.skipif(not real_flux(), reason=NO_REAL)],
    ),
]
REAL = KINDS[1:]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="brokers need hostnames of their own: root"
)
JOBS, RACES = 50, int(os.environ.get("FLUX_BURST_RACES", "10"))
HOSTS = [f"gffw-compute-a-{number:03}" for number in range(1, 21)]

Rows = list[dict[str, Any]]


class Controller:
    """A controller in a process of its own."""

    def __init__(self, instance: Instance, burst: str) -> None:
        command, environment = python(instance)
        self.process = subprocess.Popen(
            [command, str(Path(__file__).with_name("claiming.py")), instance.uri("lead"), burst],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, jobs: list[str] | None, hosts: Sequence[str] = ()) -> None:
        """Begin a round."""
        assert self.process.stdin is not None
        asked = None if jobs is None else [jobs, list(hosts)]
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def answer(self) -> tuple[list[str], Rows, Rows]:
        """Return the jobs that it claimed, and the jobs and the hosts that others hold."""
        assert self.process.stdout is not None
        claimed, held, held_hosts = json.loads(self.process.stdout.readline())
        return claimed, held, held_hosts

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(params=KINDS)
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """A lead."""
    made = Instance(request.param, tmp_path)
    lead = made.start("lead")
    eventually("the lead leads", lambda: lead.status.startswith("Running as leader"))
    yield made
    made.close()


@pytest.fixture
def controllers(instance: Instance) -> Iterator[list[Controller]]:
    """Two controllers."""
    made = [Controller(instance, burst) for burst in ("one", "two")]
    yield made
    for controller in made:
        controller.close()


def submitted(instance: Instance, count: int) -> list[str]:
    """Submit jobs that wait."""
    words = ("submit", "-N", "3", "--cwd", "/tmp", "--setattr=burstable")
    if instance.kind == "real":
        done = instance.flux(*words, f"--cc=1-{count}", "hostname").stdout.split()
    else:
        done = [instance.flux(*words, "hostname").stdout.strip() for _unused in range(count)]
    assert len(done) == count
    return ["f" + name[1:] for name in done]


def test_of_two_controllers_at_once_exactly_one_gets_each_job_and_each_host(
    instance: Instance, controllers: list[Controller]
) -> None:
    jobs = submitted(instance, JOBS)
    orders = ((jobs, HOSTS), (jobs[::-1], HOSTS[::-1]))
    both = 0
    for _unused in range(RACES):
        for controller, order in zip(controllers, orders, strict=True):
            controller.ask(*order)
        answers = [controller.answer() for controller in controllers]
        mine, theirs = (set(claimed) for claimed, _held, _hosts in answers)
        assert mine.isdisjoint(theirs), "a job was claimed twice"
        assert mine | theirs == set(jobs), "a job was lost"
        lost = [{row["id"] for row in hosts} for _claimed, _held, hosts in answers]
        assert lost[0] ^ lost[1] == set(HOSTS), "a host was claimed twice, or lost by both"
        for (claimed, held, hosts), other in zip(answers, ("two", "one"), strict=True):
            # What one did not get it was told to be the other's.
            assert {row["id"] for row in held} == set(jobs) - set(claimed)
            assert {row["burst"] for row in held + hosts} <= {other}
        both += all(claimed or held for claimed, held, _hosts in answers)
        for controller in controllers:
            controller.ask(None)
        for controller in controllers:
            controller.answer()
    assert both == RACES


def holders(instance: Instance) -> dict[str, str]:
    """Who holds which job, as the queue shows it."""
    found = module(instance, "flux_queue_info", cache_dir="")
    return {job["id"]: job["claim"]["burst"] for job in found["jobs"] if job["claim"]}


@pytest.mark.parametrize("instance", REAL, indirect=True)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_claims_survive_a_restart_of_the_lead(
    instance: Instance, controllers: list[Controller], how: signal.Signals
) -> None:
    jobs = submitted(instance, JOBS)
    controllers[0].ask(jobs[:20])
    controllers[0].answer()
    pid = int(instance.ask("attr.get", {"name": "broker.pid"})["value"])
    os.kill(pid, how)
    instance.brokers["lead"].process.wait(20)
    lead = instance.start("lead")
    eventually("the lead leads", lambda: lead.status.startswith("Running as leader"))
    kept = holders(instance)
    if how == signal.SIGTERM:
        assert kept == dict.fromkeys(jobs[:20], "one")
    # A job that the lead itself lost with a crash has no claim to keep.
    known = {job["id"] for job in module(instance, "flux_queue_info", cache_dir="")["jobs"]}
    assert kept == dict.fromkeys(known & set(jobs[:20]), "one")
    controllers[1].ask(jobs)
    claimed, held, _hosts = controllers[1].answer()
    assert set(claimed) == known - set(jobs[:20])
    assert {row["id"] for row in held} == known & set(jobs[:20])
