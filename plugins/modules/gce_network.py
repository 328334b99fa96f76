# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that a burst's machines live in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_network
short_description: The network, NAT and firewalls of a burst
version_added: 0.1.0
description:
  - Makes a network with one subnetwork, a router with Cloud NAT for what the machines ask of others, a firewall that
    lets SSH in from O(ssh_ranges) and from nowhere else, and one for traffic among the machines.
  - What was changed by hand is put right. A resource of such a name that somebody else made is not touched.
  - Several bursts may share such a foundation (O(foundation)); the last one out deletes it.
  - Or it checks that a burst's machines can live in a subnetwork that exists (O(subnetwork)), which may belong to a
    shared VPC's host project. It is never changed or deleted.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description:
      - Whether the network shall exist.
      - V(absent) finds what to delete by its description, in every region, so that it ends what an interrupted run
        began. It first asks which machines are in the network. Those of the same burst are an error, but in
        check mode, where a task before would have deleted them; while there are any of another burst, nothing is
        deleted, and RV(kept_for) names it.
    type: str
    choices: [present, absent]
    default: present
  region:
    description: Region of the subnetwork and the router.
    type: str
    required: true
  foundation:
    description:
      - Name of the foundation, with which the names of its parts begin. Bursts that give the same name share one, and
        have to give the same O(subnet_cidr), O(nat_addresses) and O(ssh_ranges). Without it, the burst has its own.
    type: str
  subnet_cidr:
    description: IPv4 range of the subnetwork.
    type: str
    default: 10.10.0.0/24
  nat_addresses:
    description:
      - How many regional addresses to reserve for the NAT, so that a lead's firewall can name them (RV(nat_ips)). One
        serves about 1000 machines. With V(0) Google picks the addresses, and changes them.
    type: int
    default: 0
  ssh_ranges:
    description: From where SSH is let in, as IPv4 ranges. By default the Identity-Aware Proxy's.
    type: list
    elements: str
    default: [35.235.240.0/20]
  network:
    description:
      - Network that exists, as a name or as C(projects/PROJECT/global/networks/NAME). Needs O(subnetwork), which has to
        lie in it.
    type: str
  subnetwork:
    description:
      - Subnetwork that exists, as a name or as C(projects/PROJECT/regions/REGION/subnetworks/NAME). A bare name is
        looked for in the project of O(network) or, without that, in O(project).
      - It must have room for O(machines), and a firewall rule must let SSH in from each of O(ssh_ranges). A warning
        says where it has neither private Google access nor a NAT, and what could not be read.
      - With it nothing is made, and O(foundation), O(subnet_cidr) and O(nat_addresses) are not looked at.
    type: str
  machines:
    description: For how many machines the subnetwork must have addresses.
    type: int
    default: 0
  tags:
    description: Network tags of the machines. Firewall rules of an existing network may hold for those only.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._gce.burst
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Create the network
  flux.burst.gce_network:
    burst: flux-burst
    project: my-project
    region: us-central1
    subnet_cidr: 10.10.0.0/24

- name: Share one with other bursts, whose machines come from one address that the lead's firewall names
  flux.burst.gce_network:
    burst: flux-burst
    foundation: hpc
    project: my-project
    region: us-central1
    subnet_cidr: 10.10.0.0/20
    nat_addresses: 1

- name: Check that 100 machines can live in a shared VPC's subnetwork
  flux.burst.gce_network:
    burst: flux-burst
    project: my-project
    region: us-central1
    subnetwork: projects/my-host-project/regions/us-central1/subnetworks/hpc
    machines: 100

- name: Delete it
  flux.burst.gce_network:
    state: absent
    burst: flux-burst
    project: my-project
    region: us-central1
"""

RETURN = r"""
network:
  description: Path of the network.
  returned: success
  type: str
  sample: projects/my-project/global/networks/flux-burst-net
