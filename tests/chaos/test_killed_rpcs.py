# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that write through Flux, killed at a call to it, each in turn: what is run again converges.

They are killed before a call is sent, or when it is answered and they have not read that. FLUX_BURST_KILLS=all kills at
every call, as `make chaos` does; otherwise it is a sample.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from burst_sandbox import flux_kinds
from flux_instances import Instance, eventually
from flux_modules import module, start
from killer import survived

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="brokers need hostnames of their own: root"),
]

PROGRAM = str(Path(__file__).with_name("killed_at_rpc.py"))
EVERY = os.environ.get("FLUX_BURST_KILLS") == "all"
CALLS = 100
"""More than a module makes."""
STEP = 12
"""Without FLUX_BURST_KILLS, at each so manieth call from the first of a moment on."""
FIRST = {"request": 2, "answer": 8}
MOMENTS = {
    "request": "before the call was sent",
    "answer": "when it was answered, before that was read",
}
CLAIM: dict[str, Any] = {"burst": "b", "hosts": ["spare", "other"]}
NODES: dict[str, Any] = {"hosts": ["worker", "spare"]}

Options = dict[str, Any]


@pytest.fixture(params=flux_kinds()[: 2 if EVERY else 1])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """A lead and a worker, and a machine that is down."""
    made = Instance(request.param, tmp_path)
    try:
        for name in ("lead", "worker"):
            made.start(name)
        eventually("the worker joins", lambda: joined(made))
        yield made
    finally:
        made.close()


def joined(instance: Instance) -> bool:
    """Whether the worker is online."""
    try:
        return instance.online() == "0-1"
    except (OSError, AssertionError):
        return False


def good(instance: Instance, name: str, options: Options, *, check: bool = False) -> Options:
    """Return what a module returns that has to succeed."""
    found = module(instance, name, check=check, **options)
    assert not found.get("failed"), found
    return found


def killed(instance: Instance, name: str, options: Options, moment: str, index: int) -> bool:
    """Run a module that is killed at a call; return whether it was, and did not end before."""
    process = start(instance, name, run=(PROGRAM, moment, str(index)), **options)
    output, errors = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), output + errors
    return process.returncode != 0


def at_every_call(
    instance: Instance,
    what: str,
    name: str,
    options: Options,
    check: Callable[[], None],
    back: Callable[[], None],
) -> None:
    """Kill a module at each call, see that the next run converges, and go back to where it began."""
    rows = []
    for moment in MOMENTS:
        kills = 0
        for index in range(CALLS) if EVERY else range(FIRST[moment], CALLS, STEP):
            if not killed(instance, name, options, moment, index):
                back()
                break
            kills += 1
            good(instance, name, options)
            try:
                check()
            except AssertionError as error:
                error.add_note(f"{what}, killed at {moment} {index}")
                raise
            again = good(instance, name, options)
            assert not again["changed"], (moment, index)
            back()
        else:
            pytest.fail(f"wanted fewer than {CALLS} calls of {what}")
        rows.append((MOMENTS[moment], kills))
        assert kills > 0, moment
    survived(f"{what} ({instance.kind})", rows, "a call to Flux")


def submitted(instance: Instance) -> list[str]:
    """Submit three jobs that wait, for the machine that is down."""
    words = ("submit", "-N", "3", "--cwd", "/tmp", "--setattr=burstable", "hostname")
    return ["f" + instance.flux(*words).stdout.strip()[1:] for _unused in range(3)]


def held(instance: Instance) -> tuple[list[str], list[str]]:
    """The jobs and the hosts that the burst holds."""
    options = {"burst": CLAIM["burst"], "state": "released"}
    found = good(instance, "flux_job_claim", options, check=True)
    rows = (found["released"], found["released_hosts"])
    jobs, hosts = ([row["id"] for row in each] for each in rows)
    return sorted(jobs), sorted(hosts)


def shown(instance: Instance) -> set[str]:
    """The jobs that show users a claim."""
    rows = instance.ask("job-list.list", {"max_entries": 0, "attrs": ["annotations"]})["jobs"]
    return {
        row["id"] for row in rows if (row.get("annotations") or {}).get("user", {}).get("burst")
    }


def test_claims_that_are_killed_are_taken_and_given_back_by_the_next_run(
    instance: Instance,
) -> None:
    jobs = submitted(instance)
    take: Options = {**CLAIM, "jobs": jobs}
    give: Options = {"burst": CLAIM["burst"], "state": "released"}
    everything, nothing = (sorted(jobs), sorted(CLAIM["hosts"])), ([], [])

    def taken() -> None:
        assert held(instance) == everything
        eventually("users see the claims", lambda: len(shown(instance)) == len(jobs), 5)

    def given() -> None:
        assert held(instance) == nothing
        eventually("users see no claim", lambda: shown(instance) == set(), 5)

    def give_back() -> None:
        good(instance, "flux_job_claim", give)
        given()

    at_every_call(instance, "claiming 3 jobs and 2 hosts", "flux_job_claim", take, taken, give_back)

    def take_again() -> None:
        good(instance, "flux_job_claim", take)

    take_again()
    at_every_call(instance, "giving them back", "flux_job_claim", give, given, take_again)


def test_nodes_whose_drain_is_killed_are_drained_and_undrained_by_the_next_run(
    instance: Instance,
) -> None:
    drain, undrain, online = (
        {**NODES, "state": state, "timeout": 20} for state in ("drained", "undrained", "online")
    )

    def drained() -> set[int]:
        found: dict[str, Any] = instance.ask("resource.status")["drain"]
        return {int(rank) for ranks in found for rank in ranks.replace("-", ",").split(",")}

    def is_drained() -> None:
        assert drained() == {1, 2}

    def is_free() -> None:
        assert drained() == set()

    def do(options: Options) -> Callable[[], None]:
        return lambda: (good(instance, "flux_nodes", options), None)[1]

    at_every_call(instance, "draining 2 nodes", "flux_nodes", drain, is_drained, do(undrain))
    do(drain)()
    at_every_call(instance, "undraining them", "flux_nodes", undrain, is_free, do(drain))
    do(undrain)()
    worker = {**online, "hosts": ["worker"]}
    at_every_call(
        instance, "waiting until one is online", "flux_nodes", worker, is_free, lambda: None
    )


def test_nodes_whose_disconnection_is_killed_are_offline_after_the_next_run(
    instance: Instance,
) -> None:
    leave = {"hosts": ["worker"], "state": "offline", "disconnect": True, "timeout": 0}

    def gone() -> None:
        assert instance.online() == "0"

    def join() -> None:
        instance.brokers["worker"].stop()
        instance.start("worker")
        eventually("the worker joins", lambda: joined(instance))

    at_every_call(instance, "disconnecting a node", "flux_nodes", leave, gone, join)
