# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make burst`, `make doctor` and `make teardown`: the user's side of a burst, run in the sandbox.

It types what a user would type (submit a job on the lead, run the playbook, look at the result) and shows it. All
that bursts is in the playbooks; nothing of it is here.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
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
        self.env = dict(os.environ)
        self.times: list[tuple[str, float]] = []

    def step(self, title: str, command: list[str], *, shown: str, stdout: int | None = None) -> str:
        """Run a command on this terminal; return its output if it was piped.

        Raises DemoError where the command fails.
        """
        self.console.print(f"\n[bold]{title}[/bold]\n[dim]$ {escape(shown)}[/dim]")
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=TOP,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            text=True,
            check=False,
        )
        self.times.append((title, time.monotonic() - began))
        if done.returncode:
            raise DemoError(
                f"'{shown}' ended with exit code {done.returncode}; its own message is above."
            )
        return (done.stdout or "").strip()

    def sandbox(self, *words: str) -> list[str]:
        """Return a `python -m sandbox` command for this sandbox."""
        return [sys.executable, "-m", "sandbox", words[0], "--name", self.name, *words[1:]]

    def on_lead(self, title: str, command: list[str], stdout: int | None = None) -> str:
        """Run a command as user flux on the lead."""
        return self.step(
            title,
            [*self.sandbox("exec", "--user", "flux", LEAD), "--", *command],
            shown=f"{shlex.join(command)}    # on {LEAD}",
            stdout=stdout,
        )

    def playbook(self, title: str, name: str) -> None:
        """Run a playbook, pointed at this sandbox."""
        exports = subprocess.run(
            self.sandbox("env"), cwd=TOP, stdout=subprocess.PIPE, text=True, check=False
        )
        if exports.returncode:
            raise DemoError(f"sandbox {self.name} does not run; `make burst` starts one.")
        words = (word for line in exports.stdout.splitlines() for word in shlex.split(line)[1:])
        self.env.update(dict(word.split("=", 1) for word in words))
        command = str(Path(sys.executable).with_name("ansible-playbook"))
        self.step(title, [command, name], shown=f"ansible-playbook {name}")

    def report(self) -> None:
        """Show where the time went."""
        table = Table(title="Where the time went", show_edge=False)
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for title, seconds in self.times:
            table.add_row(title, f"{seconds:.1f}")
        table.add_row(
            "[bold]together[/bold]", f"[bold]{sum(row[1] for row in self.times):.1f}[/bold]"
        )
        self.console.print()
        self.console.print(table)


def burst(demo: Demo, flux: str) -> None:
    """Bring the sandbox up, submit a job, burst, and show the job's output."""
    demo.step(
        "Bring the sandbox up", demo.sandbox("up", "--flux", flux), shown="python -m sandbox up"
    )
    demo.on_lead("Nodes before", ["flux", "resource", "list"])
    job = demo.on_lead(
        "Submit a job that needs more nodes than there are", JOB, stdout=subprocess.PIPE
    )
    demo.console.print(job)
    demo.playbook("Burst", "playbooks/burst.yml")
    demo.on_lead("Nodes after", ["flux", "resource", "list"])
    demo.on_lead(
        "The job's output", ["timeout", "-k", "5", str(JOB_LIMIT), "flux", "job", "attach", job]
    )
    demo.step("What there is", demo.sandbox("status"), shown="python -m sandbox status")
    demo.report()
    demo.console.print(
        "\n[green]The burst is up.[/green] `make teardown` takes it away, `make down` the sandbox."
    )


def doctor(demo: Demo) -> None:
    """Run the doctor against what there is."""
    demo.playbook(
        "Look at everything that can be known without spending; nothing is made or changed",
        "playbooks/doctor.yml",
    )
    demo.console.print(
        "\n[green]Nothing is wrong.[/green] Break something, such as by `python -m sandbox exec flux-sample-0 -- "
        "systemctl stop munge`, and run it again: it says what is wrong and what to do."
    )


def teardown(demo: Demo) -> None:
    """Run the teardown playbook and show what is left."""
    demo.playbook("Tear down", "playbooks/teardown.yml")
    demo.step("What is left", demo.sandbox("status"), shown="python -m sandbox status")
    demo.report()


def main() -> int:
    """Run one demo; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.demo", description="A whole burst in the sandbox."
    )
    parser.add_argument("what", choices=["burst", "doctor", "teardown"])
    parser.add_argument("--flux", choices=["auto", "real", "standin"], default="auto")
    parser.add_argument("--name", default=os.environ.get("FLUX_BURST_SANDBOX", "default"))
    options = parser.parse_args()
    demo = Demo(options.name)
    try:
        if options.what == "burst":
            burst(demo, options.flux)
        elif options.what == "doctor":
            doctor(demo)
        else:
            teardown(demo)
    except DemoError as error:
        demo.console.print(f"\n[red]{error}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
