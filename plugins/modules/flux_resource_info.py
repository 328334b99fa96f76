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
options:
  idle_for:
    description: How many seconds a node must have had no job to be among RV(idle).
    type: int
    default: 0
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

- name: Find the nodes that have been idle for ten minutes
  flux.burst.flux_resource_info:
    idle_for: 600
  register: resources
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
      free_cores: 0
      free_gpus: 0
      drain_reason: null
      properties: [burst]
      overlay: lost
      overlay_error: lost connection
      since: 1795517778.879
      idle_since: null
      claim: null
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
    free_cores:
      description: How many cores no job has; 0 where no job may start.
      type: int
    free_gpus:
      description: How many GPUs no job has; 0 where no job may start.
      type: int
    drain_reason:
      description: Why it is drained, null where it is not. A node that is down can be drained as well.
      type: str
    properties:
      description: R's properties of the node.
      type: list
      elements: str
    overlay:
      description:
        - What the overlay says of the broker, C(full), C(partial), C(degraded), C(lost) or C(offline); empty where
          its router is away.
      type: str
    overlay_error:
      description: The overlay's own words on why it is not there.
      type: str
    since:
      description:
        - When it came, went, was drained or undrained last, in seconds since the epoch; 0 where the lead has seen
          nothing of it.
      type: float
    idle_since:
      description: When its last job ended or it came, whichever is later, in seconds since the epoch; null where it
        is not free.
      type: float
    claim:
      description:
        - The claim of a burst that is going to boot it, null without one. C(burst), C(until) and C(by) are as
          M(flux.burst.flux_queue_info) has them of jobs.
      type: dict
idle:
  description: The hosts that are free and have had no job for O(idle_for) seconds.
  returned: success
  type: list
  elements: str
  sample: [flux-sample-1]
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

import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_resource
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**_flux.ARGUMENTS, "idle_for": {"type": "int", "default": 0}},
        supports_check_mode=True,
    )
    with failing_module(module):
        ranks = _flux_resource.read_all(_flux.FluxClient.of(module.params))
        hostlists = {
            state: _flux.hostlist(rank.host for rank in ranks if rank.state == state)
            for state in _flux_resource.STATES
        }
        latest = time.time() - module.params["idle_for"]
        idle = [
            rank.host for rank in ranks if rank.idle_since is not None and rank.idle_since <= latest
        ]
        module.exit_json(
            changed=False, ranks=[asdict(rank) for rank in ranks], hostlists=hostlists, idle=idle
        )


if __name__ == "__main__":
    main()
