# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sandbox with a prepared image and a job of the lead's own, burst again and again, and what must hold each time."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.flux.burst.plugins.module_utils._flux_claim import FOLDER, HOSTS, holder
from burst_sandbox import WORKER, Run, Sandbox, machines, sandbox_name, submit, succeeded
from compute_server import ComputeServer
from gce_modules import MORE_PLACES, held
from relay_line import Line, carrying

NAMES = machines(3)
# Machines that do not come are to be told soon, and seeds are many.
QUICK = [
    *("-e", "burst_image_prepared=true"),
    *("-e", "burst_boot_timeout=10", "-e", "burst_join_timeout=12", "-e", "burst_drain_timeout=30"),
]
AGAIN = [*QUICK, "-e", "burst_on_node_failure=replace"]
LOGS = f"""
for folder in {FOLDER} {HOSTS}; do
  for key in $(flux kvs ls -1 $folder 2>/dev/null); do
    echo "$folder.$key $(flux kvs get --raw $folder.$key | base64 -w0)"
  done
done
"""
SHOWN = "flux jobs -n -f pending -o '{id.f58plain} {user.burst.name}'"
ENDED = 40
"""Seconds in which a job that has its machines ends."""


class Broken(Exception):
    """An invariant does not hold."""


@dataclass
class Site:
    """The sandbox, the line to its relay, its Compute Engine, and the job that must not be disturbed."""

    sandbox: Sandbox
    line: Line
    server: ComputeServer
    own: str = ""

    def lead(self, text: str) -> str:
        """Return what a script prints on the lead, run by the instance's owner; it must succeed. Raises Broken."""
        done = self.sandbox.on_lead("timeout", "60", "sh", "-ec", text)
        if done.code:
            raise Broken(f"the lead does not do {text!r}: {done.output}")
        return done.output.strip()

    def occupy(self) -> None:
        """Let a job of the lead's own run on its own node, where none runs."""
        if not self.own or self.lead(f"flux jobs -n -o '{{state}}' {self.own}") != "RUN":
            # Before the burstable job, which blocks the queue where it waits still.
            words = f"-N1 -n1 --urgency=31 --requires=host:{WORKER} --cwd=/tmp"
            self.own = self.lead(f"flux submit --wait-event=start {words} sleep inf")

    def waits(self) -> bool:
        """Return whether a burstable job waits."""
        return bool(self.lead("flux jobs -n -f pending -o '{id}'"))

    def submit(self) -> str:
        """Submit a job that needs a burst of three."""
        return submit(self.sandbox, "-N", "3")

    def playbook(self, name: str, options: list[str]) -> Run:
        """Run a playbook that has to succeed. Raises Broken."""
        done = self.sandbox.playbook(name, *options)
        if done.code:
            raise Broken(f"{name} failed:\n{done.output[-3000:]}")
        return done

    def unchanged(self, name: str) -> None:
        """Run a playbook that finds nothing to do. Raises Broken."""
        changed = self.playbook(name, QUICK).changed
        if changed:
            raise Broken(f"{name} after one that succeeded changed {changed}")

    def ids(self) -> dict[str, str]:
        """The machines' ids by name, in every zone."""
        scopes = self.server.call("GET", "aggregated/instances")[1].get("items", {})
        rows = [row for scope in scopes.values() for row in scope.get("instances", [])]
        return {row["name"]: row["id"] for row in rows}

    def check_served(self, job: str) -> None:
        """See that a job has run, and that all three machines take one. Raises Broken."""
        wait = f"timeout {ENDED} flux job status"
        self.lead(f"{wait} {job}")
        words = "-N3 --requires=burst --cwd=/tmp"
        self.lead(f"{wait} $(flux submit {words} hostname)")
        found = self.ids()
        if sorted(found) != NAMES:
            raise Broken(f"wanted the machines {NAMES}, found {found}")

    def check_undisturbed(self) -> None:
        """See that the lead's own job runs. Raises Broken."""
        found = self.lead(f"flux jobs -n -o '{{state}}' {self.own}")
        if found != "RUN":
            raise Broken(f"wanted the lead's own job {self.own} running, found {found}")

    def check_nothing_left(self) -> None:
        """See that nothing is left of a burst, at Google, on the lead, and here. Raises Broken."""
        left = held(self.server, MORE_PLACES)
        claims = self.claims()
        left += [f"claim {name}" for name in claims]
        drained = self.lead("flux resource drain -n -o '{nodelist} {reason}'")
        left += [f"drain {line}" for line in drained.splitlines()]
        up = self.lead(f"flux resource list -n -s up -i {','.join(NAMES)} -o '{{nodelist}}'")
        left += [f"rank {up.strip()}"] if up.strip() else []
        shown = [line.split() for line in self.lead(SHOWN).splitlines()]
        left += [f"memo of {row[0]}" for row in shown if len(row) > 1]
        folder = self.sandbox.state / "bursts/flux-burst"
        left += [str(path) for path in folder.rglob("*") if path.is_file()]
        if left:
            raise Broken(f"left over: {left}")

    def claims(self) -> list[str]:
        """What is claimed on the lead: jobs and hosts."""
        found = []
        for line in self.lead(LOGS).splitlines():
            name, _unused, text = line.partition(" ")
            log = base64.b64decode(text).decode()
            if holder(log) is not None:
                found.append(name)
        return found

    def clean(self) -> None:
        """Take all away, whatever is there, for the next to begin with nothing."""
        self.server.faults()
        self.lead("flux cancel --all --states=pending || true")
        self.sandbox.playbook("teardown", *QUICK)
        self.sandbox.shell(
            "flux-sample-0",
            f"flux resource undrain -f {','.join(NAMES)} 2>/dev/null || true",
        )


@contextmanager
def site(kind: str) -> Iterator[Site]:
    """Run a sandbox whose image is prepared; it has to go down cleanly."""
    made = Sandbox(sandbox_name("chaos"), kind)
    made.command("down")
    try:
        succeeded(made.up("--machines", "prepared"))
        port = urlsplit(made.env["FLUX_BURST_IAP_ENDPOINT"]).port
        assert port is not None
        with carrying(port) as line:
            made.env["FLUX_BURST_IAP_ENDPOINT"] = f"wss://127.0.0.1:{line.port}"
            endpoint = made.env["FLUX_BURST_COMPUTE_ENDPOINT"]
            server = ComputeServer(endpoint, "", "", made.state, 0)
            yield Site(made, line, server)
    finally:
        down = made.command("down")
    assert down.code == 0, down.output


def failure(output: str) -> str:
    """Return what a run says last of its failures, in one line. Raises Broken where that is nobody's to read."""
    if "Traceback" in output:
        raise Broken(f"a traceback: {output[-3000:]}")
    text = output.partition("PLAY RECAP")[0]
    last = text[text.rindex("TASK [") :] if "TASK [" in text else text
    if "fatal: " not in last and "[ERROR]" not in last:
        raise Broken(f"wanted a failure that is told, found {output[-3000:]}")
    return " ".join(last.split()).replace("''", "'")
