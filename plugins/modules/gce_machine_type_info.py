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
  zones:
    description: Zones of one region; each machine type must be in one of them.
    type: list
    elements: str
    required: true
    aliases: [zone]
  names:
    description: Names of the machine types, in order of preference.
    type: list
    elements: str
    required: true
  prices:
    description:
      - Price of a machine for one hour, by name of the machine type, in the currency of your bill. For other types
        Google's list prices on demand hold that come with the collection, in US dollars.
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
    zones: [us-central1-a, us-central1-b]
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
      price_basis: configured
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
      description: Its price on demand, null where that is unknown.
      type: float
    price_basis:
      description:
        - Where that comes from. V(configured) by O(prices), V(list) for Google's list price, V(estimate) for one that
          was derived from it, V(unknown).
      type: str
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS
from ansible_collections.flux.burst.plugins.module_utils._gce_creation import types_in
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    NOT_FOUND,
    READERS,
    GceSession,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_types import machine_type
from ansible_collections.flux.burst.plugins.module_utils._prices import configured_prices
from ansible_collections.flux.burst.plugins.module_utils._spec import one_region


def read(session: GceSession, project: str, zones: list[str], names: list[str]) -> dict[str, Any]:
    """Return the REST resources of the machine types that any zone has, by name. Raises GceError for the others."""

    def listed(zone: str) -> dict[str, dict[str, Any]]:
        return types_in(session, project, zone, names)

    with ThreadPoolExecutor(READERS) as readers:
        found = {name: row for rows in readers.map(listed, zones) for name, row in rows.items()}
    missing = [name for name in names if name not in found]
    if missing:
        raise GceError(
            f"wanted machine type {', '.join(missing)} in zone {' or '.join(zones)}, found none: choose other "
            f"burst_machine_types or burst_zones (gcloud compute machine-types list --zones {zones[0]} shows them).",
            status=NOT_FOUND,
        )
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ACCESS,
            "zones": {"type": "list", "elements": "str", "required": True, "aliases": ["zone"]},
            "names": {"type": "list", "elements": "str", "required": True},
            "prices": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        prices = configured_prices(params["prices"])
        session = GceSession.from_params(params)
        where = one_region(params["zones"])
        found = read(session, params["project"], params["zones"], params["names"])
        types = [machine_type(found[name], prices, where) for name in params["names"]]
        module.exit_json(changed=False, machine_types=types)


if __name__ == "__main__":
    main()
