# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burst has in Compute Engine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_burst_info
short_description: What a burst has in Compute Engine, what it cost so far, and when it ends
version_added: 0.1.0
description:
  - Finds everything that carries the burst's label, or its description where Compute Engine takes no labels when such a
    thing is made. It does not rely on names, and there is no state file.
  - Of each machine it says what it cost since it was last started, by Google's list prices of Linux machines on demand
    or, where they are known, on spot, without disks, addresses, traffic and discounts, and how long its time limit
    leaves it.
author:
  - flux.burst contributors (@flux-framework)
options:
  burst:
    description: Name of the burst, or V(all) for every burst of the project.
    type: str
    required: true
  foundation:
    description: Name of the foundation that the burst shares with others; see M(flux.burst.gce_network).
    type: str
  kinds:
    description: What to look for. Each kind is one request, and they are made beside one another; without any, all.
    type: list
    elements: str
    choices: [instances, disks, images, networks, subnetworks, routers, firewalls, addresses, resourcePolicies]
    default: []
  prices:
    description:
      - Price of a machine for one hour, by name of the machine type, in the currency of your bill. For other types
        the list prices in US dollars hold that come with the collection.
    type: dict
    default: {}
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: See what the burst has
  flux.burst.gce_burst_info:
    burst: flux-burst
    project: my-project
  register: found

- name: See every burst of the project, and what each has cost
  flux.burst.gce_burst_info:
    burst: all
    project: my-project
  register: found

- name: Show it
  ansible.builtin.debug:
    msg: "{{ found.bursts | items2dict(key_name='burst', value_name='report') }}"
"""

RETURN = r"""
bursts:
  description:
    - One entry a burst, by name, with the keys RV(instances) to RV(report) for that burst alone.
    - With O(burst=all), a foundation that bursts share is an entry of its own.
  returned: success
  type: list
  elements: dict
  contains:
    burst:
      description: Its name.
      type: str
  sample: []
instances:
  description: The machines, by name.
  returned: success
  type: list
  elements: dict
  sample:
    - name: gffw-compute-a-001
      id: "4611686018427387904"
      zone: us-central1-a
      status: RUNNING
      machine_type: n2-standard-4
      internal_ip: 10.10.0.2
      external_ip: ""
      spot: false
      age: 3780
      ran: 3765
      time_left: 10635
      price_per_hour: 0.194236
      price_basis: list
      cost: 0.2031
  contains:
    spot:
      description: Whether Compute Engine may take it away at any time.
      type: bool
    age:
      description: How long ago it was created, in seconds.
      type: int
    ran:
      description: How long it has run since it was last started, in seconds.
      type: int
    time_left:
      description: After how many seconds Compute Engine deletes it. Null where it has no time limit, or does not run.
      type: int
    price_per_hour:
      description: What an hour of it costs, null where that is unknown.
      type: float
    price_basis:
      description:
        - Where that comes from. V(configured) by O(prices), V(list) for Google's list price, V(estimate) for one that
          was derived from it, V(upper bound) for a spot machine of which only the price on demand is known, V(unknown).
      type: str
    cost:
      description: What it cost since it was last started, null where its price is unknown.
      type: float
disks:
  description: Names of disks that no machine uses, which cost until they are deleted.
  returned: success
  type: list
  elements: str
  sample: []
images:
  description: Names of the images that were made for the burst.
  returned: success
  type: list
  elements: str
  sample: [flux-fw-bursted-x86-64-20261125]
resource_policies:
  description: Names of the placement policies.
  returned: success
  type: list
  elements: str
  sample: []
nat_ips:
  description: The addresses reserved for the NAT.
  returned: success
  type: list
  elements: str
  sample: [203.0.113.21]
networks:
  description: Names of the networks.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-net]
subnetworks:
  description: Names of the subnetworks.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-subnet]
routers:
  description: Names of the routers.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-router]
firewalls:
  description: Names of the firewalls.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-allow-iap-ssh, flux-burst-allow-internal]
