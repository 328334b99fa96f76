# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Edit the files of flux_config on the controller: the lead need not have a library that keeps comments."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.flux.burst.plugins.module_utils import (
    _hostlist,
    _lead_hosts,
    _lead_toml,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, SpecError


def edit(found: Mapping[str, Any], read: Callable[[str], str]) -> dict[str, Any]:
    """Return what the module takes as `edited`, from what it returned without. Raises BurstError.

    read returns the text of a file of that machine.
    """
    given = found["given"]
    hosts = _hostlist.expand(given["hostlist"])
    gateway = hosts[0] if given["topology"] == "gateway" else ""
    machines = _lead_hosts.Machines(
        hosts, given["cores"], given["gpus"], given["properties"], gateway
    )
    config = _lead_toml.merged(_lead_toml.load(found["files"]))
    leads = found["hostname"] == _lead_hosts.members(config)[0]
    resource = config.get("resource") or {}
    declared: list[str] = []
    if leads and resource.get("path") and not resource.get("config"):
        declared = hosts_of(resource["path"], read(resource["path"]))
    lacking = _lead_hosts.missing(config, machines, found["ranks"], lead=leads, declared=declared)
    made = _lead_toml.edited(found["files"], lacking)
    return {
        "files": dict(made.files),
        "trial": dict(made.trial),
        "hosts": list(made.hosts),
        "machines": list(machines.hosts),
        # R of a file says itself what properties it has.
        "gateway": gateway,
        "properties": [] if resource.get("path") else list(machines.properties),
    }


def hosts_of(path: str, text: str) -> list[str]:
    """Return the hosts of an R (RFC 20) in a file. Raises SpecError."""
    try:
        nodelist = json.loads(text)["execution"]["nodelist"]
        return [name for hosts in nodelist for name in _hostlist.expand(hosts)]
    except (ValueError, KeyError, TypeError):
        raise SpecError(
            f"{path}: wanted R as flux R encode writes it, with a nodelist, found something else: see [resource] path "
            "of the lead."
        ) from None


class ActionModule(ActionBase):
    """Read by the module, edit here, and let the module do the rest."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        found: dict[str, Any] = self._execute_module(task_vars=task_vars)
        if "files" not in found:
            return found

        def read(path: str) -> str:
            slurped = self._execute_module(
                "ansible.builtin.slurp", {"src": path}, task_vars=task_vars
            )
            return base64.b64decode(slurped.get("content", "")).decode()

        try:
            edited = edit(found, read)
        except BurstError as error:
            return {"failed": True, "changed": False, "msg": str(error)}
        result: dict[str, Any] = self._execute_module(
            module_args={**self._task.args, "edited": edited}, task_vars=task_vars
        )
        return result
