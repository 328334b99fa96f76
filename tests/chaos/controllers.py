# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook that stops at chosen remote executions, for something to happen there, or for it to be killed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from burst_sandbox import Run, Sandbox

PROGRAM = Path(__file__).parent / "waylaid_ssh.py"
MARK = "FLUX_BURST_TEST_CONTROLLER"


@dataclass(frozen=True)
class Point:
    """The nth execution on a host, or of all where host is "", from 0 on; the moment is "before" or "after" it."""

    host: str
    nth: int
    moment: str = "before"


@dataclass(frozen=True)
class Played:
    """What a run printed, on which hosts it executed something, in this order, and whether it was killed."""

    run: Run
    executions: tuple[str, ...]
    killed: bool


def play(
    sandbox: Sandbox,
    playbook: str,
    options: Sequence[str],
    points: Mapping[Point, Callable[[], None] | None],
) -> Played:
    """Run a playbook. At each point that it reaches it waits until what is to happen there has; None kills it.

    A kill is SIGKILL to all that the playbook started, its connections among them, as when the controller loses power.
    """
    mark, killed = uuid.uuid4().hex, False
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(1) as pool:
        folder = Path(name)
        (folder / "points.json").write_text(json.dumps([asdict(point) for point in points]))
        ssh = folder / "ssh"
        command = shlex.join([sys.executable, "-I", "-S", str(PROGRAM), str(folder)])
        ssh.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        ssh.chmod(0o755)
        environment = {"ANSIBLE_SSH_EXECUTABLE": str(ssh), MARK: mark}
        running = pool.submit(sandbox.playbook, playbook, *options, **environment)
        waiting = dict(enumerate(points.values()))
        try:
            while not running.done():
                for number in [it for it in waiting if (folder / f"reached-{it}").exists()]:
                    happens = waiting.pop(number)
                    if happens is None:
                        killed = True
                        kill(mark)
                    else:
                        happens()
                        (folder / f"go-{number}").touch()
                time.sleep(0.01)
        except BaseException:
            kill(mark)
            raise
        counted = folder / "executions"
        executions = counted.read_text().split() if counted.exists() else []
        return Played(running.result(), tuple(executions), killed)


def kill(mark: str) -> None:
    """Kill every process that was started with this mark in its environment, until there is none."""
    wanted = f"{MARK}={mark}".encode()
    while True:
        found = 0
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and wanted in (folder / "environ").read_bytes():
                    found += 1
                    os.kill(int(folder.name), signal.SIGKILL)
        if not found:
            return
        time.sleep(0.01)
