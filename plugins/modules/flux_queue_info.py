# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the jobs that wait to be burst. The action plugin of the same name evaluates `where`."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_queue_info
short_description: Read the waiting jobs that are marked as burstable
version_added: 0.1.0
description:
  - Lists the jobs that wait for resources and carry a system attribute in their jobspec, as
    C(flux submit --setattr=burstable) sets it, whoever submitted them.
  - Queue, user, name and age are selected by the broker. Jobspecs are read only of jobs that were not seen before,
    all of them in flight together; what cannot change is kept between runs in a file on the lead.
author:
  - flux.burst contributors (@flux-framework)
options:
  attribute:
    description: Name of the attribute, a key of C(attributes.system) in the jobspec. Empty takes jobs without one too.
    type: str
    default: burstable
  value:
    description: Take only jobs whose attribute has this value, written as JSON or as plain text.
    type: str
    default: ""
  queues:
    description: Take only jobs of these queues.
    type: list
    elements: str
    default: []
  users:
    description: Take only jobs of these users, names or numeric ids.
    type: list
    elements: str
    default: []
  names:
    description: Take only jobs of these names.
    type: list
    elements: str
    default: []
  min_age:
    description: Take only jobs that were submitted at least so many seconds ago.
    type: float
    default: 0.0
  where:
    description:
      - A Jinja expression of C(job), which has the keys of RV(jobs[]); the jobs for which it is true are taken. For
        instance C(job.nodes <= 8 and job.duration > 0).
      - It is evaluated on the controller, in Jinja's sandbox. Text that comes with a job is data there and is never
        templated.
      - A job for which it fails, as its attribute is none that the expression can read, is left out with a warning.
        Where it fails for all of them, the expression is wrong, and so the task fails.
    type: str
    default: ""
  cache_dir:
    description:
      - Directory on the lead for what is known of jobs. It may be lost at any time; empty does without.
    type: str
    default: /run/flux-burst
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read the jobs that wait to be burst
  flux.burst.flux_queue_info:
    attribute: burstable
  register: queue

- name: Read those of one queue that have waited for five minutes, and are not too large
  flux.burst.flux_queue_info:
    queues: [batch]
    min_age: 300
    where: job.nodes <= 8 and job.user_id != 0
  register: queue

- name: Read the jobs that want this kind of burst
  flux.burst.flux_queue_info:
    attribute: burst
    value: compute-engine
    users: [root, "2001"]
    names: [simulation]
    cache_dir: ""
"""

RETURN = r"""
jobs:
  description: The selected jobs, in the order in which the scheduler looks at them.
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
      tasks: 4
      attribute_value: 1
      cwd: /tmp
      nodes: 4
      slots: 1
      cores_per_slot: 1
      gpus_per_slot: 0
      memory_mb_per_slot: 0
      cores_per_node: 1
      gpus_per_node: 0
      exclusive: true
      constraints: null
      problem: ""
      waits_for: resources
      claim: null
  contains:
    id:
      description: The job's id, base 58.
      type: str
    user_id:
      description: Who submitted it.
      type: int
    name:
      description:
        - The job's name. Characters that a terminal acts on are escapes such as C(\x1b), here and in RV(jobs[].cwd).
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
    tasks:
      description: How many tasks it starts.
      type: int
    attribute_value:
      description: The value of the attribute.
      type: raw
    cwd:
      description: Its working directory, which must exist on the nodes.
      type: str
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
    memory_mb_per_slot:
      description: Memory of a slot in MB, 0 where it does not say.
      type: int
    cores_per_node:
      description: Cores that it asks for on each node, 0 where it does not ask for nodes.
      type: int
    gpus_per_node:
      description: GPUs that it asks for on each node, 0 where it does not ask for nodes.
      type: int
    exclusive:
      description: Whether it wants nodes for itself.
      type: bool
    constraints:
      description: Its constraints (RFC 31), null without any. A queue's own are among them.
      type: dict
    problem:
      description: Why its jobspec cannot be planned for, empty where it can.
      type: str
    waits_for:
      description:
        - V(resources); V(turn) where free nodes would take it but a job before it does not fit; V(hold); V(priority);
          V(dependencies) and their names; or that its queue is stopped.
      type: str
    claim:
      description: The claim on it, as M(flux.burst.flux_job_claim) makes them, null without one.
      type: dict
      contains:
        burst:
          description: The burst that holds it.
          type: str
        until:
          description: When the claim expires, in seconds since the epoch.
          type: float
        by:
          description: The controller that claimed it.
          type: str
pending_count:
  description: How many jobs wait, marked or not.
  returned: success
  type: int
  sample: 7
"""

import pwd
from collections.abc import Iterable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_queue, _flux_queue_read
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module


def user_ids(users: Iterable[str]) -> tuple[int, ...]:
    """Return the uids of names or uids. Raises FluxError for a name that this machine does not know."""
    found = []
    for user in users:
        try:
            found.append(int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise FluxError(
                f"users: wanted a user of the lead, found {user!r}, whom it does not know: correct the "
                "name, or give the uid."
            ) from None
    return tuple(found)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "attribute": {"type": "str", "default": "burstable"},
            "value": {"type": "str", "default": ""},
            "queues": {"type": "list", "elements": "str", "default": []},
            "users": {"type": "list", "elements": "str", "default": []},
            "names": {"type": "list", "elements": "str", "default": []},
            "min_age": {"type": "float", "default": 0.0},
            "where": {"type": "str", "default": ""},
            "cache_dir": {"type": "str", "default": "/run/flux-burst"},
        },
        supports_check_mode=True,
    )
    params = module.params
    with failing_module(module):
        selection = _flux_queue.Selection(
            attribute=params["attribute"],
            value=params["value"],
            queues=tuple(params["queues"]),
            user_ids=user_ids(params["users"]),
            names=tuple(params["names"]),
            min_age=params["min_age"],
        )
        # `where` is the action plugin's, which filters what is returned here.
        jobs, count = _flux_queue_read.read(
            _flux.FluxClient.of(params), selection, params["cache_dir"]
        )
        module.exit_json(changed=False, jobs=jobs, pending_count=count)


if __name__ == "__main__":
    main()
