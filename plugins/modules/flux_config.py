# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare a burst's machines in the configuration of a lead's brokers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_config
short_description: Declare a burst's machines in a broker's configuration
version_added: 0.1.0
description:
  - Adds the machines at the end of C(hosts) in C([bootstrap]), so that every rank that exists stays what it is, and on
    the lead at the end of C([[resource.config]]). What is there already stays as it is, and so do comments and
    everything else in the files. Where the lead had found its resources by itself, those are written down too.
  - The new files are tried by a broker of their own on loopback before they replace the old ones, all or none. A broker
    that runs with other hosts or resources is restarted. One that does not come up again gets the old files back.
  - A restart of the lead ends its jobs, so it is refused while one runs. On a host of C(hosts) that is not the first,
    the same is done for that broker, whose hosts must be the lead's.
  - The files are edited on the controller.
author:
  - flux.burst contributors (@flux-framework)
options:
  hostlist:
    description: Flux hostlist of the machines that may be booted.
    type: str
    required: true
  cores:
    description: How many cores R declares of each that it does not have.
    type: int
    required: true
  gpus:
    description: How many GPUs R declares of each that it does not have.
    type: int
    default: 0
  properties:
    description: Properties that R gives to each.
    type: list
    elements: str
    default: [burst]
  topology:
    description:
      - Whose overlay children the machines are, the lead's (V(flat)), or the first one's, which alone is the lead's
        (V(gateway)). Where C(hosts) has others, the array is replaced, and only then comments inside it are lost.
    type: str
    choices: [flat, gateway]
    default: flat
  config_dir:
    description: The directory that the broker has as C(--config-path).
    type: path
    default: /etc/flux/system/conf.d
  service:
    description: Unit of the broker.
    type: str
    default: flux.service
  restart:
    description:
      - Whether to restart the broker where it runs with other hosts or resources. V(false) only replaces files. A
        worker restarts with its lead, and then takes them.
    type: bool
    default: true
  restart_over_jobs:
    description: The lead's hostname, where the restart may end jobs.
    type: str
    default: ""
  timeout:
    description: How long the broker may take to come up, and after it those of its workers that were up, in seconds.
    type: int
    default: 120
  edited:
    description: What the controller made of the files. The action plugin of this module sets it.
    type: dict
requirements:
  - tomlkit and ClusterShell on the controller
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Declare the machines on the lead
  flux.burst.flux_config:
    hostlist: gffw-compute-a-[001-003]
    cores: 2

- name: Replace the files alone, on a broker that restarts with its lead
  flux.burst.flux_config:
    hostlist: gffw-compute-a-[001-003]
    cores: 2
    restart: false
"""

RETURN = r"""
hosts:
  description: Hosts of the instance by rank, as the files have them.
  returned: success
  type: list
  elements: str
  sample: [flux-sample-0, flux-sample-1, gffw-compute-a-001]
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: file
      name: /etc/flux/system/conf.d/system.toml
      action: update
    - kind: unit
      name: flux.service
      action: update
"""

import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _lead_broker
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module

GIVEN = ("hostlist", "cores", "gpus", "properties", "topology")


def main() -> None:
    """Run the module: without `edited`, read what the controller needs for that."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "hostlist": {"type": "str", "required": True},
            "cores": {"type": "int", "required": True},
            "gpus": {"type": "int", "default": 0},
            "properties": {"type": "list", "elements": "str", "default": ["burst"]},
            "topology": {"type": "str", "choices": ["flat", "gateway"], "default": "flat"},
            "config_dir": {"type": "path", "default": "/etc/flux/system/conf.d"},
            "service": {"type": "str", "default": "flux.service"},
            "restart": {"type": "bool", "default": True},
            "restart_over_jobs": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 120},
            "edited": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        if params["edited"] is None:
            module.exit_json(
                changed=False,
                hostname=socket.gethostname(),
                files=_lead_broker.texts(params["config_dir"]),
                ranks=_lead_broker.known_ranks(params["uri"], params["rpc_timeout"]),
                given={key: params[key] for key in GIVEN},
            )
        broker = _lead_broker.LeadBroker(
            params["uri"],
            params["rpc_timeout"],
            params["service"],
            _lead_broker.Edited(**params["edited"]),
            _lead_broker.Policy(params["restart"], params["restart_over_jobs"], params["timeout"]),
        )
        try:
            module.exit_json(**broker.run(check=module.check_mode))
        finally:
            for line in broker.warnings:
                module.warn(line)


if __name__ == "__main__":
    main()
