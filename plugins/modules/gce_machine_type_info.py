# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what machine types have."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_machine_type_info
short_description: Read what machine types have, in the terms of Flux
version_added: 0.1.0
description:
  - Flux counts cores, Compute Engine threads (vCPUs). On most machine types a core has two threads, so that
    V(n2-standard-4) has two cores; a lead whose R declares four would drain such a machine as soon as it joins.
author:
  - flux.burst contributors (@flux-framework)
options:
  zone:
    description: The zone, which must have every one of them.
    type: str
    required: true
  names:
    description: Names of the machine types, in order of preference.
    type: list
    elements: str
    required: true
  prices:
    description: Price of a machine for one hour, by name of the machine type, in the currency of your bill.
    type: dict
    default: {}
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read what a machine type has
  flux.burst.gce_machine_type_info:
    project: my-project
    zone: us-central1-a
    names: [n2-standard-4]
    prices:
      n2-standard-4: 0.194236
  register: types
"""

RETURN = r"""
machine_types:
  description: One entry a machine type, in the order of O(names).
  returned: success
  type: list
  elements: dict
  sample:
    - name: n2-standard-4
      vcpus: 4
      cores: 2
      memory_mb: 16384
      gpus: 0
      price_per_hour: 0.194236
  contains:
    name:
      description: Its name.
      type: str
    vcpus:
      description: Threads that it offers.
      type: int
    cores:
      description: Cores that Flux sees on it.
      type: int
    memory_mb:
      description: Memory in MiB.
      type: int
    gpus:
      description: GPUs that it always has.
      type: int
    price_per_hour:
      description: Its price from O(prices), null where that has none.
      type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS
from ansible_collections.flux.burst.plugins.module_utils._gce_session import NOT_FOUND, GceSession

# Families of which a vCPU is a whole core, see cloud.google.com/compute/docs/cpu-platforms.
WHOLE_CORES = ("t2d", "t2a", "c4a", "n4a", "h3", "h4d")


def machine_type(found: dict[str, Any], prices: dict[str, Any]) -> dict[str, Any]:
    """Return a machine type as the module does, from its REST resource."""
    name, vcpus = found["name"], found["guestCpus"]
    whole = name.partition("-")[0] in WHOLE_CORES
    price = prices.get(name)
    return {
        "name": name,
        "vcpus": vcpus,
        "cores": vcpus if whole else max(vcpus // 2, 1),
        "memory_mb": found["memoryMb"],
        "gpus": sum(each["guestAcceleratorCount"] for each in found.get("accelerators", [])),
        "price_per_hour": None if price is None else float(price),
    }


def read(session: GceSession, project: str, zone: str, name: str) -> dict[str, Any]:
    """Return the REST resource. Raises GceError, which says so where the zone has no such type."""
    fields = "name,guestCpus,memoryMb,accelerators(guestAcceleratorCount)"
    try:
        return session.get(f"projects/{project}/zones/{zone}/machineTypes/{name}", fields=fields)
    except GceError as error:
        if error.status != NOT_FOUND:
            raise
        raise GceError(
            f"wanted machine type {name} in zone {zone}, found none: choose another burst_machine_type or burst_zone "
            f"(gcloud compute machine-types list --zones {zone} shows what there is).",
            status=NOT_FOUND,
        ) from None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ACCESS,
            "zone": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "prices": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        session = GceSession.from_params(params)
        types = [
            machine_type(read(session, params["project"], params["zone"], name), params["prices"])
            for name in params["names"]
        ]
        module.exit_json(changed=False, machine_types=types)


if __name__ == "__main__":
    main()
