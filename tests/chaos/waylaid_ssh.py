# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh that stops at chosen executions until it is told to go on. See tests/chaos/controllers.py.

Arguments: a directory with points.json, and ssh's own. What it counts, under a lock, is what Ansible executes remotely,
not how it opens, checks and closes connections.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from select import select

PAUSE = 0.01


def place(folder: Path, host: str) -> dict[str, int]:
    """Count one execution, and return which it is: of all ("") and of its host, from 0 on."""
    with (folder / "executions").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read().split()
        file.write(f"{host}\n")
    return {"": len(before), host: before.count(host)}


def wait(folder: Path, number: int) -> None:
    """Say that this point is reached, and return when it is let go; end where nobody is left to do so."""
    (folder / f"reached-{number}").touch()
    while not (folder / f"go-{number}").exists():
        if not folder.exists():
            sys.exit(255)
        time.sleep(PAUSE)


def main(folder: Path, words: list[str]) -> int:
    """Be ssh; return its exit code."""
    if len(words) < 2 or not words[-1].startswith("/bin/sh -c "):
        os.execvp("ssh", ["ssh", *words])
    found = place(folder, words[-2])
    points = json.loads((folder / "points.json").read_text())
    here = [
        (number, point["moment"])
        for number, point in enumerate(points)
        if found.get(point["host"]) == point["nth"]
    ]
    for number, moment in here:
        if moment == "before":
            wait(folder, number)
    after = [number for number, moment in here if moment == "after"]
    if not after:
        os.execvp("ssh", ["ssh", *words])
    return held_back(folder, after, words)


def held_back(folder: Path, points: list[int], words: list[str]) -> int:
    """Be ssh, but keep its answer until these points are let go; return its exit code.

    Ansible sends a module once sudo says that it lets it in: that much is passed on.
    """
    with tempfile.TemporaryFile() as errors:
        ssh = subprocess.Popen(["ssh", *words], stdout=subprocess.PIPE, stderr=errors)
        assert ssh.stdout is not None
        answer = b""
        # Its master process may keep the pipe open.
        while select([ssh.stdout], [], [], PAUSE)[0] or ssh.poll() is None:
            answer += (data := os.read(ssh.stdout.fileno(), 1 << 16))
            line, begun, rest = answer.partition(b"\n")
            if begun and line.startswith(b"BECOME-SUCCESS"):
                pass_on(1, line + begun)
                answer = rest
            if not data:
                break
        code = ssh.wait()
        for number in points:
            wait(folder, number)
        pass_on(1, answer)
        errors.seek(0)
        pass_on(2, errors.read())
    return code


def pass_on(stream: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(stream, data) :]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
