# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Claim waiting jobs for a burst, or give them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_job_claim
short_description: Claim waiting jobs and hosts for a burst, so that no other burst serves or boots them
version_added: 0.1.0
description:
  - A claim is kept in the lead's own key-value store, survives its restart, and expires by itself. Of two
    controllers that claim the same job or host at the same time exactly one gets it.
  - Users see it with C(flux jobs -o '{id} {user.burst.name}'). What the job means does not change.
  - That a job is held by another burst, or waits no more, is no failure; it is then not among RV(claimed).
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description:
      - V(claimed) claims the jobs of O(jobs) that wait and that no other burst holds, and renews those that are half
        over.
      - V(released) gives back those of them that this burst holds; without O(jobs), all that it holds. O(hosts)
        likewise, but with O(jobs) alone no host is given back.
    type: str
    choices: [claimed, released]
    default: claimed
  burst:
    description: Name of the burst.
    type: str
    required: true
  jobs:
    description: Ids of the jobs, in base 58 or decimal.
    type: list
    elements: str
  hosts:
    description: Names of hosts that the burst is going to boot, or has.
    type: list
    elements: str
  ttl:
    description: How long a claim lasts, in seconds. The longest time for which the burst's machines can be there is
      right.
    type: int
    default: 14400
  by:
    description: Who claims, for people to read; for instance the controller's hostname.
    type: str
    default: ""
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Claim two jobs for four hours
  flux.burst.flux_job_claim:
    burst: flux-burst
    jobs: [fDDf5hq, fDDf5hr]
    ttl: 14400
    by: controller.example.org
  register: claims

- name: Give back whatever the burst holds
  flux.burst.flux_job_claim:
    burst: flux-burst
    state: released
"""

RETURN = r"""
claimed:
  description: Ids of the jobs of O(jobs) that this burst holds now.
  returned: success
  type: list
  elements: str
  sample: [fDDf5hq]
held:
  description: The jobs that another burst holds.
  returned: success
  type: list
  elements: dict
  sample:
    - id: fDDf5hr
      burst: other
      until: 1795532178.0
      by: login1
held_hosts:
  description: The hosts of O(hosts) that another burst holds.
  returned: success
  type: list
  elements: dict
  sample:
    - id: gffw-compute-a-001
      burst: other
      until: 1795532178.0
      by: login1
released:
  description: The claims that were given back, or in check mode would be.
  returned: with O(state=released)
  type: list
  elements: dict
  sample:
    - id: fDDf5hq
      burst: flux-burst
      until: 1795532178.0
      by: login1
released_hosts:
  description: The claims on hosts that were given back, or in check mode would be.
  returned: with O(state=released)
  type: list
  elements: dict
  sample:
    - id: gffw-compute-a-001
      burst: flux-burst
      until: 1795532178.0
      by: login1
gone:
  description: Ids of the jobs that wait no more, or never were.
  returned: success
  type: list
  elements: str
  sample: []
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: claim
      name: fDDf5hq
      action: create
