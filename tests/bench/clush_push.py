# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""clush_push.py SSH_CONFIG HOSTS COMMAND: run a command on all hosts by ClusterShell, with our input from base64."""

from __future__ import annotations

import base64
import sys

from ClusterShell.Task import task_self

FANOUT = 64


def main(config: str, hosts: str, command: str) -> int:
    """Return the largest exit code; what failed is printed."""
    given = base64.b64decode(sys.stdin.read())
    task = task_self()
    task.set_info("fanout", FANOUT)
    task.set_info("ssh_options", f"-F {config}")
    worker = task.shell(command, nodes=hosts, stdin=True)
    worker.write(given)
    worker.set_write_eof()
    task.run()
    for output, nodes in task.iter_buffers():
        print(f"{nodes}: {output}")
    return task.max_retcode() or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
