# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring nodes of a Flux instance into a state."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_nodes
short_description: Wait for nodes to come or go, drain them, or undrain them
version_added: 0.1.0
description:
  - Runs on the lead broker's host. Nodes that come and go are awaited by the lead's own events, without asking again
    and again.
  - For each node that is not as wanted within the time, the failure names the stage at which it stopped, the cause
    in Flux's own words, and what to do.
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
      - V(offline) waits until the broker of every node has left.
    type: str
    choices: [online, drained, undrained, offline]
    required: true
  reason:
    description: Why they are drained, for C(flux resource drain) to show.
    type: str
    default: flux.burst
  timeout:
    description: How long to wait, in seconds.
    type: int
    default: 60
  disconnect:
    description:
      - With O(state=offline), have the lead disconnect the nodes that are online at the end of O(timeout), as C(flux
        overlay disconnect) does. Jobs there fail. A broker that is not stopped joins again.
    type: bool
    default: false
  prove:
    description:
      - With O(state=online), run a command on each node through Flux, to see that tasks start there and that munge,
        the owner's uid, the shell and the IMP are right. A node that fails it looks free but fails the jobs that it is
        given.
    type: bool
    default: false
  imp:
    description: The IMP that must be setuid on the nodes when O(prove=true); empty does not look.
    type: str
    default: /usr/libexec/flux/flux-imp
  jobs:
    description:
      - Jobs that are to run on the nodes, as M(flux.burst.flux_queue_info) returns them. With O(prove=true) each node
        must know their users, and a warning names a job whose directory is not there.
    type: list
    elements: dict
    default: []
  reports:
    description:
      - What M(flux.burst.flux_broker) returned as C(evidence) on machines where it failed, by hostname; with it a
        failure names the cause that only the machine knows.
      - A machine whose report has the key C(failure), the message with which a task failed there, is not waited for,
        and is not as wanted even where its broker is online. P(flux.burst.join_reports#filter) makes such reports.
    type: dict
    default: {}
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Wait until the bursted machines are online, and see that jobs can run there
  flux.burst.flux_nodes:
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    state: online
    prove: true

- name: Drain them and wait for their jobs
  flux.burst.flux_nodes:
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    state: drained
    reason: end of the burst
    timeout: 300

- name: Wait until their brokers have left
  flux.burst.flux_nodes:
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    state: offline

- name: Let the next burst use their names
  flux.burst.flux_nodes:
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    state: undrained
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
transitions:
  description: When each node came, left, was drained or undrained since the lead began, by hostname; seconds since
    the epoch.
  returned: success
  type: dict
  sample:
    gffw-compute-a-001:
      - name: online
        time: 1795517778.879
findings:
  description: The nodes that are not as wanted, and why. Empty on success.
  returned: always
  type: list
  elements: dict
  sample: []
  contains:
    host:
      description: The node's hostname.
      type: str
    stage:
      description:
        - Where it stopped, for instance C(machine), C(lead_port), C(certificate), C(hostname), C(version),
          C(resources), C(munge), C(clock), C(uid), C(imp), C(job), C(leave).
      type: str
    cause:
      description: What was found, in Flux's own words where there are any.
      type: str
    remedy:
      description: What to do.
      type: str
    below:
      description: Hosts that are not there for no other reason than that this one, their parent in the overlay, is not.
      type: list
      elements: str
missing_directories:
  description: Directories of O(jobs) that are not there, with the hosts on which they are not.
  returned: with O(prove=true)
  type: dict
  sample:
    /home/alice/run: [gffw-compute-a-001]
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

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import (
    _changes,
    _diagnose,
    _flux,
    _flux_nodes,
    _flux_resource,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module

Ranks = list[_flux_resource.Rank]
# How long the lead may take to see a peer gone that it disconnected itself, in seconds.
DISCONNECTING = 2.0
# How long an event may take that the lead has answered for already, in seconds.
SEEN = 1.0


def plan(ranks: Ranks, params: dict[str, Any]) -> list[_changes.Change]:
    """Return which nodes have to be drained, undrained or disconnected."""
    state = params["state"]
    if state == "online" or (state == "offline" and not params["disconnect"]):
        return []
    if state == "offline":
        return [
            _changes.Change("node", rank.host, "update", {"state": rank.state}, {"state": "down"})
            for rank in ranks
            if rank.state != "down"
        ]
    drain = state == "drained"
    return [
        _changes.Change(
            "node",
            rank.host,
            "update",
            {"drained": not drain, "reason": rank.drain_reason or ""},
            {"drained": drain, "reason": params["reason"] if drain else ""},
        )
        for rank in ranks
        if (rank.drain_reason is None) == drain
    ]


class Nodes:
    """Some nodes of an instance, brought into a state."""

    def __init__(self, client: _flux.FluxClient, params: dict[str, Any]) -> None:
        self.client, self.params = client, params
        self.ranks = _flux_nodes.chosen(client, params["hosts"])
        self.numbers = {rank.host: rank.rank for rank in self.ranks}
        self.missing_directories: dict[str, list[str]] = {}

    def run(self, *, check: bool) -> dict[str, Any]:
        """Do what is asked and return what exit_json takes. Raises FluxError with the findings."""
        watch = _flux_nodes.Watch(self.client, self.numbers.values())
        if self.params["state"] == "offline" and not check:
            # Only those that stay are disconnected: a broker that is being stopped leaves by itself.
            _flux_nodes.await_none(
                watch, lambda: watch.ranks & watch.online, self.params["timeout"]
            )
            self.ranks = self._now()
        result = _changes.apply([plan(self.ranks, self.params)], self._act, check=check)
        if check:
            self._raise(self._failures(self.ranks))
        else:
            self._wait(watch)
        ranks = self._now()
        names = {rank.rank: rank.host for rank in ranks}
        return {
            **result,
            "ranks": [asdict(rank) for rank in ranks],
            "transitions": {names[rank]: events for rank, events in watch.events.items()},
            "findings": [],
            "missing_directories": self.missing_directories,
        }

    def _act(self, stage: _changes.Stage) -> None:
        # Flux takes no idset that is out of order.
        ranks = sorted(self.numbers[change.name] for change in stage)
        targets = {"targets": ",".join(map(str, ranks))}
        if self.params["state"] == "drained":
            self.client.rpc("resource.drain", {**targets, "reason": self.params["reason"]})
        elif self.params["state"] == "undrained":
            self.client.rpc("resource.undrain", targets)
        else:
            for rank in ranks:
                self.client.rpc("overlay.disconnect-subtree", {"rank": rank}, 0)

    def _now(self, *, times: bool = True) -> Ranks:
        read = _flux_resource.read_all if times else _flux_resource.read
        known = {rank.rank: rank for rank in read(self.client)}
        return [known[number] for number in self.numbers.values()]

    def _wait(self, watch: _flux_nodes.Watch) -> None:
        state, timeout = self.params["state"], self.params["timeout"]
        if state == "online":
            self._await_online(watch)
        elif state == "offline":
            bad = _flux_nodes.await_none(watch, lambda: watch.ranks & watch.online, DISCONNECTING)
            self._fail(
                dict.fromkeys(bad, "its broker is still online"),
                "leave",
                "stop flux.service there, or set disconnect",
            )
        elif state == "undrained":
            _flux_nodes.await_none(watch, lambda: watch.ranks & watch.drained, SEEN)
        elif state == "drained":
            _flux_nodes.await_none(watch, lambda: watch.ranks - watch.drained, SEEN)
            busy = _flux_nodes.await_none(watch, self._busy, timeout, _flux_nodes.LOOK)
            jobs = _flux_nodes.jobs_on(self.client, busy)
            self._fail(
                {
                    rank: f"{', '.join(names) or 'a job'} still runs there"
                    for rank, names in jobs.items()
                },
                "job",
                "wait for it or cancel it (flux cancel), or raise the timeout",
            )

    def _await_online(self, watch: _flux_nodes.Watch) -> None:
        reports = self.params["reports"]
        hopeful = {rank.rank for rank in self.ranks if "failure" not in reports.get(rank.host, {})}
        tree = _flux_nodes.Tree.of(self.client)
        # Nobody comes either whose parent in the overlay does not.
        there = watch.online | hopeful
        hopeful -= {rank.rank for rank in self.ranks if tree.lost(rank.host, there)}
        _flux_nodes.await_none(
            watch, lambda: hopeful - (watch.online - watch.drained), self.params["timeout"]
        )
        now = self._now()
        missing = [rank for rank in now if rank.state not in ("free", "allocated")]
        found = _flux_nodes.findings(self.client, missing, watch, reports, self.params["timeout"])
        present = [rank for rank in now if rank not in missing]
        found += self._failures(present)
        to_prove = [rank for rank in present if rank.rank in hopeful]
        if self.params["prove"] and to_prove:
            uid = int(self.client.attribute("security.owner"))
            wrong, self.missing_directories = _flux_nodes.prove(
                self.client.uri, to_prove, uid, self.params["imp"], self.params["jobs"]
            )
            found += wrong
        self._raise(found)

    def _failures(self, ranks: Ranks) -> list[_diagnose.Finding]:
        """Return what tasks that failed said of these nodes, whatever Flux thinks of them."""
        reports = self.params["reports"]
        said = {rank.host: reports.get(rank.host, {}).get("failure") for rank in ranks}
        return [
            finding
            for host, text in said.items()
            if text
            for finding in _diagnose.of_message(host, str(text))
        ]

    def _busy(self) -> set[int]:
        """Return the nodes with jobs; one that is drained has none when it is no longer draining."""
        return {rank.rank for rank in self._now(times=False) if rank.state == "draining"}

    def _fail(self, causes: Mapping[int, str], stage: str, remedy: str) -> None:
        self._raise(
            [
                _diagnose.Finding(rank.host, stage, causes[rank.rank], remedy)
                for rank in self.ranks
                if rank.rank in causes
            ]
        )

    def _raise(self, found: Sequence[_diagnose.Finding]) -> None:
        if found:
            told = "\n".join(map(str, found))
            bad = {host for finding in found for host in (finding.host, *finding.below)}
            raise FluxError(
                f"wanted every node {self.params['state']} within {self.params['timeout']} s, found "
                f"{len(bad & self.numbers.keys())} of {len(self.ranks)} that are not:\n{told}.",
                findings=[asdict(finding) for finding in found],
                missing_directories=self.missing_directories,
            )

    def warnings(self) -> list[str]:
        """Return a line for each job that would not start where it was submitted."""
        return [
            f"job {job['id']} starts in {job['cwd']}, which is not on {', '.join(hosts)}, and would run in /tmp there: "
            "submit it with --cwd, or let the machines share that directory"
            for job in self.params["jobs"]
            for hosts in [self.missing_directories.get(job.get("cwd", ""), [])]
            if hosts
        ]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "hosts": {"type": "list", "elements": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["online", "drained", "undrained", "offline"],
                "required": True,
            },
            "reason": {"type": "str", "default": "flux.burst"},
            "timeout": {"type": "int", "default": 60},
            "disconnect": {"type": "bool", "default": False},
            "prove": {"type": "bool", "default": False},
            "imp": {"type": "str", "default": "/usr/libexec/flux/flux-imp"},
            "jobs": {"type": "list", "elements": "dict", "default": []},
            "reports": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        if not module.params["hosts"]:
            module.exit_json(
                changed=False,
                ranks=[],
                resources=[],
                transitions={},
                findings=[],
                missing_directories={},
            )
        nodes = Nodes(_flux.FluxClient.of(module.params), module.params)
        try:
            result = nodes.run(check=module.check_mode)
        finally:
            for line in nodes.warnings():
                module.warn(line)
        module.exit_json(**result)


if __name__ == "__main__":
    main()