subnetwork:
  description: Path of the subnetwork, for M(flux.burst.gce_instances).
  returned: success
  type: str
  sample: projects/my-project/regions/us-central1/subnetworks/flux-burst-subnet
nat_ips:
  description: The addresses reserved for the NAT; in check mode those that are there already.
  returned: success
  type: list
  elements: str
  sample: [203.0.113.21]
kept_for:
  description: The bursts because of whose machines nothing was deleted.
  returned: success
  type: list
  elements: str
  sample: []
resources:
  description: What was changed, or in check mode would be, in this order.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: network
      name: flux-burst-net
      action: create
"""

import ipaddress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _changes
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ARGUMENTS
from ansible_collections.flux.burst.plugins.module_utils._gce_foundation import (
    ExistingNetwork,
    OwnNetwork,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_network import IAP_RANGE, check_range
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession

WIDEST = 8
NARROWEST = 29
"""Prefix lengths of a subnetwork."""
NAT_LIMIT = 50
"""How many addresses are worth it: one serves a thousand machines."""
ARGUMENT_SPEC: dict[str, Any] = {
    **ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "region": {"type": "str", "required": True},
    "foundation": {"type": "str"},
    "subnet_cidr": {"type": "str", "default": "10.10.0.0/24"},
    "nat_addresses": {"type": "int", "default": 0},
    "ssh_ranges": {"type": "list", "elements": "str", "default": [IAP_RANGE]},
    "network": {"type": "str"},
    "subnetwork": {"type": "str"},
    "machines": {"type": "int", "default": 0},
    "tags": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        required_by={"network": ["subnetwork"]},
        supports_check_mode=True,
    )
    with failing_module(module):
        params, check = with_project(module.params), module.check_mode
        check_ranges(params["ssh_ranges"])
        session = GceSession.from_params(params)
        if params["subnetwork"]:
            existing = ExistingNetwork(params, session)
            if params["state"] == "present":
                existing.check()
            for warning in existing.warnings:
                module.warn(warning)
            module.exit_json(
                **_changes.told([]),
                network=existing.network,
                subnetwork=existing.subnetwork,
                nat_ips=[],
                kept_for=[],
            )
        check_foundation(params)
        network = OwnNetwork(params, session)
        made = network.absent if params["state"] == "absent" else network.present
        result = made(check=check)
        for change, error in network.refused:
            module.warn(f"{change.kind} {change.name} is kept, somebody else uses it: {error}")
        module.exit_json(
            **result,
            network=network.foundation.network,
            subnetwork=network.foundation.subnetwork,
            kept_for=network.kept_for,
        )


def check_ranges(ranges: list[str]) -> None:
    """Raise SpecError for what is no IPv4 range, or for none."""
    for text in ranges or [""]:
        try:
            ipaddress.IPv4Network(text)
        except ValueError as error:
            raise SpecError(
                f"ssh_ranges: wanted IPv4 ranges such as 203.0.113.7/32, found {text!r} ({error})."
            ) from None


def check_foundation(params: dict[str, Any]) -> None:
    """Raise SpecError for a foundation that cannot be, GceError for one that is too small for its machines."""
    if not 0 <= params["nat_addresses"] <= NAT_LIMIT:
        raise SpecError(f"nat_addresses: wanted 0 to {NAT_LIMIT}, found {params['nat_addresses']}.")
    try:
        prefix = ipaddress.IPv4Network(params["subnet_cidr"]).prefixlen
    except ValueError:
        prefix = 0
    if not WIDEST <= prefix <= NARROWEST:
        raise SpecError(
            f"subnet_cidr: wanted an IPv4 range from /{WIDEST} to /{NARROWEST} such as 10.10.0.0/24, "
            f"found {params['subnet_cidr']!r}."
        )
    if params["state"] == "present":
        check_range(params["subnet_cidr"], params["machines"], "subnet_cidr")


if __name__ == "__main__":
    main()
