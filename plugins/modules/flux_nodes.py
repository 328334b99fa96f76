# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring nodes of a Flux instance into a state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_nodes
short_description: Wait for nodes to come online, drain them, or undrain them
version_added: 0.1.0
description:
  - Runs on the lead broker's host.
author:
  - flux.burst contributors (@flux-framework)
options:
  hosts:
    description: Hostnames of the nodes. An empty list is a success that does nothing.
    type: list
    elements: str
    required: true
  state:
    description:
      - V(online) waits until the broker of every node is online and no node is drained. It changes nothing.
      - V(drained) drains the nodes and waits until no job is on them. A node that is down is drained too.
      - V(undrained) takes the drain away, also from a node that is down.
    type: str
    choices: [online, drained, undrained]
    required: true
  reason:
    description: Why they are drained, for C(flux resource drain) to show.
    type: str
    default: flux.burst
  timeout:
    description: How long to wait, in seconds.
    type: int
    default: 60
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Wait until the bursted machines are online
  flux.burst.flux_nodes:
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    state: online

- name: Drain them and wait for their jobs
  flux.burst.flux_nodes:
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    state: drained
    reason: end of the burst
    timeout: 300
"""

RETURN = r"""
ranks:
  description: The nodes as they are at the end, as M(flux.burst.flux_resource_info) describes them.
  returned: success
  type: list
  elements: dict
  sample:
    - rank: 2
      host: gffw-compute-a-001
      state: drained
      cores: 2
      gpus: 0
      drain_reason: end of the burst
      properties: [burst]
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: node
      name: gffw-compute-a-001
      action: update
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_resource, _reconcile
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module

POLL = 0.2
ONLINE = ("free", "allocated")


def chosen(client: _flux.FluxClient, hosts: Sequence[str]) -> list[_flux_resource.Rank]:
    """Return the ranks of these hosts. Raises FluxError for hosts that R does not declare."""
    by_host = {rank.host: rank for rank in _flux_resource.read(client)}
    unknown = [host for host in hosts if host not in by_host]
    if unknown:
        raise FluxError(
            f"wanted hosts that the lead's R declares, found {', '.join(unknown)} not in it: "
            "compare burst_hostlist with flux resource list on the lead."
        )
    return [by_host[host] for host in hosts]


def plan(ranks: Sequence[_flux_resource.Rank], params: dict[str, Any]) -> list[_reconcile.Change]:
    """Return which nodes have to be drained or undrained."""
    drain = params["state"] == "drained"
    return [
        _reconcile.Change(
            "node",
            rank.host,
            "update",
            {"drained": not drain, "reason": rank.drain_reason or ""},
            {"drained": drain, "reason": params["reason"] if drain else ""},
        )
        for rank in ranks
        if (rank.drain_reason is None) == drain
    ]


def wait(
    client: _flux.FluxClient,
    params: dict[str, Any],
    good: Callable[[_flux_resource.Rank], bool],
    advice: str,
) -> list[_flux_resource.Rank]:
    """Return the ranks once all are good. Raises FluxError, naming those that are not, after the timeout."""
    deadline = time.monotonic() + params["timeout"]
    while True:
        ranks = chosen(client, params["hosts"])
        bad = [rank for rank in ranks if not good(rank)]
        if not bad:
            return ranks
        if time.monotonic() > deadline:
            found = ", ".join(
                f"{rank.host} {rank.state}"
                + (f" ({rank.drain_reason})" if rank.drain_reason else "")
                for rank in bad
            )
            raise FluxError(
                f"wanted every node {params['state']} within {params['timeout']} s, found {found}: {advice}"
            )
        time.sleep(POLL)


def run(client: _flux.FluxClient, params: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what is asked and return what exit_json takes."""
    if params["state"] == "online":
        ranks = wait(
            client,
            params,
            lambda rank: rank.state in ONLINE,
            "see journalctl -u flux on that machine and flux overlay errors on the lead.",
        )
        return {**_reconcile.apply([], lambda stage: None, check=check), "ranks": _rows(ranks)}
    ranks = chosen(client, params["hosts"])
    numbers = {rank.host: rank.rank for rank in ranks}

    def act(stage: _reconcile.Stage) -> None:
        targets = {"targets": ",".join(str(numbers[change.name]) for change in stage)}
        if params["state"] == "drained":
            client.rpc("resource.drain", {**targets, "reason": params["reason"]})
        else:
            client.rpc("resource.undrain", targets)

    result = _reconcile.apply([plan(ranks, params)], act, check=check)
    if params["state"] == "drained" and not check:
        ranks = wait(
            client,
            params,
            lambda rank: rank.state in ("drained", "down", "excluded"),
            "jobs still run there; wait for them or cancel them, or raise the timeout.",
        )
    return {**result, "ranks": _rows(ranks)}


def _rows(ranks: Sequence[_flux_resource.Rank]) -> list[dict[str, Any]]:
    return [asdict(rank) for rank in ranks]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "hosts": {"type": "list", "elements": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["online", "drained", "undrained"],
                "required": True,
            },
            "reason": {"type": "str", "default": "flux.burst"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        if not module.params["hosts"]:
            module.exit_json(changed=False, ranks=[], resources=[])
        client = _flux.FluxClient(module.params["uri"])
        module.exit_json(**run(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
