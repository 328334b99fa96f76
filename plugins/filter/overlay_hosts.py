# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lead's array of hosts as bursted machines need it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: overlay_hosts
short_description: A lead's array of hosts, with the addresses at which bursted machines reach their parents
version_added: 0.1.0
description:
  - The array C(hosts) of C([bootstrap]) must have the same names in the same order on the lead and on the machines, and
    the same parents. What differs is where a machine connects to.
  - The lead gets its address as the machines see it. A gateway, which is the parent of the other machines, gets its own
    address, to listen and to be reached at.
positional: lead_address, lead_port
options:
  _input:
    description: The array, as M(flux.burst.flux_identity_info) returns it in C(bootstrap).
    type: list
    elements: dict
    required: true
  lead_address:
    description: Address or name at which the machines reach the lead.
    type: str
    required: true
  lead_port:
    description: TCP port at which the machines reach the lead.
    type: int
    required: true
  gateway:
    description: Hostname of the machine that is the parent of the others; empty where the lead is everyone's.
    type: str
    default: ""
  gateway_address:
    description: Its address in the machines' network.
    type: str
    default: ""
  gateway_port:
    description: TCP port at which it listens.
    type: int
    default: 8050
author:
  - flux.burst contributors (@flux-framework)
"""

EXAMPLES = r"""
- name: Show where the machines of a burst connect to
  ansible.builtin.debug:
    msg: "{{ lead.bootstrap.hosts | flux.burst.overlay_hosts('203.0.113.10', 30093,
      gateway='gffw-compute-a-001', gateway_address='10.10.0.2') }}"
"""

RETURN = r"""
_value:
  description: The array for the machines.
  type: list
  elements: dict
  sample:
    - host: flux-sample-0
      connect: tcp://203.0.113.10:30093
    - host: gffw-compute-a-001
      bind: tcp://10.10.0.2:8050
      connect: tcp://10.10.0.2:8050
    - host: gffw-compute-a-[002-008]
      parent: gffw-compute-a-001
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _overlay


def overlay_hosts(
    hosts: Sequence[Mapping[str, Any]],
    lead_address: str,
    lead_port: int,
    gateway: str = "",
    gateway_address: str = "",
    gateway_port: int = _overlay.DEFAULT_PORT,
) -> list[dict[str, Any]]:
    """Return the array for the machines."""
    lead = (lead_address, lead_port)
    return _overlay.for_machines(hosts, lead, gateway, gateway_address, gateway_port)


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return it by its name."""
        return {"overlay_hosts": overlay_hosts}
