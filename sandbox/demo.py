# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make burst`, `make doctor`, `make teardown` and `make lead-gke`: the user's side of a burst, run in the sandbox.

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

from sandbox.paths import state_of

TOP = Path(__file__).resolve().parent.parent
LEAD = "flux-sample-0"
JOB = ["flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname"]
GKE_JOB = ["flux", "submit", "-N", "5", *JOB[4:]]
JOB_LIMIT = 60
GKE_NAME = "lead-gke"
GKE = ["-i", "inventory/gke", "-e", "@sandbox/lead_gke.yml"]
# In its container, the lead is reached as the instance's owner, by the socket that the operator gives it.
IN_POD = ["exec", "service/flux-sample-lead", "--container", "flux-sample", "--"]
AS_FLUX = ["runuser", "-u", "flux", "--", "env", "FLUX_URI=local:///mnt/flux/config/run/flux/local"]


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

    def in_pod(self, title: str, command: list[str], stdout: int | None = None) -> str:
        """Run a command as user flux in the container of a lead that is a pod."""
        return self.kubectl(title, [*IN_POD, *AS_FLUX, *command], stdout)

    def kubectl(self, title: str, words: list[str], stdout: int | None = None) -> str:
        """Run kubectl with the kubeconfig that the playbook wrote."""
        kubeconfig = state_of(self.name) / "bursts" / "kubeconfig-flux-cluster"
        command = [str(Path(sys.executable).with_name("kubectl")), "--kubeconfig", str(kubeconfig)]
        return self.step(
            title, [*command, *words], shown=f"kubectl {shlex.join(words)}", stdout=stdout
        )

    def playbook(self, title: str, name: str, *options: str) -> None:
        """Run a playbook, pointed at this sandbox."""
        exports = subprocess.run(
            self.sandbox("env"), cwd=TOP, stdout=subprocess.PIPE, text=True, check=False
        )
        if exports.returncode:
            raise DemoError(f"sandbox {self.name} does not run; `make burst` starts one.")
        words = (word for line in exports.stdout.splitlines() for word in shlex.split(line)[1:])
        self.env.update(dict(word.split("=", 1) for word in words))
        command = str(Path(sys.executable).with_name("ansible-playbook"))
        given = [*options, name]
        self.step(title, [command, *given], shown=f"ansible-playbook {shlex.join(given)}")

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


def lead_gke(demo: Demo, flux: str) -> None:
    """Make a lead in GKE and burst from it."""
    demo.step(
        "Bring a sandbox up that has no lead",
        demo.sandbox("up", "--flux", flux, "--lead", "gke"),
        shown=f"python -m sandbox up --name {demo.name} --lead gke",
    )
    demo.playbook(
        "Make the lead: cluster, operator, MiniCluster, service, firewall",
        "playbooks/lead_gke.yml",
        *GKE,
    )
    demo.kubectl("What there is in the cluster", ["get", "nodes,pods,services", "-o", "wide"])
    demo.in_pod("Nodes before", ["flux", "resource", "list"])
    job = demo.in_pod(
        "Submit a job for all nodes, also those that are not there", GKE_JOB, subprocess.PIPE
    )
    demo.console.print(job)
    demo.playbook("Burst", "playbooks/burst.yml", *GKE)
    demo.in_pod("Nodes after", ["flux", "resource", "list"])
    attach = ["timeout", "-k", "5", str(JOB_LIMIT), "flux", "job", "attach", job]
    demo.in_pod("The job's output", attach)
    demo.report()
    demo.console.print(
        "\n[green]The burst is up.[/green] These take away what there is, step by step:"
    )
    for name in ("teardown.yml", "lead_gke_teardown.yml"):
        named = "" if name == "teardown.yml" else " -e lead_gke_delete_cluster=flux-cluster"
        demo.console.print(f"  ansible-playbook {shlex.join(GKE)} playbooks/{name}{named}")
    demo.console.print(
        f'after eval "$(python -m sandbox env --name {demo.name})"; '
        f"python -m sandbox down --name {demo.name} takes all of it away."
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
    parser.add_argument("what", choices=["burst", "doctor", "teardown", "lead-gke"])
    parser.add_argument("--flux", choices=["auto", "real", "standin"], default="auto")
    parser.add_argument("--name")
    options = parser.parse_args()
    gke = options.what == "lead-gke"
    # A sandbox of its own: the usual one has a lead that is no pod.
    usual = GKE_NAME if gke else os.environ.get("FLUX_BURST_SANDBOX", "default")
    demo = Demo(options.name or usual)
    try:
        if gke:
            lead_gke(demo, options.flux)
        elif options.what == "burst":
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
