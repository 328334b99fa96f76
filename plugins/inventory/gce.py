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
notes:
  - A cache makes it see machines that are gone; C(meta=refresh_inventory) reads anew, as do the playbooks.
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
"""

EXAMPLES = r"""
# inventory/mysite/gce.yml
plugin: flux.burst.gce
specification: group_vars/all.yml
# Groups of your own, from the variables that each machine has.
keyed_groups:
  - key: iap_zone
    prefix: zone
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.vars import load_extra_vars
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import (
    PROJECT_VARIABLE,
    Auth,
    load,
    project_of,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    READERS,
    GceSession,
    machine,
)

GROUP = "burst_nodes"
GONE = ("STOPPING", "TERMINATED")
NEEDED = ("burst_name", "burst_ssh_private_key_file")
DEFAULTS = {
    "burst_name": "flux-burst",
    "burst_project": None,
    "burst_ssh_user": "burst",
    "burst_compute_endpoint": "https://compute.googleapis.com",
    "burst_credentials_file": None,
    "burst_impersonate_service_account": None,
    "burst_iap_endpoint": None,
    "burst_iap_ca_file": None,
}
# The connection plugin reads them too, and the specification need not be a file that Ansible loads by itself.
PASSED_ON = (
    "burst_compute_endpoint",
    "burst_credentials_file",
    "burst_impersonate_service_account",
    "burst_iap_endpoint",
    "burst_iap_ca_file",
)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Reads one list and, for machines that run, their host keys."""

    NAME = "flux.burst.gce"

    def verify_file(self, path: str) -> bool:
        """Return whether this file is meant for us."""
        return bool(super().verify_file(path)) and path.endswith(("gce.yml", "gce.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the machines. Raises AnsibleParserError, in one line."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        inventory.add_group(GROUP)
        spec = self._specification(Path(path).parent / self.get_option("specification"))
        self.load_cache_plugin()
        try:
            if spec["burst_project"] is None:
                spec["burst_project"] = own_project(spec)
            rows = self._cached(path, spec, cache)
        except GceError as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        for row in rows:
            self._add(row["name"], host_variables(spec, row))

    def _cached(self, path: str, spec: dict[str, Any], cache: bool) -> list[dict[str, Any]]:
        if not self.get_option("cache"):
            return read(spec)
        which = [spec[name] for name in ("burst_compute_endpoint", "burst_project", "burst_name")]
        key = "_".join([self.get_cache_key(path), *which]).replace("/", "_")
        rows: list[dict[str, Any]] | None = self._cache.get(key) if cache else None
        if rows is None:
            rows = self._cache[key] = read(spec)
        return rows

    def _add(self, host: str, variables: dict[str, Any]) -> None:
        strict = self.get_option("strict")
        self.inventory.add_host(host, group=GROUP)
        for name, value in variables.items():
            self.inventory.set_variable(host, name, value)
        self._set_composite_vars(self.get_option("compose"), variables, host, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict)

    def _specification(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            raise AnsibleParserError(
                f"specification: wanted a file with the burst_* variables, found none at {path}."
            )
        given = self.loader.load_from_file(str(path), trusted_as_template=True) or {}
        if not isinstance(given, dict):
            raise AnsibleParserError(
                f"{path}: wanted a mapping of burst_* variables, found {type(given).__name__}."
            )
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


def auth(spec: dict[str, Any]) -> Auth:
    """Return which credentials the specification and the environment name."""
    return Auth.from_environment(
        spec["burst_credentials_file"], spec["burst_impersonate_service_account"]
    )


def own_project(spec: dict[str, Any]) -> str:
    """Return the project of the environment or of the credentials. Raises GceError."""
    return os.environ.get(PROJECT_VARIABLE) or project_of(load(auth(spec)))


def read(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the machines that are not on their way out, each with its host keys. Raises GceError."""
    session = GceSession(spec["burst_compute_endpoint"], auth(spec))
    project = spec["burst_project"]
    rows = [machine(found) for found in session.instances(project, spec["burst_name"])]
    rows = [row for row in rows if row["status"] not in GONE]

    def host_keys(row: dict[str, Any]) -> dict[str, str]:
        if row["status"] != "RUNNING":
            return {}
        return session.host_keys(project, row["zone"], row["name"])

    with ThreadPoolExecutor(READERS) as readers:
        keys = list(readers.map(host_keys, rows))
    return [{**row, "host_keys": found} for row, found in zip(rows, keys, strict=True)]


def host_variables(spec: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Return what Ansible needs to reach a machine."""
    return {
        "ansible_connection": "flux.burst.iap",
        "ansible_user": spec["burst_ssh_user"],
        "ansible_ssh_private_key_file": spec["burst_ssh_private_key_file"],
        "ansible_python_interpreter": "/usr/bin/python3",
        "iap_project": spec["burst_project"],
        "iap_zone": row["zone"],
        "iap_instance_id": row["id"],
        **({"iap_host_keys": row["host_keys"]} if row["host_keys"] else {}),
        **{name: spec[name] for name in PASSED_ON if spec[name] is not None},
        "gce_status": row["status"],
        "gce_machine_type": row["machine_type"],
        "gce_internal_ip": row["internal_ip"],
    }
