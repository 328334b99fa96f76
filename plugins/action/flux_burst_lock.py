# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say for flux_burst_lock who this controller is: the module runs on the lead, and cannot know."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any

from ansible.plugins.action import ActionBase


def owner(pid: int) -> str:
    """Return the name of a run of Ansible on this computer."""
    return f"{getpass.getuser()}@{socket.gethostname()}:{pid}"


def is_dead(found: str) -> bool:
    """Return whether an owner was a process of this computer that is no more."""
    place, _colon, pid = found.rpartition(":")
    if place.rpartition("@")[2] != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


class ActionModule(ActionBase):
    """Run the module, and once more where the lock is a dead process's."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        # This is a worker; the run is its parent.
        given = {**self._task.args, "owner": owner(os.getppid())}
        result: dict[str, Any] = self._execute_module(module_args=given, task_vars=task_vars)
        if result.get("failed") and is_dead(str(result.get("owner", ""))):
            again = {**given, "take_over": result["owner"]}
            result = self._execute_module(module_args=again, task_vars=task_vars)
        return result