addresses:
  description: Names of the addresses reserved for the NAT.
  returned: success
  type: list
  elements: str
  sample: [flux-burst-nat-1]
totals:
  description: The sums over the machines.
  returned: success
  type: dict
  sample:
    machines: 2
    running: 2
    spot: 0
    price_per_hour: 0.3885
    cost: 0.4062
    without_price: []
    without_fuse: []
    first_end: 10635
    last_end: 10635
  contains:
    without_price:
      description: Machine types whose price is unknown. They are in no sum.
      type: list
      elements: str
    without_fuse:
      description: Machines that run and have no time limit.
      type: list
      elements: str
    first_end:
      description: After how many seconds the first machine ends by its time limit, null without any.
      type: int
    last_end:
      description: After how many seconds the last one does.
      type: int
report:
  description: All of it as lines for people. With O(burst=all), each line begins with its burst.
  returned: success
  type: list
  elements: str
  sample:
    - "gffw-compute-a-001 RUNNING n2-standard-4 us-central1-a 10.10.0.2: up 1h 2m, 0.20 so far, ends in 2h 57m"
    - "1 machines, 1 running (0 spot): 0.20 so far, 0.19 an hour; the last one ends in 2h 57m"
    - "networks: flux-burst-net"
prices_of:
  description: On what day the list prices were taken.
  returned: success
  type: str
  sample: "2026-11-25"
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _gce_burst, _prices
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ARGUMENTS
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession

ALL = "all"
GLOBAL = ("networks", "firewalls", "images")
FIELDS = {
    "instances": (
        "id,name,zone,status,machineType,labels,networkInterfaces(networkIP,accessConfigs/natIP),scheduling,guestAccelerators,"
        "creationTimestamp,lastStartTimestamp,lastStopTimestamp"
    ),
    "disks": "name,labels,users",
    "images": "name,labels",
    "addresses": "name,description,address",
}


def read(session: GceSession, project: str, burst: str, kind: str) -> list[dict[str, Any]]:
    """Return the REST resources of a kind: a burst's where there are labels to ask for, else all. Raises GceError."""
    query = {}
    if kind in _gce_burst.LABELLED:
        wanted = ":*" if burst == ALL else f"={burst}"
        query["filter"] = f"labels.{_gce_burst.LABELLED[kind]}{wanted}"
    fields = FIELDS.get(kind, "name,description")
    found: Iterator[dict[str, Any]]
    if kind in GLOBAL:
        found = session.listed(f"projects/{project}/global/{kind}", fields, **query)
    else:
        found = session.aggregated(project, kind, fields, **query)
    return list(found)


def result(bursts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the module returns for its bursts: all of them together, and each."""
    together = {key: [it for each in bursts for it in each[key]] for key in _gce_burst.LISTS}
    if len(bursts) == 1:
        lines = bursts[0]["report"]
    else:
        lines = [f"{each['burst']}: {line}" for each in bursts for line in each["report"]]
    totals = _gce_burst.totals(together["instances"])
    return {**together, "bursts": bursts, "totals": totals, "report": lines}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "foundation": {"type": "str"},
            "kinds": {
                "type": "list",
                "elements": "str",
                "choices": list(_gce_burst.KINDS),
                "default": [],
            },
            "prices": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        session = GceSession.from_params(params)
        project, burst = params["project"], params["burst"]
        prices = _prices.configured_prices(params["prices"])
        kinds = params["kinds"] or _gce_burst.KINDS
        with ThreadPoolExecutor(len(kinds)) as readers:
            rows = list(readers.map(lambda kind: read(session, project, burst, kind), kinds))
        names = (
            None if burst == ALL else dict.fromkeys([burst, params["foundation"] or burst], burst)
        )
        found = dict(zip(kinds, rows, strict=True))
        bursts = _gce_burst.grouped(found, names, prices, time.time())
        module.exit_json(changed=False, prices_of=_prices.DATE, **result(bursts))


if __name__ == "__main__":
    main()
