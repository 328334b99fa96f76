# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burst has in Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_burst_info
short_description: What a burst has in Compute Engine
version_added: 0.1.0
description:
  - Finds everything that carries the burst's label, or its description where Compute Engine has no labels on that kind.
    It does not rely on names, and there is no state file.
author:
  - flux.burst contributors (@flux-framework)
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._gce.burst
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: See what the burst has
  flux.burst.gce_burst_info:
    burst: flux-burst
    project: my-project
  register: found
"""

RETURN = r"""
instances:
  description: The machines, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - name: gffw-compute-a-001
      id: "4611686018427387904"
      zone: us-central1-a
      status: RUNNING
      machine_type: n2-standard-4
      internal_ip: 10.10.0.2
networks:
  description: Names of the networks.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-net]
subnetworks:
  description: Names of the subnetworks.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-subnet]
routers:
  description: Names of the routers.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-router]
firewalls:
  description: Names of the firewalls.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-allow-iap-ssh, flux-burst-allow-internal]
"""

from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ARGUMENTS
from ansible_collections.flux.burst.plugins.module_utils._gce_network import description
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession, machine

GLOBAL = ("networks", "firewalls")
REGIONAL = ("subnetworks", "routers")


def described(session: GceSession, project: str, burst: str, kind: str) -> list[str]:
    """Return the names of a kind's resources that are the burst's. Raises GceError."""
    if kind in GLOBAL:
        found = list(session.listed(f"projects/{project}/global/{kind}", "name,description"))
    else:
        found = list(session.aggregated(project, kind, "name,description"))
    ours = (row["name"] for row in found if row.get("description") == description(burst))
    return sorted(ours)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**ARGUMENTS}, supports_check_mode=True)
    with failing_module(module):
        params = with_project(module.params)
        session = GceSession.from_params(params)
        project, burst = params["project"], params["burst"]
        kinds = (*GLOBAL, *REGIONAL)
        with ThreadPoolExecutor(len(kinds)) as readers:
            names = list(readers.map(lambda kind: described(session, project, burst, kind), kinds))
        machines = [machine(instance) for instance in session.instances(project, burst)]
        found = dict(zip(kinds, names, strict=True))
        module.exit_json(changed=False, instances=machines, **found)


if __name__ == "__main__":
    main()
