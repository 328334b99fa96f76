# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""measure.py RESULT COMMAND...: run a command and write down what it took, it and all that it leaves in the background.

It is a process of its own: whoever starts a command directly adds its own memory to the command's peak.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time

SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER, see prctl(2): a task that runs asynchronously leaves its parents and comes to us."""


def main(result: str, *command: str) -> int:
    """Return the command's exit code."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    began = time.perf_counter()
    code = subprocess.call(command)
    wall = time.perf_counter() - began
    try:
        while True:
            os.wait()
    except ChildProcessError:
        # Nobody is left.
        pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss / 1024}
    with open(result, "w") as file:
        json.dump(found, file)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
