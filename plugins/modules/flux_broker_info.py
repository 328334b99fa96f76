# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what the broker on this machine says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_broker_info
short_description: Read what the broker on a machine says of itself
version_added: 0.1.0
description:
  - Reads the state and the log of the broker's unit, and sees whether the lead answers at the address that the
    broker tries. It needs no broker that answers.
  - M(flux.burst.flux_nodes) takes RV(evidence) on the lead, to name the cause for a node that is not online.
author:
  - flux.burst contributors (@flux-framework)
options:
  service:
    description: Unit of the broker.
    type: str
    default: flux.service
  curve_cert:
    description: The broker's curve certificate.
    type: path
    default: /etc/flux/system/curve.cert
  logs:
    description: Return RV(logs) too, for people who look into what went wrong.
    type: bool
    default: false
extends_documentation_fragment:
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read what the broker says
  flux.burst.flux_broker_info:
  register: broker
"""

RETURN = r"""
evidence:
  description: What the machine knows of its broker.
  returned: success
  type: dict
  sample:
    hostname: gffw-compute-a-001
    status: Running as member of 5 node Flux instance
    exit_code: 0
    log: []
    lead_port: ""
    certificate: 5b0e7b9a4f1c3d2e8a7f6c5d4b3a29180716253443526170f9e8d7c6b5a49382
    reached: true
  contains:
    hostname:
      description: The kernel's hostname.
      type: str
    status:
      description: What the broker tells systemd, or else the unit's state.
      type: str
    exit_code:
      description: What its last process ended with.
      type: int
    log:
      description: Its last log lines since its last start.
      type: list
      elements: str
    lead_port:
      description: What is wrong with the lead's port as seen from here while it joins, empty where nothing is.
      type: str
    certificate:
      description: Fingerprint of O(curve_cert), as RV(flux.burst.flux_identity_info#module:cert_fingerprint); empty
        where it cannot be read.
      type: str
    reached:
      description: Always true.
      type: bool
logs:
  description: What both units logged since the machine booted, and how they are. No secret is looked for in it.
  returned: with O(logs=true)
  type: dict
  sample: {journal: "", status: ""}
  contains:
    journal:
      description: The last lines of their journal.
      type: str
    status:
      description: What C(systemctl status) says of them, and which units have failed.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _broker, _units
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module

MUNGE = "munge.service"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "service": {"type": "str", "default": "flux.service"},
            "curve_cert": {"type": "path", "default": "/etc/flux/system/curve.cert"},
            "logs": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        unit = _units.show(params["service"])
        evidence = _broker.evidence_of(unit, params["curve_cert"])
        names = (params["service"], MUNGE)
        logs = {"logs": _units.logs(names)} if params["logs"] else {}
        module.exit_json(changed=False, evidence=_broker.shown(evidence), **logs)


if __name__ == "__main__":
    main()
