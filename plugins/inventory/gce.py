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
    a connection through IAP needs. That connection reads a machine's SSH host keys itself, from the same API, when it
    is first used, so that the size of a burst costs nothing here but a page for every 500 machines.
  - Each machine is also in a group for its burst (C(flux_burst_NAME)), its zone (C(zone_ZONE)), its state
    (C(state_STATE), in small letters) and, where it has a label for it, its role (C(role_ROLE)). What a group's name
    cannot hold, such as a dash, is an underscore there.
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
  projects:
    description: Google Cloud projects to look in, side by side. Without any, that of the specification.
    type: list
    elements: str
    default: []
  bursts:
    description:
      - V(own) finds the machines of the specification's burst, V(all) those of every burst.
      - The group C(burst_nodes) has the own ones alone in either case.
      - Where two machines have one name, the second, and never an own one before another's, is called
        C(NAME.ZONE.c.PROJECT.internal), which is its name in Compute Engine's DNS.
    type: str
    choices: [own, all]
    default: own
  states:
    description: States in which a machine is listed. By default those that it is in before it is told to stop.
    type: list
    elements: str
    choices: [PROVISIONING, STAGING, RUNNING, REPAIRING, SUSPENDING, SUSPENDED, STOPPING, TERMINATED]
    default: [PROVISIONING, STAGING, RUNNING, REPAIRING]
  role_label:
    description: The label whose value is a machine's role.
    type: str
    default: flux-burst-role
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
  - key: gce_machine_type
    prefix: type

# inventory/overview/gce.yml: every burst of a site that has several projects.
---
plugin: flux.burst.gce
specification: ../mysite/group_vars/all.yml
projects: [my-project, my-other-project]
bursts: all
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleParserError
from ansible.inventory.group import to_safe_group_name
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.plugins.loader import connection_loader
from ansible_collections.flux.burst.plugins.module_utils import _burst_directory
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import (
    PROJECT_VARIABLE,
    Auth,
    load,
    project_of,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    LABEL,
    READERS,
    USER_LABEL,
    GceSession,
    machine,
)
from ansible_collections.flux.burst.plugins.plugin_utils._specification import (
    read as read_specification,
)

GROUP = "burst_nodes"
FIELDS = "id,name,zone,status,machineType,labels,networkInterfaces(networkIP,accessConfigs/natIP)"
DEFAULTS = {
    "burst_name": "flux-burst",
    "burst_project": None,
    "burst_directory": None,
    "burst_ssh_user": "burst",
    "burst_ssh_private_key_file": None,
    "burst_ssh_via": "iap",
    "burst_compute_endpoint": "https://compute.googleapis.com",
    "burst_credentials_file": None,
    "burst_impersonate_service_account": None,
    "burst_iap_endpoint": None,
    "burst_iap_ca_file": None,
}
# The connection plugin reads them too, and the specification need not be a file that Ansible loads by itself.
PASSED_ON = (
    "burst_directory",
    "burst_compute_endpoint",
    "burst_credentials_file",
    "burst_impersonate_service_account",
    "burst_iap_endpoint",
    "burst_iap_ca_file",
)

Row = dict[str, Any]


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Reads one list of machines in each project."""

    NAME = "flux.burst.gce"

    def verify_file(self, path: str) -> bool:
        """Return whether this file is meant for us."""
        return bool(super().verify_file(path)) and path.endswith(("gce.yml", "gce.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the machines. Raises AnsibleParserError, in one line."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self._role_label = self.get_option("role_label")
        names = ("compose", "groups", "keyed_groups", "strict")
        self._constructed = [self.get_option(name) for name in names]
        self._made: dict[tuple[str, str], str] = {}
        inventory.add_group(GROUP)
        spec = read_specification(
            self, Path(path).parent / self.get_option("specification"), DEFAULTS
        )
        self.load_cache_plugin()
        try:
            if spec["burst_project"] is None:
                spec["burst_project"] = own_project(spec)
            rows = self._cached(path, spec, cache)
        except GceError as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        if rows:
            load_connection()
        wanted = self.get_option("states")
        same_for_all = common_variables(spec)
        first = gateways(rows) if spec["burst_ssh_via"] == "gateway" else {}
        for host, row in named(rows, spec["burst_name"]):
            if row["status"] in wanted:
                gateway = {"iap_gateway": first[burst_of(row)]} if first else {}
                self._add(host, {**same_for_all, **host_variables(row, spec), **gateway})
                for group in self._groups(row, spec["burst_name"]):
                    inventory.add_child(group, host)

    def _cached(self, path: str, spec: dict[str, Any], cache: bool) -> list[Row]:
        burst = spec["burst_name"] if self.get_option("bursts") == "own" else None
        projects = self.get_option("projects") or [spec["burst_project"]]
        if not self.get_option("cache"):
            return read(spec, projects, burst)
        which = [spec["burst_compute_endpoint"], *projects, burst or "all bursts"]
        key = "_".join([self.get_cache_key(path), *which]).replace("/", "_")
        rows: list[Row] | None = self._cache.get(key) if cache else None
        if rows is None:
            rows = self._cache[key] = read(spec, projects, burst)
        return rows

    def _add(self, host: str, variables: dict[str, Any]) -> None:
        self.inventory.add_host(host)
        # Not by set_variable, which tags each value with where it comes from: that costs more than all else here.
        # What has no tag is data; it is never taken for a template.
        self.inventory.hosts[host].vars.update(variables)
        compose, groups, keyed_groups, strict = self._constructed
        if compose:
            self._set_composite_vars(compose, variables, host, strict)
        if groups:
            self._add_host_to_composed_groups(groups, variables, host, strict)
        if keyed_groups:
            self._add_host_to_keyed_groups(keyed_groups, variables, host, strict)

    def _groups(self, row: Row, burst: str) -> list[str]:
        """Return the names of a machine's groups, which are made where they are not there."""
        labels = row["labels"]
        kinds = [
            ("flux_burst", labels[LABEL]),
            ("zone", row["zone"]),
            ("state", row["status"].lower()),
            ("role", labels.get(self._role_label)),
        ]
        for kind in kinds:
            if kind not in self._made and kind[1]:
                name = to_safe_group_name("_".join(kind), force=True, silent=True)
                self._made[kind] = self.inventory.add_group(name)
        own = [GROUP] if labels[LABEL] == burst else []
        return own + [self._made[kind] for kind in kinds if kind[1]]


