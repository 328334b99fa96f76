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
  - A pure decision. The waiting jobs take, in the order of their priority, the nodes that are free first, then machines
    of the burst that are booting, and then machines of O(hostlist) that the lead declares and that are down. Machines
    that exist are kept.
  - Jobs that ask for nodes, or for nodes of their own, take nodes on which nothing runs. Other jobs take slots wherever
    cores and GPUs are free. Constraints of RFC 31 (properties, hostlist, ranks, and, or, not) are respected.
  - A job that cannot be served is in RV(left) with its reason. Nothing to do is a success, and RV(message) says so.
author:
  - flux.burst contributors (@flux-framework)
options:
  jobs:
    description: Waiting jobs, as M(flux.burst.flux_queue_info) returns them. Their order does not matter.
    type: list
    elements: dict
    required: true
  ranks:
    description: Ranks, as M(flux.burst.flux_resource_info) returns them. Their order does not matter.
    type: list
    elements: dict
    required: true
  hostlist:
    description: Flux hostlist of the machines that may be booted, the first ones first.
    type: str
    required: true
  existing:
    description: Names of the machines that the burst has.
    type: list
    elements: str
    default: []
  max_hosts:
    description: At most so many machines at once, those that exist included; 0 sets no limit.
    type: int
    default: 0
  gateway:
    description: Name of the host that is the overlay parent of the others, which is in every plan that boots or keeps
      one. Empty where there is none.
    type: str
    default: ""
  sizing:
    description:
      - For what the machines suffice.
      - V(all) serves the jobs all at once.
      - V(widest) looks at each job alone, so that there are as many machines as the widest job needs, and the jobs
        take turns.
      - V(cap) is V(all) until the jobs no longer fit within O(max_hosts) and O(hostlist). A job that does not fit
        beside the others, but does alone, takes its turn then.
    type: str
    choices: [all, widest, cap]
    default: all
  machine_types:
    description:
      - Machine types to choose from, the preferred ones first. A host gets the first one that has at least the cores
        and GPUs that R gives it, and the memory that its jobs ask for.
      - Without any, each host counts as large enough, and no type is chosen.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the machine type.
        type: str
        required: true
      vcpus:
        description: Threads that it offers; not looked at.
        type: int
      cores:
        description: How many cores it has.
        type: int
        required: true
      memory_mb:
        description: How much memory it has, in MB; 0 where that is unknown, which counts as enough.
        type: int
        default: 0
      gpus:
        description: How many GPUs it has.
        type: int
        default: 0
      price_per_hour:
        description: What an hour of it costs, in whatever currency RV(price) is wanted. Unset where that is unknown.
        type: float
      price_basis:
        description: Where that price comes from; not looked at.
        type: str
  max_run_seconds:
    description:
      - After so many seconds a machine ends by itself; 0 sets no limit. Jobs that may run longer are left.
    type: int
    default: 0
  burst:
    description: Name of this burst. Jobs that another burst has claimed are left until the claim expires.
    type: str
    default: ""
requirements:
  - ClusterShell
seealso:
  - module: flux.burst.flux_queue_info
  - module: flux.burst.flux_resource_info
  - module: flux.burst.gce_instances
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

- name: Plan within limits, choose machine types, and let the jobs take turns where not all fit
  flux.burst.burst_plan:
    jobs: "{{ queue.jobs }}"
    ranks: "{{ resources.ranks }}"
    hostlist: gffw-compute-a-[001-100]
    existing: "{{ found.instances | map(attribute='name') }}"
    max_hosts: 16
    sizing: cap
    machine_types:
      - name: n2-standard-4
        cores: 2
        memory_mb: 16384
        price_per_hour: 0.1942
      - name: n2-highmem-4
        cores: 2
        memory_mb: 32768
        price_per_hour: 0.262
    max_run_seconds: 14400
    burst: flux-burst
  register: plan

- name: Plan a burst whose machines all join the first of them
  flux.burst.burst_plan:
    jobs: "{{ queue.jobs }}"
    ranks: "{{ resources.ranks }}"
    hostlist: gffw-compute-a-[001-100]
    gateway: gffw-compute-a-001
  register: plan

- name: Say which jobs are left, and why
  ansible.builtin.debug:
    msg: "job {{ item.id }} {{ item.reason }}"
  loop: "{{ plan.left }}"
"""

RETURN = r"""
hosts:
  description: Every machine that must exist, those that exist included, in the order of the hostlist.
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
undrain:
  description: Those of RV(hosts) that a burst has drained and whose machine is gone, preempted or deleted since. They
    must be undrained before jobs can run on the next machine of that name.
  returned: success
  type: list
  elements: str
  sample: []
