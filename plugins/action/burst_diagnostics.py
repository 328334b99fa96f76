# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep what is known of machines that failed. An action: its arguments hold secrets, and stay in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.flux.burst.plugins.module_utils import _changes, _diagnostics
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ARGUMENTS
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    READERS,
    GceSession,
    last_part,
)

SERIAL = "serial"
OPTIONS: dict[str, Any] = {
    **ARGUMENTS,
    "hosts": {"type": "list", "elements": "str", "required": True},
    "directory": {"type": "path", "required": True},
    "run": {"type": "str", "required": True},
    "findings": {"type": "list", "elements": "dict", "default": []},
    "reports": {"type": "dict", "default": {}},
    "logs": {"type": "dict", "default": {}},
    "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
}


def consoles(params: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, str]:
    """Return what each machine wrote to its console, or why that cannot be read."""
    try:
        params = with_project(dict(params))
        session, project = GceSession.from_params(params), params["project"]
        zones = {
            row["name"]: last_part(row["zone"])
            for row in session.instances(project, params["burst"], "name,zone")
        }
    except BurstError as error:
        return dict.fromkeys(hosts, f"unreadable: {error}")

    def read(host: str) -> str:
        if host not in zones:
            return "there is no such machine"
        try:
            return session.serial(project, zones[host], host)
        except BurstError as error:
            return f"unreadable: {error}"

    with ThreadPoolExecutor(READERS) as readers:
        return dict(zip(hosts, readers.map(read, hosts), strict=True))


class Diagnostics:
    """The files of one run."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params
        self.path = Path(params["directory"]).expanduser() / params["burst"] / params["run"]
        self.files: dict[str, str] = {}

    def collect(self, *, check: bool) -> dict[str, Any]:
        """Write them and return the action's result. Raises BurstError."""
        hosts = list(dict.fromkeys(self.params["hosts"]))
        change = _changes.Change("diagnostics", str(self.path), "create", {}, {"hosts": hosts})
        result = _changes.apply([[change] if hosts else []], self._act, check=check)
        return {**result, "path": str(self.path) if hosts else "", "files": sorted(self.files)}

    def _act(self, stage: _changes.Stage) -> None:
        params = self.params
        hosts = [host for change in stage for host in change.after["hosts"]]
        logs = {host: dict(params["logs"].get(host) or {}) for host in hosts}
        for host, text in consoles(params, hosts).items():
            logs[host][SERIAL] = text
        self.files = _diagnostics.files(
            hosts, params["findings"], params["reports"], logs, params["secrets"]
        )
        _diagnostics.write(str(self.path.parents[1]), params["burst"], params["run"], self.files)


class ActionModule(ActionBase):
    """Run on the controller, whatever the host."""

    _supports_check_mode = True
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the result. Raises AnsibleActionFail."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _unused, params = self.validate_argument_spec(argument_spec=OPTIONS)
        try:
            made = Diagnostics(params).collect(check=self._task.check_mode)
        except BurstError as error:
            raise AnsibleActionFail(str(error)) from None
        return {**result, **made}
