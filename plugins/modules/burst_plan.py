# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide which machines a burst needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_plan
short_description: Decide which machines the waiting jobs need
version_added: 0.1.0
description:
  - A pure decision. The waiting jobs take the nodes that are free first, and then machines of O(hostlist) that the lead
    declares and that are down. Machines that exist are kept.
  - Nothing to do is a success, and RV(message) says so.
author:
  - flux.burst contributors (@flux-framework)
options:
  jobs:
    description: Waiting jobs, as M(flux.burst.flux_queue_info) returns them.
    type: list
    elements: dict
    required: true
  ranks:
    description: Ranks, as M(flux.burst.flux_resource_info) returns them.
    type: list
    elements: dict
    required: true
  hostlist:
    description: Flux hostlist of the machines that may be booted.
    type: str
    required: true
  max_hosts:
    description: At most so many machines at once; 0 sets no limit.
    type: int
    default: 0
  existing:
    description: Names of the machines that the burst has.
    type: list
    elements: str
    default: []
requirements:
  - ClusterShell
extends_documentation_fragment:
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Plan the burst
  flux.burst.burst_plan:
    jobs: "{{ queue.jobs }}"
    ranks: "{{ resources.ranks }}"
    hostlist: gffw-compute-a-[001-003]
  register: plan
"""

RETURN = r"""
hosts:
  description: Every machine that must exist, in the order of the hostlist.
  returned: success
  type: list
  elements: str
  sample: [gffw-compute-a-001, gffw-compute-a-002, gffw-compute-a-003]
new_hosts:
  description: Those of them that do not exist yet.
  returned: success
  type: list
  elements: str
  sample: [gffw-compute-a-001, gffw-compute-a-002, gffw-compute-a-003]
jobs:
  description: Ids of the jobs that are served.
  returned: success
  type: list
  elements: str
  sample: [fDDf5hq]
message:
  description: The decision in one line.
  returned: success
  type: str
  sample: burst 3 machines (gffw-compute-a-[001-003]) for 1 job (fDDf5hq)
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _hostlist, _plan
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "jobs": {"type": "list", "elements": "dict", "required": True},
            "ranks": {"type": "list", "elements": "dict", "required": True},
            "hostlist": {"type": "str", "required": True},
            "max_hosts": {"type": "int", "default": 0},
            "existing": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        decided = _plan.plan(
            params["jobs"],
            params["ranks"],
            _hostlist.expand(params["hostlist"]),
            params["existing"],
            params["max_hosts"],
        )
        module.exit_json(changed=False, **asdict(decided))


if __name__ == "__main__":
    main()