groups:
  description:
    - RV(hosts) by the machine type that was chosen for them, in the order of O(machine_types); one group without them.
      Machines that exist but are not of O(hostlist) are in none.
  returned: success
  type: list
  elements: dict
  sample:
    - machine_type: n2-standard-4
      machine_types: [n2-standard-4, n2-highmem-4]
      hosts: [gffw-compute-a-001, gffw-compute-a-002, gffw-compute-a-003]
      new_hosts: [gffw-compute-a-001, gffw-compute-a-002, gffw-compute-a-003]
      price_per_hour: 0.1942
  contains:
    machine_type:
      description: Name of the machine type; empty where none was to be chosen.
      type: str
    machine_types:
      description: That, and the others that will do where it cannot be had, in the order of O(machine_types).
      type: list
      elements: str
    hosts:
      description: Its machines, in the order of the hostlist.
      type: list
      elements: str
    new_hosts:
      description: Those of them that do not exist yet.
      type: list
      elements: str
    price_per_hour:
      description: What an hour of one machine costs, null where that is unknown.
      type: float
jobs:
  description: Ids of the jobs that machines of the burst serve, in the order of their priority.
  returned: success
  type: list
  elements: str
  sample: [fDDf5hq]
local_jobs:
  description: Ids of the jobs for which the lead's free nodes suffice, in the order of their priority.
  returned: success
  type: list
  elements: str
  sample: [fDDf5hr]
left:
  description: The jobs that are not served, in the order of their priority. Each job is in one of the three lists.
  returned: success
  type: list
  elements: dict
  sample:
    - id: fDDf5hs
      reason: asks for 9 nodes; at most 4 that match can be had (1 free, 3 to boot)
  contains:
    id:
      description: The job's id.
      type: str
    reason:
      description: Why it is not served, in words that continue "job fDDf5hs ".
      type: str
time_limit:
  description:
    - For how many seconds RV(jobs) need the machines at most, and never more than O(max_run_seconds). With
      O(sizing=all) the longest of their time limits, else the sum; O(max_run_seconds) where one of them has none.
    - 0 where there is no such job, or no limit.
  returned: success
  type: int
  sample: 3600
price:
  description:
    - At most so much do the new machines cost in RV(time_limit), in the currency of O(machine_types[].price_per_hour).
      Null where a price is unknown, or where there is no limit.
  returned: success
  type: float
  sample: 0.5826
message:
  description: The decision in one line.
  returned: success
  type: str
  sample: burst 3 machines (gffw-compute-a-[001-003]) for 1 job (fDDf5hq); leave 1 job (fDDf5hs)
explanation:
  description: The message, and a line for each of the first jobs that are left.
  returned: success
  type: list
  elements: str
  sample:
    - burst 3 machines (gffw-compute-a-[001-003]) for 1 job (fDDf5hq); leave 1 job (fDDf5hs)
    - job fDDf5hs is held (urgency 0)
"""

import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _hostlist, _plan
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module

MACHINE_TYPE = {
    "name": {"type": "str", "required": True},
    "vcpus": {"type": "int"},
    "cores": {"type": "int", "required": True},
    "memory_mb": {"type": "int", "default": 0},
    "gpus": {"type": "int", "default": 0},
    "price_per_hour": {"type": "float"},
    "price_basis": {"type": "str"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "jobs": {"type": "list", "elements": "dict", "required": True},
            "ranks": {"type": "list", "elements": "dict", "required": True},
            "hostlist": {"type": "str", "required": True},
            "existing": {"type": "list", "elements": "str", "default": []},
            "max_hosts": {"type": "int", "default": 0},
            "gateway": {"type": "str", "default": ""},
            "sizing": {"type": "str", "choices": list(_plan.SIZINGS), "default": "all"},
            "machine_types": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": MACHINE_TYPE,
            },
            "max_run_seconds": {"type": "int", "default": 0},
            "burst": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        request = _plan.Request(
            allowed=_hostlist.expand(params["hostlist"]),
            existing=params["existing"],
            max_hosts=params["max_hosts"],
            gateway=params["gateway"],
            sizing=params["sizing"],
            machine_types=params["machine_types"],
            max_run_seconds=params["max_run_seconds"],
            burst=params["burst"],
            now=time.time(),
        )
        decided = _plan.plan(params["jobs"], params["ranks"], request)
        module.exit_json(changed=False, **asdict(decided), explanation=decided.explanation())


if __name__ == "__main__":
    main()
