# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Compute Engine side at size, beside google.cloud: `make bench-compute`, or with the names of some of PARTS."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from figures import TOP, figure, machine, say

sys.path[:0] = [str(path) for path in (TOP, TOP / "tests/contract", TOP / ".cache/collections")]

from compute_runs import (
    Calls,
    Cost,
    addresses,
    fill,
    groups,
    inventories,
    listing,
    machines,
    module,
    peak,
    play,
)
from compute_server import ComputeServer, serving

RUNS = 3
MACHINES = 20
SIZES = (100, 1000, 5000)
DESCRIPTION = {
    "zone": "us-central1-a",
    "machine_type": "n2-standard-4",
    "image": "projects/sandbox-project/global/images/family/flux-fw-bursted-x86-64",
    "ssh_public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPublic burst",
}


@contextmanager
def server(latency: str = "none") -> Iterator[ComputeServer]:
    """Run a Compute Engine of records."""
    with tempfile.TemporaryDirectory(prefix="flux-burst-bench-") as folder:
        state = Path(folder) / "state"
        state.mkdir()
        with serving(state, latency) as made:
            yield made


def provisioning() -> bool:
    """Make the same machines three ways, with operations that take as long as Google's."""
    loop, loose = [], []
    for _unused in range(RUNS):
        costs: dict[str, Cost] = {}
        with server("real") as made:
            for name, file, variables in (
                ("ours", "our_machines.yml", {}),
                ("loop", "peer_machines.yml", {"loose": False}),
                ("async", "peer_machines.yml", {"loose": True}),
            ):
                calls = Calls(made)
                names = machines(MACHINES, name)
                costs[name] = play(made, file, burst=name, machines=names, **variables)
                count = sum(calls.counted()[0].values())
                say(
                    f"# provision_{MACHINES} {name}: {costs[name].wall:.1f} s, {count} calls, "
                    f"controller CPU {costs[name].cpu:.1f} s"
                )
        loop.append(costs["loop"].wall / costs["ours"].wall)
        loose.append(costs["async"].wall / costs["ours"].wall)
    good = figure(f"provision_{MACHINES}_against_loop", loop, "times", ">= 5")
    return figure(f"provision_{MACHINES}_against_async", loose, "times", ">= 2") and good


def calls() -> bool:
    """Count the calls of a burst, small and large, and of an unchanged run."""
    good, first = True, {}
    for count in (3, 1000):
        with server() as made:
            counter = Calls(made)
            play(made, "our_machines.yml", burst="c", machines=machines(count))
            created, pages = counter.counted()
            counter = Calls(made)
            play(
                made, "our_machines.yml", "--tags", "machines", burst="c", machines=machines(count)
            )
            again, again_pages = counter.counted()
        say(f"# calls_{count}: " + ", ".join(f"{name} {n}" for name, n in created.items()))
        total = sum(created.values())
        good &= figure(f"calls_{count}_create", [total - pages], "calls", "<= 26", f"{pages} pages")
        unchanged = sum(again.values()) - again_pages
        told = f"{again_pages} further pages"
        good &= figure(f"calls_{count}_unchanged", [unchanged], "calls", "<= 4", told)
        first[count] = total - pages
    apart = abs(first[1000] - first[3])
    return figure("calls_3_to_1000_beside_pages", [apart], "calls", "<= 0") and good


def above_bare(listed: Mapping[str, Cost], peer: str) -> float:
    """Return how many times as long as ours a listing takes, beyond what an empty file takes."""
    bare = listed["bare"].wall
    return (listed[peer].wall - bare) / (listed["ours"].wall - bare)


def inventory() -> bool:
    """List machines with both plugins, by turns, and with neither."""
    good = True
    for count, least in ((1000, 4), (10_000, 6)):
        with server() as made, tempfile.TemporaryDirectory() as folder:
            fill(made, count)
            files = inventories(made, Path(folder))
            rounds = [
                {name: listing(made, file) for name, file in files.items()}
                for _unused in range(RUNS)
            ]
        ours, peer = (rounds[0][name].output for name in ("ours", "peer"))
        if len(addresses(ours)) != count or addresses(ours) != addresses(peer):
            raise SystemExit(f"bench inventory: wanted {count} machines in both, found others.")
        if len(groups(ours)) != 4 or groups(ours) != groups(peer):
            raise SystemExit(
                f"bench inventory: wanted the same groups in both, found {', '.join(groups(ours))} "
                f"and {', '.join(groups(peer))}."
            )
        for name in files:
            walls = [each[name].wall for each in rounds]
            used = rounds[0][name]
            say(
                f"# inventory_{count} {name}: {min(walls):.2f} to {max(walls):.2f} s, "
                f"CPU {used.cpu:.2f} s, {used.memory:.0f} MiB"
            )
        times = [above_bare(each, "peer") for each in rounds]
        plain = ", ".join(f"{above_bare(each, 'peer without groups'):.1f}" for each in rounds)
        say(
            f"# inventory_{count}_time_above_bare where google.cloud's makes no groups: {plain} times"
        )
        good &= figure(f"inventory_{count}_time_above_bare", times, "times", f">= {least}")
        told = "ours in google.cloud's"
        above = [
            (each["ours"].memory - each["bare"].memory)
            / (each["peer"].memory - each["bare"].memory)
            for each in rounds
        ]
        good &= figure(f"inventory_{count}_memory_above_bare", above, "share", "<= 0.5", told)
    whole = [each["ours"].memory / each["peer"].memory for each in rounds]
    return figure("inventory_10000_memory", whole, "share", "<= 0.5", told) and good


def scale() -> bool:
    """Create, list and delete more and more machines. The limits are those of docs/scale.md."""
    say("# machines: create s, list s, delete s; MiB of the module, ansible-inventory, the server")
    rows: dict[int, tuple[Cost, Cost, Cost]] = {}
    for count in SIZES:
        with server() as made, tempfile.TemporaryDirectory() as folder:
            wide = {"region": "us-central1", "subnet_cidr": "10.64.0.0/18"}
            module(made, "gce_network", burst="t", **wide)
            names = machines(count)
            created = module(made, "gce_instances", burst="t", hosts=names, **DESCRIPTION)
            listed = listing(made, inventories(made, Path(folder))["ours"])
            if sorted(addresses(listed.output)) != names:
                raise SystemExit(f"bench scale: wanted {count} machines, found others.")
            deleted = module(made, "gce_instances", burst="t", state="absent")
            rows[count] = created, listed, deleted
            times = ", ".join(f"{cost.wall:.1f}" for cost in rows[count])
            memory = (
                f"{max(created.memory, deleted.memory):.0f}, {listed.memory:.0f}, {peak(made):.0f}"
            )
            say(f"# scale {count}: {times}; {memory}")
    created, listed, deleted = rows[SIZES[-1]]
    size = SIZES[-1]
    good = figure(f"scale_{size}_create", [created.wall], "s", "< 60")
    good &= figure(f"scale_{size}_inventory", [listed.wall], "s", "< 20")
    good &= figure(f"scale_{size}_delete", [deleted.wall], "s", "< 300")
    most = max(created.memory, deleted.memory)
    return figure(f"scale_{size}_module_memory", [most], "MiB", "< 300") and good


PARTS: dict[str, Callable[[], bool]] = {
    part.__name__: part for part in (provisioning, calls, inventory, scale)
}


def main(names: list[str]) -> int:
    """Run the named parts, or all; return the exit code."""
    say(f"# {machine()}")
    done = [PARTS[name]() for name in names or PARTS]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
