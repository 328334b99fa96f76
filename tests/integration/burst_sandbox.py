# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox driven by the commands that a user types, for tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LEAD = "flux-sample-0"
WORKER = "flux-sample-1"
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Run:
    """What a command printed, both streams together, and its exit code."""

    code: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The play recap: host -> ok, changed, unreachable, failed."""
        keys = ("ok", "changed", "unreachable", "failed")
        return {
            row[0]: dict(zip(keys, map(int, row[1:]), strict=True))
            for row in RECAP.findall(self.output)
        }

    @property
    def changed(self) -> dict[str, int]:
        """The hosts that the recap calls changed, with how often."""
        return {host: row["changed"] for host, row in self.recap.items() if row["changed"]}


@dataclass
class Sandbox:
    """One sandbox by name: its commands, and Ansible pointed at it.

    foreign holds the numbers of the lines of its request log that are not our tools' requests.
    """

    name: str
    flux: str
    env: dict[str, str] = field(default_factory=dict)
    foreign: set[int] = field(default_factory=set)

    @property
    def requests(self) -> list[str]:
        """The lines of its request log."""
        return (self.state / "requests.jsonl").read_text().splitlines()

    @property
    def state(self) -> Path:
        """Its directory on the controller."""
        return Path("/run/flux-burst-sandbox") / self.name

    def run(self, *command: str, **env: str) -> Run:
        """Run a command in the checkout with this sandbox's environment."""
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=TOP,
            env={**os.environ, **self.env, "PATH": path, "ANSIBLE_NOCOLOR": "1", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def command(self, word: str, *words: str) -> Run:
        """Run `python -m sandbox WORD --name NAME ...`."""
        return self.run(sys.executable, "-m", "sandbox", word, "--name", self.name, *words)

    def up(self, *words: str) -> Run:
        """Bring it up and read the environment that points clients at it."""
        done = self.command("up", "--flux", self.flux, "--latency", "none", *words)
        if done.code == 0:
            self.env |= self.exports()
        return done

    def exports(self, *options: str) -> dict[str, str]:
        """What `python -m sandbox env` tells a shell to export."""
        lines = self.command("env", *options).output.splitlines()
        pairs = [word.partition("=") for line in lines for word in shlex.split(line)[1:]]
        return {key: value for key, _unused, value in pairs}

    def status(self) -> dict[str, Any]:
        """What it holds."""
        found: dict[str, Any] = json.loads(self.command("status", "--json").output)
        return found

    def execute(self, machine: str, *command: str, user: str = "root") -> Run:
        """Run a command in a machine."""
        return self.command("exec", "--user", user, machine, "--", *command)

    def shell(self, machine: str, text: str) -> Run:
        """Run a script in a machine; it must succeed."""
        return succeeded(self.execute(machine, "sh", "-ec", text))

    def on_lead(self, *command: str) -> Run:
        """Run a command as the instance's owner on the lead."""
        return self.execute(LEAD, *command, user="flux")

    def declare(self, count: int, *, gateway: bool = False) -> None:
        """Let lead and worker declare so many machines in place of the sandbox's own; Flux restarts there.

        With a gateway the first machine is the parent of the others.
        """
        own, first = re.escape(declared(3)), machines(1)[0]
        below = f'{{ host = "{first}" }}, {{ host = "{declared(count, 2)}", parent = "{first}" }}'
        edits = [f's/{{ host = "{own}" }}/{below}/'] if gateway else []
        words = [word for edit in [*edits, f"s/{own}/{declared(count)}/"] for word in ("-e", edit)]
        change = f"sed -i {shlex.join(words)} /etc/flux/system/conf.d/system.toml; systemctl restart flux"
        for name in (WORKER, LEAD):
            self.shell(name, change)
        free = "flux resource list -n -s free -o '{nodelist}'"
        wait = f"until {free} | grep -q {WORKER}; do sleep 0.2; done"
        self.shell(LEAD, f"timeout 30 bash -c {shlex.quote(wait)}")

    def playbook(self, name: str, *options: str, **env: str) -> Run:
        """Run a playbook of the collection."""
        return self.run("ansible-playbook", f"playbooks/{name}.yml", *options, **env)


def declared(count: int, first: int = 1) -> str:
    """Return a hostlist of machines, from the first to so many."""
    return f"gffw-compute-a-[{first:03}-{count:03}]"


def machines(count: int) -> list[str]:
    """Return the names of so many machines."""
    return [f"gffw-compute-a-{number:03}" for number in range(1, count + 1)]


def succeeded(done: Run) -> Run:
    """Return the run, or fail with all that it printed, what went wrong first: the middle of it may not be kept."""
    wrong = [line for line in done.output.splitlines() if line.startswith(("fatal: ", "[ERROR]"))]
    assert done.code == 0, "\n".join([*wrong, done.output])
    return done


def submit(sandbox: Sandbox, *words: str) -> str:
    """Submit a burstable job and return its id."""
    command = ("flux", "submit", "--cwd", "/tmp", "--setattr=burstable", *words, "hostname")
    return succeeded(sandbox.on_lead(*command)).output.strip()


PREPARED = ("-e", "burst_image_prepared=true")
"""What role node_base does takes its time for each machine, and has tests of its own."""


@contextmanager
def running(what: str, flux: str, *, prepared: bool = True) -> Iterator[Sandbox]:
    """Run a sandbox of this name, with an image that has the base (see PREPARED); it has to go down cleanly."""
    made = Sandbox(sandbox_name(what), flux)
    made.command("down")
    try:
        succeeded(made.up("--machines", "prepared" if prepared else "plain"))
        yield made
    finally:
        down = made.command("down")
    assert down.code == 0, down.output


@contextmanager
def bursting(what: str, flux: str, *, prepared: bool = True) -> Iterator[Sandbox]:
    """Run a sandbox of this name with a burst of three machines, whose job has run."""
    with running(what, flux, prepared=prepared) as made:
        submit(made, "-N", "4")
        succeeded(made.playbook("burst", *(PREPARED if prepared else ())))
        yield made


def sandbox_name(what: str) -> str:
    """Return a test sandbox's name; FLUX_BURST_TEST_SANDBOX keeps those of two checkouts apart."""
    return f"{os.environ.get('FLUX_BURST_TEST_SANDBOX', 'test')}-{what}"


def flux_kinds() -> list[Any]:
    """The kinds of Flux to test with: the stand-in always, the real one where it is installed."""
    real = pytest.param(
        "real",
        marks=[
            pytest.mark.real_flux,
            pytest.mark.skipif(not shutil.which("flux"), reason="no real Flux in /usr"),
        ],
    )
    return [real, "standin"]


def one_flux() -> Any:
    """The real Flux where it is installed, else the stand-in: for what does not depend on which of them it is."""
    return flux_kinds()[0 if shutil.which("flux") else 1]
