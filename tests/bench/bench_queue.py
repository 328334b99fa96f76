# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Flux side at size: `make bench-queue`. It needs the real Flux in /usr, and root for hostnames of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import TOP, figure, machine, say, timed

sys.path[:0] = [
    str(path)
    for path in (TOP, TOP / "tests/contract", TOP / "tests/unit", TOP / ".cache/collections")
]

from ansible_collections.flux.burst.plugins.module_utils._plan import plan
from flux_instances import Instance, eventually
from flux_modules import module
from large_plan import large_plan

INSIDE = Path(__file__).with_name("queue_inside.py")
RANKS = 2000


def flux(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one part inside a Flux instance of its own, by the system's Python and Flux's bindings."""
    path = subprocess.run(
        ["/usr/bin/flux", "env", "printenv", "PYTHONPATH"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="flux-burst-bench-") as folder:
        return subprocess.run(
            [
                "/usr/bin/flux",
                "start",
                f"--setattr=statedir={folder}",
                "/usr/bin/python3",
                str(INSIDE),
                name,
                *arguments,
            ],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": folder,
                "PYTHONPATH": f"{TOP}/.cache/collections:{path}",
            },
            capture_output=True,
            text=True,
            check=False,
        )


def measured(name: str, *arguments: str) -> dict[str, list[float]]:
    """Return the runs that a part measured."""
    done = flux(name, *arguments)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"bench {name}: wanted its figures, found\n{done.stdout}{done.stderr}")
    found: dict[str, list[float]] = json.loads(lines[-1])
    return found


def ratio(old: list[float], new: list[float]) -> list[float]:
    """Return how many times less each run takes than the same run of the other."""
    return [before / after for before, after in zip(old, new, strict=True)]


def queue(jobs: int, marked: int) -> bool:
    """Read a queue as the seed's tool does and as we do, in the same run."""
    found = measured("queue", str(jobs), str(marked))
    name = f"queue_{jobs}_{marked}"
    seed = found["seed"]
    told = f"seed's way {seed[0]:.2f} s, ours {found['cold'][0]:.3f} s"
    good = figure(f"{name}_cold", ratio(seed, found["cold"]), "times", ">= 12", told)
    told = f"ours {found['warm'][0]:.3f} s"
    good &= figure(f"{name}_warm", ratio(seed, found["warm"]), "times", ">= 25", told)
    for who in ("seed", "cold", "warm"):
        say(f"# {name}: broker CPU {who} {found[f'{who}_cpu'][0]:.3f} s")
    return good


def planning() -> bool:
    """Plan for thousands of jobs and ranks."""
    jobs, ranks, request = large_plan()
    runs = [timed(lambda: plan(jobs, ranks, request)) for _unused in range(5)]
    return figure(f"plan_{len(jobs)}_jobs_{len(ranks)}_ranks", runs, "s", "< 1")


def main() -> None:
    """Run all parts."""
    if not Path("/usr/bin/flux").exists():
        raise SystemExit(
            "bench-queue: wanted the real Flux in /usr, found none: build and install it."
        )
    say(f"# {machine()}")
    good = planning()
    good &= queue(10_000, 100)
    good &= queue(10_000, 0)
    say("# 10,000 of 10,000 marked: every job is read, listed and explained")
    good &= queue(10_000, 10_000)
    say("# growth: pending jobs, of which 1 in 100 is marked: seconds cold, warm, the seed's way")
    for jobs in (1_000, 2_000, 5_000, 10_000, 20_000):
        found = measured("queue", str(jobs), str(jobs // 100), "1")
        row = " ".join(f"{found[part][0]:.3f}" for part in ("cold", "warm", "seed"))
        say(f"# curve {jobs} {row}")
    with tempfile.TemporaryDirectory(prefix="flux-burst-bench-") as folder:
        for kind in ("real", "standin"):
            good &= resources(kind, Path(folder) / kind)
    raise SystemExit(0 if good else 1)


def read(instance: Instance) -> None:
    """Run flux_resource_info."""
    found = module(instance, "flux_resource_info")
    if len(found.get("ranks", [])) != RANKS:
        raise SystemExit(f"bench resource_info: wanted {RANKS} ranks, found {found}")


def resources(kind: str, folder: Path) -> bool:
    """Run flux_resource_info on a lead with many ranks, as the module's own process."""
    hosts = ("lead", *(f"n{number:04}" for number in range(1, RANKS)))
    folder.mkdir()
    instance = Instance(kind, folder, hosts)
    try:
        lead = instance.start("lead")
        eventually("the lead leads", lambda: lead.status.startswith("Running as leader"))
        runs = [timed(lambda: read(instance)) for _unused in range(5)]
    finally:
        instance.close()
    return figure(f"resource_info_{RANKS}_ranks_{kind}", runs, "s", "< 1", "the whole module")


if __name__ == "__main__":
    os.chdir(TOP)
    main()
