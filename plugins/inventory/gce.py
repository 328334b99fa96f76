# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bursted machines as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gce
short_description: The machines of a burst, by their label
version_added: 0.1.0
author:
  - flux.burst contributors (@flux-framework)
description:
  - Finds the machines that carry the burst's label, puts them into the group C(burst_nodes), and gives each all that
    a connection through IAP needs, its SSH host keys among it.
  - It reads the same specification as the playbooks. What is given with C(-e) wins, as it does there.
  - The file's name must end in C(gce.yml) or C(gce.yaml).
options:
  plugin:
    description: Always V(flux.burst.gce).
    type: str
    required: true
    choices: [flux.burst.gce]
  specification:
    description: The file that holds the C(burst_*) variables, relative to the inventory file.
    type: str
    default: group_vars/all.yml
requirements:
  - google-auth
  - requests
"""

EXAMPLES = r"""
# inventory/mysite/gce.yml
plugin: flux.burst.gce
specification: group_vars/all.yml
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.vars import load_extra_vars
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession, machine

GROUP = "burst_nodes"
GONE = ("STOPPING", "TERMINATED")
KEY_READERS = 16
NEEDED = ("burst_name", "burst_project", "burst_ssh_private_key_file")
DEFAULTS = {
    "burst_name": "flux-burst",
    "burst_ssh_user": "burst",
    "burst_compute_endpoint": "https://compute.googleapis.com",
    "burst_credentials_file": None,
}


class InventoryModule(BaseInventoryPlugin):
    """Reads one list and, for machines that run, their host keys."""

    NAME = "flux.burst.gce"

    def verify_file(self, path: str) -> bool:
        """Return whether this file is meant for us."""
        return super().verify_file(path) and path.endswith(("gce.yml", "gce.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the machines. Raises AnsibleParserError, in one line."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        inventory.add_group(GROUP)
        try:
            spec = self._specification(Path(path).parent / self.get_option("specification"))
            session = GceSession(spec["burst_compute_endpoint"], spec["burst_credentials_file"])
            project = spec["burst_project"]
            found = [
                row
                for row in map(machine, session.instances(project, spec["burst_name"]))
                if row["status"] not in GONE
            ]
            with ThreadPoolExecutor(KEY_READERS) as readers:
                keys = list(readers.map(lambda row: self._host_keys(session, project, row), found))
        except GceError as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        for row, host_keys in zip(found, keys, strict=True):
            inventory.add_host(row["name"], group=GROUP)
            for name, value in host_variables(spec, row, host_keys).items():
                inventory.set_variable(row["name"], name, value)

    def _specification(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise AnsibleParserError(
                f"specification: wanted a file with the burst_* variables, found none at {path}."
            )
        given = self.loader.load_from_file(str(path), trusted_as_template=True) or {}
        variables = {**given, **load_extra_vars(self.loader)}
        self.templar.available_variables = variables
        made = dict(DEFAULTS)
        for name in (*NEEDED, *DEFAULTS):
            if variables.get(name) is not None:
                try:
                    made[name] = self.templar.template(variables[name])
                except AnsibleError as error:
                    raise AnsibleParserError(f"{path}: {name}: {error}") from None
        missing = [name for name in NEEDED if made.get(name) is None]
        if missing:
            raise AnsibleParserError(
                f"{path}: wanted {', '.join(missing)}, found no such variable."
            )
        return made

    @staticmethod
    def _host_keys(session: GceSession, project: str, row: dict[str, Any]) -> dict[str, str]:
        if row["status"] != "RUNNING":
            return {}
        return session.host_keys(project, row["zone"], row["name"])


def host_variables(
    spec: dict[str, Any], row: dict[str, Any], host_keys: dict[str, str]
) -> dict[str, Any]:
    """Return what Ansible needs to reach a machine."""
    return {
        "ansible_connection": "flux.burst.iap",
        "ansible_user": spec["burst_ssh_user"],
        "ansible_ssh_private_key_file": spec["burst_ssh_private_key_file"],
        "ansible_python_interpreter": "/usr/bin/python3",
        "iap_project": spec["burst_project"],
        "iap_zone": row["zone"],
        "iap_instance_id": row["id"],
        "iap_host_keys": host_keys,
        "gce_status": row["status"],
        "gce_machine_type": row["machine_type"],
        "gce_internal_ip": row["internal_ip"],
    }
