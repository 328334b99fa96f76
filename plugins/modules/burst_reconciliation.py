# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide what of a burst is amiss."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_reconciliation
short_description: Decide what of a burst is amiss, and what would mend it
version_added: 0.1.0
description:
  - A pure decision. It compares the claims on jobs, the ranks in the overlay and the machines that carry the burst's
    label, as they are after a controller that was killed, a preemption, or somebody's own hand.
  - A machine is amiss that has ended, that the lead does not declare, whose broker never joined or is gone; a rank
    that is online or drained by us while no burst of the project has its machine; a claim of a burst without machines;
    a claim on a host without a machine; and whatever else a burst without machines has.
  - What is younger than O(patience) stays, since another controller may be at work on it.
author:
  - flux.burst contributors (@flux-framework)
options:
  burst:
    description: Name of the burst.
    type: str
    required: true
  hostlist:
    description: Flux hostlist of the machines that the burst may have.
    type: str
    required: true
  bursts:
    description: Every burst of the project, as M(flux.burst.gce_burst_info) returns them with C(burst=all).
    type: list
    elements: dict
    required: true
  ranks:
    description: Ranks, as M(flux.burst.flux_resource_info) returns them.
    type: list
    elements: dict
    required: true
  claims:
    description: The claims that the burst holds, as M(flux.burst.flux_job_claim) with C(state=released) returns them.
    type: list
    elements: dict
    default: []
  host_claims:
    description: The claims on hosts that the burst holds, as C(released_hosts) of the same.
    type: list
    elements: dict
    default: []
  patience:
    description: How long a machine may take to join, in seconds, and a claim to get machines.
    type: int
    default: 900
  max_run_seconds:
    description: The time for which the burst's claims are made.
    type: int
    default: 14400
requirements:
  - ClusterShell
seealso:
  - module: flux.burst.gce_burst_info
  - module: flux.burst.flux_resource_info
  - module: flux.burst.flux_job_claim
extends_documentation_fragment:
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: See what the burst has claimed
  flux.burst.flux_job_claim:
    burst: flux-burst
    state: released
  check_mode: true
  register: held

- name: Decide what is amiss
  flux.burst.burst_reconciliation:
    burst: flux-burst
    hostlist: gffw-compute-a-[001-003]
    bursts: "{{ found.bursts }}"
    ranks: "{{ resources.ranks }}"
    claims: "{{ held.released }}"
    host_claims: "{{ held.released_hosts }}"
  register: decision

- name: Say so
  ansible.builtin.debug:
    msg: "{{ decision.report }}"
"""

RETURN = r"""
delete:
  description: Machines to delete.
  returned: success
  type: list
  elements: str
  sample: [gffw-compute-a-002]
disconnect:
  description: Hosts to disconnect from the overlay.
  returned: success
  type: list
  elements: str
  sample: []
undrain:
  description: Hosts to undrain.
  returned: success
  type: list
  elements: str
  sample: [gffw-compute-a-001]
release:
  description: Ids of the jobs whose claims are to be given back.
  returned: success
  type: list
  elements: str
  sample: [fDDf5hq]
release_hosts:
  description: Hosts whose claims are to be given back, once the machines to delete are gone.
  returned: success
  type: list
  elements: str
  sample: [gffw-compute-a-002]
remove_all:
  description: Whether nothing of the burst is to stay, its network and keys included.
  returned: success
  type: bool
  sample: false
findings:
  description: What is amiss.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: instance
      name: gffw-compute-a-002
      found: its broker has not joined in the 1800 s since it was created
      action: delete it
  contains:
    kind:
      description: instance, rank, claim, or the kind of a leftover.
      type: str
    name:
      description: Its name; of a claim the job's id, or the host's name.
      type: str
    found:
      description: What is amiss.
      type: str
    action:
      description: What mends it.
      type: str
report:
  description: The findings as lines for people.
  returned: success
  type: list
  elements: str
  sample: ["instance gffw-compute-a-002: status TERMINATED: delete it"]
"""

import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _hostlist, _reconciliation
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module


def main() -> None:
    """Run the module."""
    rows = {"type": "list", "elements": "dict"}
    module = AnsibleModule(
        argument_spec={
            "burst": {"type": "str", "required": True},
            "hostlist": {"type": "str", "required": True},
            "bursts": {**rows, "required": True},
            "ranks": {**rows, "required": True},
            "claims": {**rows, "default": []},
            "host_claims": {**rows, "default": []},
            "patience": {"type": "int", "default": 900},
            "max_run_seconds": {"type": "int", "default": 14400},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        request = _reconciliation.Request(
            params["burst"],
            _hostlist.expand(params["hostlist"]),
            _reconciliation.REASON,
            params["patience"],
            params["max_run_seconds"],
            time.time(),
        )
        decided = _reconciliation.decide(
            params["bursts"], params["ranks"], params["claims"], params["host_claims"], request
        )
        module.exit_json(changed=False, **asdict(decided), report=decided.report())


if __name__ == "__main__":
    main()
