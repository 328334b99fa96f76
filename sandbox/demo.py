# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make burst` and `make teardown`: the user's side of a burst, run in the sandbox.

It types what a user would type (submit a job on the lead, run the playbook, look at the result) and shows it. All
that bursts is in the playbooks; nothing of it is here.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

TOP = Path(__file__).resolve().parent.parent
LEAD = "flux-sample-0"
JOB = ["flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname"]
JOB_LIMIT = 60


class DemoError(Exception):
    """A step did not do what it must; the message says which and what was found."""


class Demo:
    """Runs steps, shows each command, and keeps how long each one took."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.console = Console(highlight=False)
        self.times: list[tuple[str, float]] = []

    def step(self, title: str, command: list[str], *, shown: str = "") -> None:
        """Run a command with its output on this terminal; raise DemoError where it fails."""
        self.console.print(f"\n[bold]{title}[/bold]\n[dim]$ {shown or ' '.join(command)}[/dim]")
        began = time.monotonic()
        code = subprocess.run(command, cwd=TOP, stdin=subprocess.DEVNULL, check=False).returncode
        self.times.append((title, time.monotonic() - began))
        if code:
            raise DemoError(f"'{shown or ' '.join(command)}' ended with exit code {code}; its own message is above.")

    def on_lead(self, command: list[str]) -> list[str]:
        """Return the command that runs another as user flux on the lead."""
        return [*self.sandbox("exec", "--user", "flux", LEAD), "--", *command]

    def sandbox(self, *words: str) -> list[str]:
        """Return a `python -m sandbox` command for this sandbox."""
        return [sys.executable, "-m", "sandbox", words[0], "--name", self.name, *words[1:]]

    def show_on_lead(self, title: str, command: list[str]) -> None:
        """Run a command on the lead and show its output."""
        self.step(title, self.on_lead(command), shown=f"{' '.join(command)}    # on {LEAD}")

    def submit(self) -> str:
        """Submit the demo's job on the lead and return its id."""
        self.console.print(f"\n[bold]Submit a job that needs more nodes than there are[/bold]\n[dim]$ {' '.join(JOB)}    # on {LEAD}[/dim]")
        done = subprocess.run(self.on_lead(JOB), cwd=TOP, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode or not done.stdout.strip():
            raise DemoError(f"the job was not accepted on {LEAD}; Flux's own message is above.")
        self.console.print(done.stdout.strip())
        return done.stdout.strip()

    def report(self) -> None:
        """Show where the time went."""
        table = Table(title="Where the time went", show_edge=False)
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for title, seconds in self.times:
            table.add_row(title, f"{seconds:.1f}")
        table.add_row("[bold]together[/bold]", f"[bold]{sum(t for _, t in self.times):.1f}[/bold]")
        self.console.print()
        self.console.print(table)


def burst(demo: Demo, flux: str) -> None:
    """Bring the sandbox up, submit a job, burst, and show the job's output."""
    demo.step("Bring the sandbox up", demo.sandbox("up", "--flux", flux), shown="python -m sandbox up")
    demo.show_on_lead("Nodes before", ["flux", "resource", "list"])
    job = demo.submit()
    demo.step(
        "Burst", [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/burst.yml"], shown="ansible-playbook playbooks/burst.yml"
    )
    demo.show_on_lead("Nodes after", ["flux", "resource", "list"])
    demo.show_on_lead("The job's output", ["timeout", str(JOB_LIMIT), "flux", "job", "attach", job])
    demo.report()
    demo.console.print("\n[green]The burst is up.[/green] `make teardown` takes it away, `make down` the sandbox.")


def teardown(demo: Demo) -> None:
    """Run the teardown playbook and show what is left."""
    demo.step(
        "Tear down", [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/teardown.yml"], shown="ansible-playbook playbooks/teardown.yml"
    )
    demo.step("What is left", demo.sandbox("status"), shown="python -m sandbox status")
    demo.report()


def main() -> int:
    """Run one demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description="A whole burst in the sandbox.")
    parser.add_argument("what", choices=["burst", "teardown"])
    parser.add_argument("--flux", choices=["auto", "real", "standin"], default="auto")
    parser.add_argument("--name", default=os.environ.get("FLUX_BURST_SANDBOX", "default"))
    options = parser.parse_args()
    demo = Demo(options.name)
    try:
        if options.what == "burst":
            burst(demo, options.flux)
        else:
            teardown(demo)
    except DemoError as error:
        demo.console.print(f"\n[red]{error}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