"""

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_claim, _flux_queue
from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage, apply
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module


def numbers(jobs: list[str]) -> dict[str, int]:
    """Return the numbers of jobs by their id in base 58. Raises FluxError for what is no job id."""
    try:
        return {_flux_queue.f58(number): number for number in map(_flux_queue.job_number, jobs)}
    except ValueError:
        bad = next(job for job in jobs if not _is_id(job))
        raise FluxError(
            f"jobs: wanted job ids such as fDDf5hq, found {bad!r}: give ids as flux jobs shows them."
        ) from None


def _is_id(text: str) -> bool:
    try:
        _flux_queue.job_number(text)
    except ValueError:
        return False
    return True


def waiting(client: _flux.FluxClient, jobs: dict[str, int]) -> dict[str, str]:
    """Return those of the jobs that wait, each with the burst that users see there, or ""."""
    attributes = ["state", "annotations"]
    questions = [{"id": number, "attrs": attributes} for number in jobs.values()]
    answers = zip(jobs, client.rpc_each("job-list.list-id", questions), strict=True)
    return {
        name: _shown(answer["job"])
        for name, answer in answers
        if answer is not None and answer["job"]["state"] in _flux_queue.PENDING
    }


def _shown(job: Mapping[str, Any]) -> str:
    """Return the burst in a job's memo, which its owner can write, too."""
    found: Any = job.get("annotations")
    for key in ("user", "burst", "name"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def change(name: str, before: _flux_claim.Claim | None, after: dict[str, Any]) -> Change:
    """Return what happens to one claim."""
    shown = {"burst": before.burst, "until": before.until} if before else {}
    action = ("update" if shown else "create") if after else "delete"
    return Change("claim", name, action, shown, after)  # type: ignore[arg-type]


def told(name: str, claim: _flux_claim.Claim) -> dict[str, Any]:
    """Return a claim as it is returned to people."""
    return {"id": name, "burst": claim.burst, "until": claim.until, "by": claim.by}


class Claiming:
    """One burst's claims on jobs, taken or given back."""

    def __init__(self, client: _flux.FluxClient, params: dict[str, Any]) -> None:
        self.client, self.params = client, params
        self.claims = _flux_claim.Claims(client)
        self.hosts = _flux_claim.Claims(client, _flux_claim.HOSTS)
        self.burst, self.now = params["burst"], time.time()

    def claim(self, *, check: bool) -> dict[str, Any]:
        """Claim what can be had; what another controller wins in the same moment is told as held."""
        jobs = numbers(self.params["jobs"])
        shown = waiting(self.client, jobs)
        wait = list(shown)
        hosts = self.params["hosts"] or []
        before = self._valid(self.claims.read(jobs))
        booked = self._valid(self.hosts.read(hosts)) if hosts else {}
        mine = _flux_claim.Claim(self.burst, self.now + self.params["ttl"], self.params["by"])
        # Who claimed and was killed has not shown it.
        hidden = {name for name, burst in shown.items() if burst != self.burst}
        wanted = self._wanted(wait, before, mine, hidden)
        rooms = [replace(each, kind="host") for each in self._wanted(hosts, booked, mine)]
        after = {**before, **{each.name: mine for each in wanted}}

        def act(stage: Stage) -> None:
            names = [each.name for each in stage]
            entries = dict.fromkeys(names, _flux_claim.line(mine, self.now))
            if stage and stage[0].kind == "host":
                self.hosts.append(entries)
                booked.update(self._valid(self.hosts.read(names)))
                return
            self.claims.append(entries)
            after.update(self._valid(self.claims.read(names)))
            won = {name: after[name] for name in names if after[name].burst == self.burst}
            lost = self.claims.show(jobs, won)
            # It ended between two calls: its log goes with it, and no claim is left behind.
            self.claims.forget(lost)
            wait[:] = [name for name in wait if name not in lost]

        # A burst that lost its hosts gives its jobs back, and one that has no job needs none.
        result = apply([rooms, wanted], act, check=check)
        claimed = [name for name in wait if name in after and after[name].burst == self.burst]
        anothers = {name: it for name, it in booked.items() if it.burst != self.burst}
        done = [each for each in wanted if each.name in claimed]
        done += [each for each in rooms if each.name not in anothers]
        return {
            **result,
            **(apply([done], act, check=True) if not check else {}),
            "claimed": claimed,
            "held": [
                told(name, held)
                for name, held in after.items()
                if name in wait and held.burst != self.burst
            ],
            "held_hosts": [told(name, held) for name, held in anothers.items()],
            "gone": [name for name in jobs if name not in wait],
        }

    def _wanted(
        self,
        names: Iterable[str],
        before: Mapping[str, _flux_claim.Claim],
        mine: _flux_claim.Claim,
        hidden: Collection[str] = (),
    ) -> list[Change]:
        """Return the claims to make, and those of our own to renew: because they end soon, or users do not see them."""
        late = self.now + self.params["ttl"] / 2
        return [
            change(name, before.get(name), {"burst": mine.burst, "until": mine.until})
            for name in names
            if name not in before
            or (before[name].burst == self.burst and (before[name].until < late or name in hidden))
        ]

    def release(self, *, check: bool) -> dict[str, Any]:
        """Give back what the burst holds, and forget jobs that have ended."""
        asked, hosts = self.params["jobs"], self.params["hosts"]
        jobs = numbers(asked) if asked is not None else None
        held = self._ours(self.claims.read(jobs))
        named = hosts if asked is None or hosts else []
        rooms = {} if named == [] else self._ours(self.hosts.read(named))
        all_numbers = {name: _flux_queue.job_number(name) for name in held}
        alive = waiting(self.client, all_numbers)

        def act(stage: Stage) -> None:
            names = [each.name for each in stage]
            entry = _flux_claim.release_line(self.burst, self.now)
            if stage and stage[0].kind == "host":
                self.hosts.append(dict.fromkeys(names, entry))
                return
            # First, for a claim that is given back is not looked at again where this is cut short.
            self.claims.show(all_numbers, dict.fromkeys(alive))
            self.claims.append({name: entry for name in names if name in alive})
            self.claims.forget(name for name in names if name not in alive)

        stages = [
            [change(name, held[name], {}) for name in held],
            [replace(change(name, rooms[name], {}), kind="host") for name in rooms],
        ]
        result = apply(stages, act, check=check)
        nothing: dict[str, list[Any]] = {"claimed": [], "held": [], "held_hosts": [], "gone": []}
        return {
            **result,
            **nothing,
            "released": [told(*each) for each in held.items()],
            "released_hosts": [told(*each) for each in rooms.items()],
        }

    def _ours(self, claims: Mapping[str, _flux_claim.Claim]) -> dict[str, _flux_claim.Claim]:
        return {name: claim for name, claim in claims.items() if claim.burst == self.burst}

    def _valid(self, claims: dict[str, _flux_claim.Claim]) -> dict[str, _flux_claim.Claim]:
        return {name: claim for name, claim in claims.items() if claim.until > self.now}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "state": {"type": "str", "choices": ["claimed", "released"], "default": "claimed"},
            "burst": {"type": "str", "required": True},
            "jobs": {"type": "list", "elements": "str"},
            "hosts": {"type": "list", "elements": "str"},
            "ttl": {"type": "int", "default": 14400},
            "by": {"type": "str", "default": ""},
        },
        required_if=[("state", "claimed", ["jobs"])],
        supports_check_mode=True,
    )
    with failing_module(module):
        claiming = Claiming(_flux.FluxClient.of(module.params), module.params)
        do = claiming.claim if module.params["state"] == "claimed" else claiming.release
        module.exit_json(**do(check=module.check_mode))


if __name__ == "__main__":
    main()
