# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall rule before a lead."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_firewall
short_description: The firewall rule that lets a burst reach its lead
version_added: 0.1.0
description:
  - Makes a rule that lets TCP in at O(port) from O(source_ranges), and from nowhere else, to the machines with one of
    O(target_tags). It is named C(BURST-lead), and its description says whose it is.
  - What was changed by hand is put right. A rule of that name that somebody else made is not touched.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: Whether the rule shall exist.
    type: str
    choices: [present, absent]
    default: present
  network:
    description: Network of the lead, as a name or as C(projects/PROJECT/global/networks/NAME).
    type: str
    default: default
  port:
    description: Port of the lead. Needed where the rule shall exist.
    type: int
  source_ranges:
    description: From where it is reached, as IPv4 addresses or ranges. V(0.0.0.0/0) is refused. Needed as O(port) is.
    type: list
    elements: str
    default: []
  target_tags:
    description: Network tags of the machines that it holds for. Needed as O(port) is.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._gce.burst
  - flux.burst._attributes
seealso:
  - module: flux.burst.gce_network
"""

EXAMPLES = r"""
- name: Let the machines of the burst reach the lead, which come from the NAT's address
  flux.burst.gce_firewall:
    burst: flux-burst
    project: my-project
    port: 30093
    source_ranges: [203.0.113.21]
    target_tags: [flux-cluster]

- name: Delete the rule
  flux.burst.gce_firewall:
    state: absent
    burst: flux-burst
    project: my-project
"""

RETURN = r"""
firewall:
  description: Name of the rule.
  returned: success
  type: str
  sample: flux-burst-lead
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: firewall
      name: flux-burst-lead
      action: create
"""

import ipaddress
import uuid
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _changes, _gce_network
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    GceError,
    SpecError,
    failing_module,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ARGUMENTS, GceClient
from ansible_collections.flux.burst.plugins.module_utils._gce_session import NOT_FOUND, GceSession


class Rule:
    """A rule as it is, and the changes to it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.name = f"{params['burst']}-lead"
        self.path = f"projects/{params['project']}/global/firewalls/{self.name}"
        network = params["network"]
        if "/" not in network:
            network = f"projects/{params['project']}/global/networks/{network}"
        tcp = {"IPProtocol": "tcp", "ports": [str(params["port"])]}
        ranges = [_range(text) for text in params["source_ranges"]]
        self.body = {
            **_gce_network.firewall(self.name, network, ranges, tcp),
            "targetTags": params["target_tags"],
            # Not the burst's own mark: its teardown would take the rule away with the network.
            "description": f"flux-burst-lead={params['burst']}",
        }

    def read(self) -> dict[str, Any] | None:
        """Return the REST resource; None where there is none. Raises GceError."""
        try:
            return GceSession.from_params(self.params).get(self.path)
        except GceError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def plan(self) -> list[_changes.Stage]:
        """Return the change that is needed, if any. Raises GceError, SpecError."""
        found = self.read()
        if self.params["state"] == "present":
            self._check()
            key = ("firewall", self.name)
            return _gce_network.plan_present([{key: self.body}], {key: found} if found else {})
        if not found or found.get("description") != self.body["description"]:
            return []
        return [[_changes.Change("firewall", self.name, "delete", {"name": self.name}, {})]]

    def _check(self) -> None:
        for option in ("port", "source_ranges", "target_tags"):
            if not self.params[option]:
                raise SpecError(
                    f"{option}: wanted some, found none: a rule without it would open the lead to others."
                )

    def act(self, stage: _changes.Stage) -> None:
        """Do it and wait for it. Raises GceError."""
        client = GceClient.from_params(self.params)
        for change in stage:
            if change.action == "create":
                client.wait(client.insert("firewall", self.body, str(uuid.uuid4())))
            elif change.action == "update":
                client.wait(client.replace("firewall", self.name, self.body))
            else:
                started = client.delete("firewall", self.name)
                if started:
                    client.wait(started)


def _range(text: str) -> str:
    """Return an address or a range as Compute Engine tells it. Raises SpecError."""
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise SpecError(
            f"source_ranges: wanted IPv4 addresses or ranges such as 203.0.113.21, found {text!r} ({error})."
        ) from None
    if not found.prefixlen:
        raise SpecError(
            f"source_ranges: wanted the burst's own addresses, found {text}, which is everybody: give the NAT's "
            "addresses (burst_nat_addresses)."
        )
    return str(found)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "network": {"type": "str", "default": "default"},
            "port": {"type": "int"},
            "source_ranges": {"type": "list", "elements": "str", "default": []},
            "target_tags": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        rule = Rule(with_project(module.params))
        result = _changes.apply(rule.plan(), rule.act, check=module.check_mode)
        module.exit_json(**result, firewall=rule.name)


if __name__ == "__main__":
    main()
