# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random faults of Compute Engine and killed controllers, by seed; invariants after each.

SEEDS is how many schedules are run, from SEED_BASE on. A schedule that fails is told with its seed and with the
shortest part that still fails; SEED_BASE=<that seed> SEEDS=1 runs it again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator

import gce_modules
import pytest
from compute_server import ComputeServer, serving
from fault_schedules import ZONES, Schedule, kinds, schedule, shortest
from gce_modules import MORE_PLACES, Modules, forked, held
from killer import Killer

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("SEEDS", "5"))
SEED_BASE = int(os.environ.get("SEED_BASE", "1"))
HOSTS = [f"gffw-compute-a-{number:03}" for number in (1, 2, 3)]
NETWORK = {**gce_modules.NETWORK, "nat_addresses": 1}
MACHINES = {**gce_modules.MACHINES, "hosts": HOSTS, "zones": list(ZONES)}
GONE = [
    ("gce_instances", {"state": "absent"}),
    ("gce_network", {"state": "absent", "region": NETWORK["region"]}),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeServer]:
    """A server of the module's own."""
    with serving(tmp_path_factory.mktemp("chaos")) as made:
        yield made


class Broken(Exception):
    """An invariant does not hold."""


def attempt(modules: Modules, killer: Killer | None) -> None:
    """Make the network and the machines as far as it goes; a failure has to be one clear line. Raises Broken."""
    for name, options in (("gce_network", NETWORK), ("gce_instances", MACHINES)):
        code, output = forked(name, modules.arguments(options), killer)
        if killer and killer.killed:
            return
        if code:
            check_message(output)
            return


def check_message(output: str) -> None:
    """See that a module failed with one line that says what was wanted and found. Raises Broken."""
    try:
        message = json.loads(output)["msg"]
    except (ValueError, KeyError):
        raise Broken(f"wanted a failure in JSON, found {output[-800:]}") from None
    if "\n" in message or "Traceback" in message or len(message) < 20:
        raise Broken(f"wanted one clear line, found {message!r}")


def play(modules: Modules, given: Schedule) -> None:
    """Run a burst under a schedule, again without faults, and its teardown under it, and again. Raises Broken."""
    server = modules.server
    killer = None
    rules = given.rules()
    if given.killed_at is not None:
        killer = Killer(server, given.killed_at, "request", rules)
    else:
        server.faults(*rules)
    attempt(modules, killer)
    server.faults()
    for name, options in (("gce_network", NETWORK), ("gce_instances", MACHINES)):
        result = modules.run(name, **options)
        if result.get("failed"):
            raise Broken(f"the next run failed: {result['msg']}")
    found = [path for path in held(server) if path.startswith("instances/")]
    if sorted(found) != [f"instances/{host}" for host in HOSTS]:
        raise Broken(f"wanted {len(HOSTS)} machines, found {found}")
    server.faults(*rules)
    for name, options in GONE:
        code, output = forked(name, modules.arguments(options))
        if code:
            check_message(output)
    server.faults()
    for name, options in GONE:
        result = modules.run(name, **options)
        if result.get("failed"):
            raise Broken(f"the next teardown failed: {result['msg']}")
    left = held(server, MORE_PLACES)
    if left:
        raise Broken(f"left over: {left}")


def breaks(server: ComputeServer, given: Schedule) -> str:
    """Return what does not hold under a schedule, "" where all does. Nothing is left for the next one."""
    # Compute Engine remembers the requests of a burst for an hour: each time another one.
    modules = Modules(server, f"b-{uuid.uuid4().hex[:8]}")
    try:
        play(modules, given)
    except Broken as error:
        return str(error)
    finally:
        server.faults()
        for name, options in GONE:
            modules.run(name, **options)
    return ""


def test_a_seed_is_always_the_same_schedule() -> None:
    assert [str(schedule(seed)) for seed in range(50)] == [
        str(schedule(seed)) for seed in range(50)
    ]
    hundred = [schedule(seed) for seed in range(100)]
    assert all(kinds(hundred).values())
    assert any(it.killed_at is not None for it in hundred)


def test_a_failing_schedule_is_shortened_to_what_makes_it_fail() -> None:
    given = next(it for it in map(schedule, range(1000)) if len(it.faults) == 4 and it.killed_at)
    guilty = given.faults[2]
    assert shortest(given, lambda it: guilty in it.faults) == Schedule((guilty,), None)


def test_after_every_schedule_a_burst_converges_and_nothing_is_left(server: ComputeServer) -> None:
    schedules = {seed: schedule(seed) for seed in range(SEED_BASE, SEED_BASE + SEEDS)}
    failed = []
    for seed, given in schedules.items():
        why = breaks(server, given)
        if why:
            least = shortest(given, lambda it: bool(breaks(server, it)))
            failed.append(f"seed {seed}: {why}\n  all of it: {given}\n  shortest: {least}")
    print(
        f"\n{SEEDS} schedules from seed {SEED_BASE} on, {len(failed)} failed; in so many of them was:"
    )
    for kind, count in kinds(list(schedules.values())).items():
        print(f"  {kind:20} {count:4}")
    killed = sum(it.killed_at is not None for it in schedules.values())
    print(f"  {'controller killed':20} {killed:4}")
    assert not failed, "\n".join(failed)
