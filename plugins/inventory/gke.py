# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lead in GKE as an inventory."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gke
short_description: The lead of a MiniCluster in GKE, wherever its pod is
version_added: 0.1.0
author:
  - flux.burst contributors (@flux-framework)
description:
  - Finds the lead as M(flux.burst.gke_lead_info) does, anew in every run, and puts it into the group C(flux_lead)
    under its name in Flux, with all that a connection by C(kubernetes.core.kubectl) needs.
  - All hosts get C(gke_lead_address) and C(gke_lead_port), which the specification names as C(burst_lead_address) and
    C(burst_lead_port).
  - Where there is no kubeconfig yet, or no pod that runs, the group is empty, and a warning says why.
  - It reads the same specification as the playbooks. What is given with C(-e) wins, as it does there.
  - The file's name must end in C(gke.yml) or C(gke.yaml).
options:
  plugin:
    description: Always V(flux.burst.gke).
    type: str
    required: true
    choices: [flux.burst.gke]
  specification:
    description: The file that holds the C(burst_*) and C(lead_gke_*) variables, relative to the inventory file.
    type: str
    default: group_vars/all.yml
  shell:
    description:
      - Shell that runs the modules in the container. V(/bin/bash) reads the file that E(BASH_ENV) of the container
        names, for instance the one with the paths of a Flux view.
    type: str
    default: /bin/sh
  python:
    description: Python interpreter in the container.
    type: str
    default: /usr/bin/python3
requirements:
  - kubernetes
  - kubectl on the controller
"""

EXAMPLES = r"""
# inventory/mysite/gke.yml
plugin: flux.burst.gke
specification: group_vars/all.yml
"""

from pathlib import Path
from typing import Any

from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.flux.burst.plugins.module_utils import _burst_directory
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._gke_lead import find, service_of
from ansible_collections.flux.burst.plugins.module_utils._kube import Kube
from ansible_collections.flux.burst.plugins.plugin_utils._specification import (
    read as read_specification,
)

GROUP = "flux_lead"
DEFAULTS = {
    "burst_directory": None,
    "lead_gke_cluster": "flux-cluster",
    "lead_gke_kubeconfig": "",
    "lead_gke_namespace": "default",
    "lead_gke_minicluster": "flux-sample",
    "lead_gke_address": "external",
}


class InventoryModule(BaseInventoryPlugin):
    """Asks the cluster three times: for pods, a node and a service."""

    NAME = "flux.burst.gke"

    def verify_file(self, path: str) -> bool:
        """Return whether this file is meant for us."""
        return bool(super().verify_file(path)) and path.endswith(("gke.yml", "gke.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the lead. Raises AnsibleParserError for a specification that cannot be read."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        inventory.add_group(GROUP)
        spec = read_specification(
            self, Path(path).parent / self.get_option("specification"), DEFAULTS
        )
        kubeconfig = kubeconfig_of(spec)
        if not kubeconfig.exists():
            self.display.vv(f"{path}: no kubeconfig at {kubeconfig}: group {GROUP} is empty.")
            return
        minicluster = spec["lead_gke_minicluster"]
        try:
            lead = find(
                Kube(str(kubeconfig)),
                spec["lead_gke_namespace"],
                minicluster,
                service_of(minicluster),
                spec["lead_gke_address"],
                timeout=0,
            )
        except BurstError as error:
            self.display.warning(f"{path}: group {GROUP} is empty: {error}")
            return
        ways = {"shell": self.get_option("shell"), "python": self.get_option("python")}
        inventory.add_host(lead["hostname"], GROUP)
        inventory.hosts[lead["hostname"]].vars.update(host_variables(lead, str(kubeconfig), **ways))
        for name in ("address", "port"):
            inventory.set_variable("all", f"gke_lead_{name}", lead[name])


def kubeconfig_of(spec: dict[str, Any]) -> Path:
    """Return where the kubeconfig is that the playbook writes, or the one that is given."""
    if spec["lead_gke_kubeconfig"]:
        return Path(spec["lead_gke_kubeconfig"]).expanduser()
    return (
        _burst_directory.top_of(spec["burst_directory"]) / f"kubeconfig-{spec['lead_gke_cluster']}"
    )


def host_variables(
    lead: dict[str, Any], kubeconfig: str, shell: str, python: str
) -> dict[str, Any]:
    """Return what Ansible needs to reach the lead's container."""
    return {
        "ansible_connection": "kubernetes.core.kubectl",
        "ansible_kubectl_kubeconfig": kubeconfig,
        "ansible_kubectl_namespace": lead["namespace"],
        "ansible_kubectl_pod": lead["pod"],
        "ansible_kubectl_container": lead["container"],
        "ansible_python_interpreter": python,
        "ansible_shell_executable": shell,
        # A container has one user, and no sudo.
        "ansible_become": False,
        "gke_lead_node": lead["node"],
    }
