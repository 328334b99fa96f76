# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the ranks of a Flux instance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_resource_info
short_description: Read the ranks of a Flux instance and their state
version_added: 0.1.0
description:
  - Lists every rank that the lead broker's R declares, whether or not its broker is there.
author:
  - flux.burst contributors (@flux-framework)
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read the ranks
  flux.burst.flux_resource_info:
  register: resources

- name: Show which nodes are down
  ansible.builtin.debug:
    msg: "{{ resources.hostlists.down }}"
"""

RETURN = r"""
ranks:
  description: One entry a rank, in rank order.
  returned: success
  type: list
  elements: dict
  sample:
    - rank: 2
      host: gffw-compute-a-001
      state: down
      cores: 2
      gpus: 0
      drain_reason: null
      properties: [burst]
  contains:
    rank:
      description: The broker's rank.
      type: int
    host:
      description: Its hostname.
      type: str
    state:
      description: One of free, allocated, drained, draining, down, excluded.
      type: str
    cores:
      description: How many cores R declares.
      type: int
    gpus:
      description: How many GPUs R declares.
      type: int
    drain_reason:
      description: Why it is drained, null where it is not. A node that is down can be drained as well.
      type: str
    properties:
      description: R's properties of the node.
      type: list
      elements: str
hostlists:
  description: Flux hostlist of the nodes in each state.
  returned: success
  type: dict
  sample:
    free: flux-sample-1
    allocated: ""
    drained: ""
    draining: ""
    down: gffw-compute-a-[001-003]
    excluded: flux-sample-0
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_resource
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**_flux.ARGUMENTS}, supports_check_mode=True)
    with failing_module(module):
        ranks = _flux_resource.read(_flux.FluxClient(module.params["uri"]))
        hostlists = {
            state: _flux.hostlist(rank.host for rank in ranks if rank.state == state)
            for state in _flux_resource.STATES
        }
        module.exit_json(changed=False, ranks=[asdict(rank) for rank in ranks], hostlists=hostlists)


if __name__ == "__main__":
    main()
