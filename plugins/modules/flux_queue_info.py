# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the jobs that wait to be burst."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_queue_info
short_description: Read the waiting jobs that are marked with an attribute
version_added: 0.1.0
description:
  - Lists the jobs that wait for resources and carry a system attribute in their jobspec, as
    C(flux submit --setattr=burstable) sets it, whoever submitted them.
author:
  - flux.burst contributors (@flux-framework)
options:
  attribute:
    description: Name of the attribute, a key of C(attributes.system) in the jobspec.
    type: str
    default: burstable
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read the jobs that wait to be burst
  flux.burst.flux_queue_info:
    attribute: burstable
  register: queue
"""

RETURN = r"""
jobs:
  description: The marked jobs, in the order in which the scheduler looks at them.
  returned: success
  type: list
  elements: dict
  sample:
    - id: fDDf5hq
      user_id: 1004
      name: hostname
      state: sched
      urgency: 16
      priority: 16
      submitted: 1795517778.879
      queue: ""
      duration: 0.0
      attribute_value: 1
      nodes: 4
      slots: 1
      cores_per_slot: 1
      gpus_per_slot: 0
      exclusive: true
  contains:
    id:
      description: The job's id, base 58.
      type: str
    user_id:
      description: Who submitted it.
      type: int
    name:
      description: The job's name.
      type: str
    state:
      description: One of depend, priority, sched.
      type: str
    urgency:
      description: From 0, which holds the job, to 31.
      type: int
    priority:
      description: What the scheduler orders by.
      type: int
    submitted:
      description: When it was submitted, in seconds since the epoch.
      type: float
    queue:
      description: Its queue, empty without queues.
      type: str
    duration:
      description: Its time limit in seconds, 0 for none.
      type: float
    attribute_value:
      description: The value of the attribute.
      type: raw
    nodes:
      description: How many nodes it asks for; 0 where it asks for slots on any number of nodes.
      type: int
    slots:
      description: How many slots it asks for, on each node where it asks for nodes.
      type: int
    cores_per_slot:
      description: Cores of a slot.
      type: int
    gpus_per_slot:
      description: GPUs of a slot.
      type: int
    exclusive:
      description: Whether it wants nodes for itself.
      type: bool
pending_count:
  description: How many jobs wait, marked or not.
  returned: success
  type: int
  sample: 7
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_queue
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module


def read(client: _flux.FluxClient, attribute: str) -> tuple[list[dict[str, Any]], int]:
    """Return the marked jobs and how many wait at all."""
    listed = client.rpc(
        "job-list.list",
        {
            "max_entries": 0,
            "attrs": _flux_queue.LISTED,
            "constraint": {"states": ["pending"]},
        },
    )["jobs"]
    entries = {entry["id"]: entry for entry in listed}
    questions = ({"id": number, "keys": ["jobspec"], "flags": 0} for number in entries)
    jobs = []
    for answer in client.rpc_each("job-info.lookup", questions):
        jobspec = answer["jobspec"]
        if _flux_queue.may_have(attribute, jobspec):
            has, value = _flux_queue.marked(attribute, jobspec)
            if has:
                jobs.append(_flux_queue.waiting_job(entries[answer["id"]], jobspec, value))
    jobs.sort(key=lambda job: (-job["priority"], job["submitted"]))
    return jobs, len(entries)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "attribute": {"type": "str", "default": "burstable"},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        jobs, count = read(_flux.FluxClient(module.params["uri"]), module.params["attribute"])
        module.exit_json(changed=False, jobs=jobs, pending_count=count)


if __name__ == "__main__":
    main()