def auth(spec: dict[str, Any]) -> Auth:
    """Return which credentials the specification and the environment name."""
    return Auth.from_environment(
        spec["burst_credentials_file"], spec["burst_impersonate_service_account"]
    )


def own_project(spec: dict[str, Any]) -> str:
    """Return the project of the environment or of the credentials. Raises GceError."""
    return os.environ.get(PROJECT_VARIABLE) or project_of(load(auth(spec)))


def read(spec: dict[str, Any], projects: Iterable[str], burst: str | None) -> list[Row]:
    """Return the machines of a burst, or of every burst, project by project and by name. Raises GceError."""
    session = GceSession(spec["burst_compute_endpoint"], auth(spec))
    which = f"labels.{LABEL}={burst}" if burst else f"labels.{LABEL}:*"

    def machines(project: str) -> list[Row]:
        found = session.aggregated(project, "instances", FIELDS, filter=which)
        # Who does not heed the filter gives others as well.
        ours = [each for each in found if LABEL in each.get("labels", {})]
        rows = [{**machine(each), "project": project, "labels": each["labels"]} for each in ours]
        return sorted(rows, key=lambda row: (row["name"], row["zone"]))

    with ThreadPoolExecutor(READERS) as readers:
        return [row for rows in readers.map(machines, projects) for row in rows]


def named(rows: Iterable[Row], burst: str) -> list[tuple[str, Row]]:
    """Return the machines with their names in the inventory: a burst's own come first to a name that two have."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["labels"][LABEL] != burst):
        name = row["name"]
        if name in found:
            name = f"{name}.{row['zone']}.c.{row['project']}.internal"
        found[name] = row
    return list(found.items())


def load_connection() -> None:
    """Load the connection that the machines are reached by, for the workers to inherit.

    Ansible would do it anew in each worker, which is one for every task on every machine.
    """
    listing = any(context.CLIARGS.get(option) for option in ("list", "graph", "host"))
    if not listing:
        connection_loader.get("flux.burst.iap", class_only=True)


def common_variables(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what Ansible needs to reach any machine."""
    return {
        "ansible_connection": "flux.burst.iap",
        "ansible_python_interpreter": "/usr/bin/python3",
        "iap_via": spec["burst_ssh_via"],
        **{name: spec[name] for name in PASSED_ON if spec[name] is not None},
    }


def gateways(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, str]]:
    """Return the first machine of each burst that runs, as the connection plugin takes it: the way to the others."""
    found: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row["status"] != "RUNNING", row["name"])):
        found.setdefault(burst_of(row), row)
    return {
        burst: {"instance": row["name"], "zone": row["zone"], "instance_id": row["id"]}
        for burst, row in found.items()
    }


def burst_of(row: Row) -> tuple[str, str]:
    """Return which burst a machine is of, by project and name."""
    return row["project"], row["labels"][LABEL]


def host_variables(row: Row, spec: dict[str, Any]) -> dict[str, Any]:
    """Return what is a machine's own."""
    burst = row["labels"][LABEL]
    own_key = _burst_directory.key_of(spec["burst_directory"], burst)
    return {
        "ansible_user": row["labels"].get(USER_LABEL) or spec["burst_ssh_user"],
        "ansible_ssh_private_key_file": spec["burst_ssh_private_key_file"] or str(own_key),
        "iap_burst": burst,
        "iap_project": row["project"],
        "iap_zone": row["zone"],
        "iap_instance_id": row["id"],
        "gce_status": row["status"],
        "gce_machine_type": row["machine_type"],
        "gce_internal_ip": row["internal_ip"],
        "gce_external_ip": row["external_ip"],
        "gce_labels": row["labels"],
    }
