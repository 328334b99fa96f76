# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the specification with the lead before anything is created."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_preflight
short_description: Compare a burst's specification with its lead, before anything is created
version_added: 0.1.0
description:
  - A pure comparison of names, ranks, R, machine types, versions, munge and clocks. It fails with one line for each
    difference.
  - What only a machine can tell, M(flux.burst.flux_broker) compares there before it changes anything.
author:
  - flux.burst contributors (@flux-framework)
options:
  hostlist:
    description: Flux hostlist of the machines that may be booted.
    type: str
    required: true
  identity:
    description: The lead's identity, as M(flux.burst.flux_identity_info) returns it.
    type: dict
    required: true
  ranks:
    description: Ranks, as M(flux.burst.flux_resource_info) returns them.
    type: list
    elements: dict
    required: true
  machine_types:
    description: Machine types, as M(flux.burst.gce_machine_type_info) returns them. Without any, R is compared with
      none.
    type: list
    elements: dict
    default: []
  topology:
    description: Whom the machines join, as the lead must declare it. With V(flat) that is the lead. With V(gateway) the
      first of O(hostlist) joins the lead, and the others join that one.
    type: str
    choices: [flat, gateway]
    default: flat
requirements:
  - ClusterShell
extends_documentation_fragment:
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Compare the specification with the lead
  flux.burst.burst_preflight:
    hostlist: gffw-compute-a-[001-003]
    identity: "{{ lead }}"
    ranks: "{{ resources.ranks }}"
    machine_types: "{{ types.machine_types }}"
"""

RETURN = r"""
differences:
  description: What differs, one line each. Empty on success.
  returned: always
  type: list
  elements: str
  sample: []
toml:
  description: What to add to the configuration of the lead's brokers where they lack machines, empty where they do not.
  returned: failure
  type: str
  sample: |-
    # at the end of hosts in [bootstrap], on every broker of the lead's cluster:
    { host = "gffw-compute-a-[001-003]" },
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _hostlist, _preflight
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError, failing_module


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "hostlist": {"type": "str", "required": True},
            "identity": {"type": "dict", "required": True},
            "ranks": {"type": "list", "elements": "dict", "required": True},
            "machine_types": {"type": "list", "elements": "dict", "default": []},
            "topology": {"type": "str", "choices": ["flat", "gateway"], "default": "flat"},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        hosts = _hostlist.expand(params["hostlist"])
        gateway = hosts[0] if params["topology"] == "gateway" else ""
        known = (hosts, params["identity"], params["ranks"], params["machine_types"])
        found = _preflight.differences(*known, time.time(), gateway)
        if found:
            toml = _preflight.toml(*known, gateway)
            lines = [f"preflight: {line}." for line in found]
            lines += ["What to add:", toml] if toml else []
            raise SpecError("\n".join(lines), differences=found, toml=toml)
        module.exit_json(changed=False, differences=[])


if __name__ == "__main__":
    main()
