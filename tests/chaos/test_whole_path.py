# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bursts with machines and the real Flux: killed at each remote execution in turn, and under random faults by seed.

FLUX_BURST_KILLS=all kills at every execution, as `make chaos` does; otherwise it is a sample.
MACHINE_SEEDS is how many schedules are run, from SEED_BASE on. One that fails is told with its seed and with the
shortest part that still fails; SEED_BASE=<that seed> MACHINE_SEEDS=1 runs it again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import zip_longest

import pytest
from burst_sandbox import flux_kinds
from burst_site import AGAIN, QUICK, Broken, Site, failure, site
from controllers import Point, play
from fault_schedules import KINDS, kinds, shortest
from killer import survived
from machine_faults import play_with
from machine_schedules import HOSTS, MACHINE_KINDS, ON_LEAD, MachineSchedule, machine_schedule

pytestmark = [pytest.mark.machines, pytest.mark.slow]

ALL = os.environ.get("FLUX_BURST_KILLS") == "all"
SEEDS = int(os.environ.get("MACHINE_SEEDS", "1"))
SEED_BASE = int(os.environ.get("SEED_BASE", "2"))
# Of a playbook, on the lead and on three machines, in the order in which they begin.
EXECUTIONS = {playbook: count + len(HOSTS) for playbook, count in ON_LEAD.items()}
MOMENTS = {"before": "before it began", "after": "when it was done, without the answer"}
EVERY = {
    playbook: [Point("", nth, moment) for moment in MOMENTS for nth in range(count)]
    for playbook, count in EXECUTIONS.items()
}
# One machine has begun; some are stopped.
SAMPLE = {"burst": [Point("", 8, "before")], "teardown": [Point("", 2, "after")]}
# What is told of a machine, where it is the only thing that failed.
OF_A_MACHINE = ("never boots", "dies", "preempted", "disk full", "munge dead", "clock off")


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def here(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A sandbox for all of the module, with the real Flux."""
    with site(request.param) as made:
        yield made


def check_failure(output: str, given: MachineSchedule) -> str:
    """Return what a run that failed says: stage, host and cause. Raises Broken."""
    told = failure(output)
    named = "stage " in told or "wanted " in told
    if not named:
        raise Broken(f"wanted a stage and a cause, found {told!r}")
    hosts = [fault["host"] for kind, fault in given.faults if kind in OF_A_MACHINE]
    if hosts and len(given.faults) == 1 and f"{hosts[0]}: stage " not in told:
        raise Broken(f"wanted {hosts[0]} with its stage, found {told!r}")
    return told


def run(here: Site, given: MachineSchedule) -> list[str]:
    """Run a schedule and see that all holds; return what came of it. Raises Broken."""
    came: list[str] = []
    here.occupy()
    job = here.submit()
    if given.playbook == "teardown":
        here.playbook("burst", QUICK)
        here.check_served(job)
    here.server.faults(*[fault for kind, fault in given.faults if kind in KINDS])
    played, happened = play_with(here.sandbox, here.line, given, QUICK)
    here.server.faults()
    came += happened
    if not played.killed:
        came.append(f"{given.playbook} ended {played.run.code}")
        if played.run.code:
            came.append(check_failure(played.run.output, given))
    if "lead restarts" in happened:
        here.occupy()
    if given.playbook == "burst" and given.again:
        before = here.ids()
        if not here.waits():
            job = here.submit()
        here.playbook("burst", AGAIN)
        here.check_served(job)
        after = here.ids()
        gone = {name for name in before if before[name] != after[name]}
        broken = {fault.get("host") for kind, fault in given.faults if kind in OF_A_MACHINE}
        if gone - broken:
            raise Broken(f"machines that were made again without need: {gone - broken}")
    here.playbook("teardown", QUICK)
    here.check_nothing_left()
    here.check_undisturbed()
    here.lead("flux cancel --all --states=pending || true")
    return came


def breaks(here: Site, given: MachineSchedule) -> str:
    """Return what does not hold under a schedule, "" where all does. Nothing is left for the next one."""
    began = time.monotonic()
    try:
        came = run(here, given)
    except Broken as error:
        here.clean()
        return str(error)
    print(
        f"  {time.monotonic() - began:5.1f} s  {given}\n           {'; '.join(came)[:300]}",
        flush=True,
    )
    return ""


def test_a_seed_is_always_the_same_schedule_of_machines() -> None:
    hundred = [machine_schedule(seed) for seed in range(100)]
    assert hundred == [machine_schedule(seed) for seed in range(100)]
    assert all(kinds(hundred, (*KINDS, *MACHINE_KINDS)).values())
    assert {it.playbook for it in hundred} == {"burst", "teardown"}
    assert {fault["host"] for it in hundred for _kind, fault in it.faults if "host" in fault} > {
        *HOSTS
    }


def test_after_every_schedule_of_machines_a_burst_serves_and_nothing_is_left(here: Site) -> None:
    schedules = {seed: machine_schedule(seed) for seed in range(SEED_BASE, SEED_BASE + SEEDS)}
    failed = []
    for seed, given in schedules.items():
        print(f"seed {seed}", flush=True)
        why = breaks(here, given)
        if why:
            print(f"  BROKEN {given}\n{why}", flush=True)
            least = shortest(given, lambda it: bool(breaks(here, it)))
            failed.append(f"seed {seed}: {why}\n  all of it: {given}\n  shortest: {least}")
    print(
        f"\n{SEEDS} schedules with machines from seed {SEED_BASE} on, {len(failed)} failed; in so many was:"
    )
    for kind, count in kinds(list(schedules.values()), (*MACHINE_KINDS, *KINDS)).items():
        print(f"  {kind:20} {count:4}")
    assert not failed, "\n".join(failed)


def killed_and_run_again(here: Site, points: dict[str, Point]) -> None:
    """Kill a burst, run it again, kill its teardown, and run that again; then neither does anything. Raises Broken."""
    here.occupy()
    job = here.submit()
    kill(here, "burst", points)
    before = here.ids()
    here.playbook("burst", QUICK)
    here.check_served(job)
    if not before.items() <= here.ids().items():
        raise Broken(f"wanted the machines that were there, {before}, found {here.ids()}")
    if ALL:
        here.unchanged("burst")
    kill(here, "teardown", points)
    here.playbook("teardown", QUICK)
    if ALL:
        here.unchanged("teardown")
    here.check_nothing_left()
    here.check_undisturbed()


def kill(here: Site, playbook: str, points: dict[str, Point]) -> None:
    """Run a playbook until it is killed, which it has to be where there is a point for it. Raises Broken."""
    if playbook in points:
        played = play(here.sandbox, playbook, QUICK, {points[playbook]: None})
        if not played.killed:
            raise Broken(f"not killed, after {len(played.executions)} executions")


def test_a_burst_and_its_teardown_that_are_killed_at_any_execution_are_finished_by_the_next_run(
    here: Site,
) -> None:
    points = EVERY if ALL else SAMPLE
    # In one round a burst is killed and the teardown of what came of it.
    rounds = zip_longest(points["burst"], points["teardown"])
    for burst, teardown in rounds:
        chosen = {"burst": burst, "teardown": teardown}
        try:
            killed_and_run_again(here, {name: it for name, it in chosen.items() if it})
        except Broken as error:
            pytest.fail(f"{chosen}: {error}")
    for playbook, title in (("burst", "a burst of 3 machines"), ("teardown", "its teardown")):
        count = {moment: 0 for moment in MOMENTS}
        for point in points[playbook]:
            count[point.moment] += 1
        rows = [(MOMENTS[moment], number) for moment, number in count.items()]
        survived(title, rows, "a remote execution")


@pytest.mark.skipif(not ALL, reason="FLUX_BURST_KILLS=all is not set: a sample is killed")
def test_what_is_killed_are_all_executions_that_there_are(here: Site) -> None:
    here.occupy()
    here.submit()
    for playbook, count in EXECUTIONS.items():
        played = play(here.sandbox, playbook, QUICK, {Point("", count): None})
        assert not played.killed, f"wanted {count} executions, found {played.executions}"
        assert (played.run.code, len(played.executions)) == (0, count)
    here.check_nothing_left()
