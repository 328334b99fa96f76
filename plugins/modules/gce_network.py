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
    lets SSH in from the Identity-Aware Proxy's range and from nowhere else, and one for traffic among the machines.
  - What was changed by hand is put right. A resource of such a name that somebody else made is not touched.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: Whether the network shall exist.
    type: str
    choices: [present, absent]
    default: present
  region:
    description: Region of the subnetwork and the router.
    type: str
    required: true
  subnet_cidr:
    description: IPv4 range of the subnetwork.
    type: str
    default: 10.10.0.0/24
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

- name: Delete it
  flux.burst.gce_network:
    state: absent
    burst: flux-burst
    project: my-project
    region: us-central1
"""

RETURN = r"""
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

import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _gce_network, _reconcile
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import (
    ARGUMENTS,
    KINDS,
    GceClient,
    Started,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession

PATHS = {
    "network": "networks",
    "subnetwork": "subnetworks",
    "router": "routers",
    "firewall": "firewalls",
}


class Network:
    """A burst's network as it is, and the changes to it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.session = GceSession.from_params(params)
        self.wanted = _gce_network.desired(
            params["project"], params["burst"], params["subnet_cidr"]
        )
        self.bodies = {key: body for stage in self.wanted for key, body in stage.items()}

    @cached_property
    def client(self) -> GceClient:
        """Made for the first change only."""
        return GceClient.from_params(self.params)

    def read(self) -> dict[_gce_network.Key, dict[str, Any]]:
        """Return the REST resources that exist."""
        keys = list(self.bodies)
        with ThreadPoolExecutor(len(keys)) as readers:
            found = list(readers.map(lambda key: self._read_one(*key), keys))
        return {key: body for key, body in zip(keys, found, strict=True) if body}

    def _read_one(self, kind: str, name: str) -> dict[str, Any] | None:
        place = f"regions/{self.params['region']}" if KINDS[kind].scope == "region" else "global"
        try:
            return self.session.get(
                f"projects/{self.params['project']}/{place}/{PATHS[kind]}/{name}"
            )
        except GceError as error:
            if error.status == 404:
                return None
            raise

    def act(self, stage: _reconcile.Stage) -> None:
        """Do one stage: start all of it, then wait for all of it."""
        self.client.together(partial(self._start, change) for change in stage)

    def _start(self, change: _reconcile.Change) -> Started | None:
        regional = KINDS[change.kind].scope == "region"
        place = {"region": self.params["region"]} if regional else {}
        if change.action == "delete":
            return self.client.delete(change.kind, change.name, **place)
        if change.action == "update":
            return self._update(change, place)
        # Names are unique, so a repeat cannot make a second one, and a network may be made again within the hour for
        # which Google remembers a derived id: a fresh one is right here.
        return self.client.insert(change.kind, change.after, str(uuid.uuid4()), **place)

    def _update(self, change: _reconcile.Change, place: dict[str, str]) -> Started:
        if change.kind == "subnetwork":
            return self.client.set_private_access(change.name, True, **place)
        if change.kind == "firewall":
            # A patch cannot empty a list: the client library leaves empty ones out.
            return self.client.replace(
                "firewall", change.name, self.bodies["firewall", change.name]
            )
        return self.client.patch(
            change.kind, change.name, {"name": change.name, **change.after}, **place
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "region": {"type": "str", "required": True},
            "subnet_cidr": {"type": "str", "default": "10.10.0.0/24"},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        network = Network(params)
        actual = network.read()
        if params["state"] == "absent":
            stages = _gce_network.plan_absent(params["burst"], actual)
        else:
            stages = _gce_network.plan_present(network.wanted, actual)
        module.exit_json(**_reconcile.apply(stages, network.act, check=module.check_mode))


if __name__ == "__main__":
    main()
