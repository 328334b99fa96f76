# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that is killed at a call to Compute Engine, each in turn: what is run again converges.

It is killed before the call does anything, or when all is done and only the answer has not come. FLUX_BURST_KILLS=all
kills at every call, as `make chaos` does; otherwise it is a sample.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gce_modules
import pytest
from compute_server import ComputeServer, serving
from gce_modules import MORE_PLACES, Modules, changed, forked, held
from killer import Killer, survived

pytestmark = pytest.mark.slow

HOSTS = [f"gffw-compute-a-{number:03}" for number in (1, 2, 3)]
NETWORK = {"region": "us-central1", "nat_addresses": 1}
MACHINES = {"hosts": HOSTS, "compact": True}
EVERY = os.environ.get("FLUX_BURST_KILLS") == "all"
SAMPLE = 17
"""Without FLUX_BURST_KILLS, at each so manieth call."""
CALLS = 200
"""More than a burst makes."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeServer]:
    """A server of the module's own."""
    with serving(tmp_path_factory.mktemp("killed")) as made:
        yield made


def up(modules: Modules) -> list[tuple[str, str, str]]:
    """Make the network and the machines; return what was changed."""
    return changed(modules.network(**NETWORK)) + changed(modules.instances(**MACHINES))


def down(modules: Modules) -> list[tuple[str, str, str]]:
    """Take both away; return what was changed."""
    gone = {"state": "absent"}
    machines = changed(modules.run("gce_instances", **gone))
    return machines + changed(modules.run("gce_network", region="us-central1", **gone))


def until_killed(modules: Modules, steps: list[tuple[str, dict[str, Any]]], killer: Killer) -> bool:
    """Run modules one after another until one is killed; return whether one was."""
    for name, options in steps:
        code, output = forked(name, modules.arguments(options), killer)
        if killer.killed:
            return True
        assert code == 0, output
    return False


def ids(server: ComputeServer) -> dict[str, str]:
    """The machines' ids by name."""
    path = "zones/us-central1-a/instances"
    return {it["name"]: it["id"] for it in server.call("GET", path)[1].get("items", [])}


MOMENTS = {
    "request": "before the call did anything",
    "answer": "when it was done, without the answer",
}


def test_a_burst_that_is_killed_at_any_call_is_finished_by_the_next_run(
    server: ComputeServer,
) -> None:
    steps = [
        ("gce_network", {**gce_modules.NETWORK, **NETWORK}),
        ("gce_instances", {**gce_modules.MACHINES, **MACHINES}),
    ]
    rows = []
    for moment in MOMENTS:
        count = 0
        for index in range(0, CALLS, 1 if EVERY else SAMPLE):
            # Compute Engine remembers the requests of a burst for an hour: each time another one.
            modules = Modules(server, f"{moment}-{index}")
            killed = until_killed(modules, steps, Killer(server, index, moment))
            server.faults()
            before = ids(server)
            up(modules)
            after = ids(server)
            assert sorted(after) == HOSTS, (moment, index)
            assert before.items() <= after.items(), "a machine that was there is the same one"
            assert up(modules) == [], (moment, index)
            down(modules)
            assert held(server, MORE_PLACES) == [], (moment, index)
            if not killed:
                break
            count += 1
        else:
            pytest.fail(f"wanted fewer than {CALLS} calls of a burst")
        rows.append((MOMENTS[moment], count))
        assert count > (20 if EVERY else 1)
    survived("a burst of 3 machines", rows)


def test_a_teardown_that_is_killed_at_any_call_is_finished_by_the_next_run(
    server: ComputeServer,
) -> None:
    gone = {"state": "absent"}
    steps = [("gce_instances", gone), ("gce_network", {**gone, "region": "us-central1"})]
    rows = []
    for moment in MOMENTS:
        count = 0
        for index in range(0, CALLS, 1 if EVERY else SAMPLE):
            # Compute Engine remembers the requests of a burst for an hour: each time another one.
            modules = Modules(server, f"{moment}-{index}")
            up(modules)
            killed = until_killed(modules, steps, Killer(server, index, moment))
            server.faults()
            down(modules)
            assert held(server, MORE_PLACES) == [], (moment, index)
            assert down(modules) == [], (moment, index)
            if not killed:
                break
            count += 1
        else:
            pytest.fail(f"wanted fewer than {CALLS} calls of a teardown")
        rows.append((MOMENTS[moment], count))
        assert count > (10 if EVERY else 0)
    survived("its teardown", rows)
