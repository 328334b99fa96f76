# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of tests/chaos/machine_schedules.py made to happen in a sandbox, and lifted again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial

from burst_sandbox import LEAD, Sandbox
from clock_behind import DROP_IN, behind
from controllers import Played, Point, play
from fault_schedules import Fault
from machine_schedules import MACHINE_KINDS, MachineSchedule
from relay_line import Line

from sandbox.machines import processes
from sandbox.machines.cloudnet import cloud_namespace, machine_namespace, short

PROJECT, SITE = "sandbox-project", "sandbox-site"
# A directory that a burst writes to has no room; what was there is beneath.
FULL = """
mount -t tmpfs -o size=16k tmpfs /etc/flux/system
mkdir -p /etc/flux/system/conf.d
dd if=/dev/zero of=/etc/flux/system/full bs=1k || true
"""
NO_MUNGE = "systemctl mask --runtime --quiet munge; systemctl stop munge"
LIFT = f"""
umount /etc/flux/system 2>/dev/null || true
systemctl unmask --runtime --quiet munge
rm -rf {DROP_IN}
systemctl daemon-reload
systemctl try-restart munge || true
"""
FLUX_ON = (
    "until flux resource list -n -s up -o {nodelist} | grep -q flux-sample-1; do sleep 0.2; done"
)
clock_off = cache(behind)


class Faults:
    """One schedule's faults of machines, of the way to them, and of the lead."""

    def __init__(self, sandbox: Sandbox, line: Line, given: MachineSchedule) -> None:
        self.sandbox, self.line = sandbox, line
        self.faults = [each for each in given.faults if each[0] in MACHINE_KINDS]
        self.happened: list[str] = []
        self._over = threading.Event()
        self._stopped: list[int] = []

    def points(self) -> dict[Point, Callable[[], None] | None]:
        """Return what happens at which executions."""
        found: dict[Point, Callable[[], None] | None] = {}
        for kind, fault in self.faults:
            if "nth" in fault:
                point = Point(fault["host"], fault["nth"], fault["moment"])
                happens = None if kind == "controller killed" else partial(self.happen, kind, fault)
                # A kill ends all that would come at the same point.
                found[point] = None if point in found and found[point] is None else happens
        return found

    def happen(self, kind: str, fault: Fault) -> None:
        """Let a fault happen."""
        self.happened.append(kind)
        host = fault["host"]
        if kind == "dies":
            processes.kill_machine(self._namespace(host))
        elif kind == "preempted":
            url = f"{self.sandbox.env['FLUX_BURST_COMPUTE_ENDPOINT']}/sandbox/preempt/{PROJECT}/{host}"
            with contextlib.suppress(OSError):  # It is gone already.
                urllib.request.urlopen(urllib.request.Request(url, b"", method="POST")).close()
        elif kind == "disk full":
            self.sandbox.execute(host, "sh", "-c", FULL)
        elif kind == "munge dead":
            self.sandbox.execute(host, "sh", "-c", NO_MUNGE)
        elif kind == "clock off":
            self.sandbox.execute(host, "sh", "-c", clock_off())
        elif kind == "tunnel cut":
            # While the execution runs.
            threading.Timer(0.3, self.line.cut, (fault["seconds"],)).start()
        elif kind == "lead restarts":
            self.sandbox.shell(LEAD, "systemctl restart flux")
        elif kind == "lead unreachable":
            self._link("down")
            threading.Timer(fault["seconds"], self._link, ("up",)).start()
        else:
            raise ValueError(kind)

    @contextmanager
    def at_boot(self) -> Iterator[None]:
        """Let machines that do not boot, or boot late, meet that as soon as they begin to."""
        late = {fault["host"]: fault for kind, fault in self.faults if "nth" not in fault}
        threads = [threading.Thread(target=self._at_boot, args=each) for each in late.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _at_boot(self, host: str, fault: Fault) -> None:
        while not self._over.wait(0.02):
            leader = processes.leader(self._namespace(host))
            if leader is None:
                continue
            if "seconds" not in fault:
                self.happened.append("never boots")
                processes.kill_machine(self._namespace(host))
                return
            self.happened.append("boots late")
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGSTOP)
                self._over.wait(fault["seconds"])
                os.kill(leader, signal.SIGCONT)
            return

    def lift(self) -> None:
        """End all that goes on: what is broken in a machine, and what is between it and us."""
        self.line.until = 0.0
        self._link("up")
        for kind, fault in self.faults:
            if kind in ("disk full", "munge dead", "clock off"):
                self.sandbox.execute(fault["host"], "sh", "-c", LIFT)
        self.sandbox.execute(LEAD, "timeout", "30", "sh", "-c", FLUX_ON, user="flux")

    def _namespace(self, host: str) -> str:
        return machine_namespace(self.sandbox.name, PROJECT, host)

    def _link(self, state: str) -> None:
        """Switch the lead's way to everything else off or on."""
        space, link = cloud_namespace(self.sandbox.name), f"v{short(SITE, LEAD)}"
        subprocess.run(["ip", "-n", space, "link", "set", link, state], check=True)


def play_with(
    sandbox: Sandbox, line: Line, given: MachineSchedule, options: list[str]
) -> tuple[Played, list[str]]:
    """Run the schedule's playbook with its faults of machines; return the run and which of them came."""
    faults = Faults(sandbox, line, given)
    try:
        with faults.at_boot():
            played = play(sandbox, given.playbook, options, faults.points())
    finally:
        # What was begun may be about to happen still.
        time.sleep(0.4)
        faults.lift()
    return played, faults.happened + ["controller killed"] * played.killed
