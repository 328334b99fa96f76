# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Claim waiting jobs for a burst, or give them back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_job_claim
short_description: Claim waiting jobs for a burst, so that no other burst serves them
version_added: 0.1.0
description:
  - A claim is kept in the lead's own key-value store, survives its restart, and expires by itself. Of two
    controllers that claim the same job at the same time exactly one gets it.
  - Users see it with C(flux jobs -o '{id} {user.burst.name}'). What the job means does not change.
  - That a job is held by another burst, or waits no more, is no failure; it is then not among RV(claimed).
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description:
      - V(claimed) claims the jobs of O(jobs) that wait and that no other burst holds, and renews those that are half
        over.
      - V(released) gives back those of them that this burst holds; without O(jobs), all that it holds.
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
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_claim, _flux_queue
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._reconcile import Change, Stage, apply


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


def waiting(client: _flux.FluxClient, jobs: dict[str, int]) -> list[str]:
    """Return those of the jobs that wait."""
    questions = [{"id": number, "attrs": ["state"]} for number in jobs.values()]
    answers = zip(jobs, client.rpc_each("job-list.list-id", questions), strict=True)
    return [
        name
        for name, answer in answers
        if answer is not None and answer["job"]["state"] in _flux_queue.PENDING
    ]


def change(name: str, before: _flux_claim.Claim | None, after: dict[str, Any]) -> Change:
    """Return what happens to one claim."""
    shown = {"burst": before.burst, "until": before.until} if before else {}
    action = ("update" if shown else "create") if after else "delete"
    return Change("claim", name, action, shown, after)  # type: ignore[arg-type]


def told(job: str, claim: _flux_claim.Claim) -> dict[str, Any]:
    """Return a claim as it is returned to people."""
    return {"id": job, "burst": claim.burst, "until": claim.until, "by": claim.by}


class Claiming:
    """One burst's claims on jobs, taken or given back."""

    def __init__(self, client: _flux.FluxClient, params: dict[str, Any]) -> None:
        self.client, self.params = client, params
        self.claims = _flux_claim.Claims(client)
        self.burst, self.now = params["burst"], time.time()

    def claim(self, *, check: bool) -> dict[str, Any]:
        """Claim what can be had; what another controller wins in the same moment is told as held."""
        jobs = numbers(self.params["jobs"])
        wait = waiting(self.client, jobs)
        before = self._valid(self.claims.read(jobs))
        ttl = self.params["ttl"]
        mine = _flux_claim.Claim(self.burst, self.now + ttl, self.params["by"])
        wanted = [
            change(name, before.get(name), {"burst": mine.burst, "until": mine.until})
            for name in wait
            if name not in before
            or (before[name].burst == self.burst and before[name].until < self.now + ttl / 2)
        ]
        after = {**before, **{each.name: mine for each in wanted}}

        def act(stage: Stage) -> None:
            names = [each.name for each in stage]
            self.claims.append(dict.fromkeys(names, _flux_claim.line(mine, self.now)))
            after.update(self._valid(self.claims.read(names)))
            won = {name: after[name] for name in names if after[name].burst == self.burst}
            lost = self.claims.show(jobs, won)
            # It ended between two calls: its log goes with it, and no claim is left behind.
            self.claims.forget(lost)
            wait[:] = [name for name in wait if name not in lost]

        result = apply([wanted], act, check=check)
        claimed = [name for name in wait if name in after and after[name].burst == self.burst]
        done = [each for each in wanted if each.name in claimed]
        return {
            **result,
            **(apply([done], act, check=True) if not check else {}),
            "claimed": claimed,
            "held": [
                told(name, held)
                for name, held in after.items()
                if name in wait and held.burst != self.burst
            ],
            "gone": [name for name in jobs if name not in wait],
        }

    def release(self, *, check: bool) -> dict[str, Any]:
        """Give back what the burst holds, and forget jobs that have ended."""
        asked = self.params["jobs"]
        jobs = numbers(asked) if asked is not None else None
        held = {
            name: claim
            for name, claim in self.claims.read(jobs).items()
            if claim.burst == self.burst
        }
        all_numbers = {name: _flux_queue.job_number(name) for name in held}
        alive = waiting(self.client, all_numbers)

        def act(stage: Stage) -> None:
            names = [each.name for each in stage]
            entry = _flux_claim.release_line(self.burst, self.now)
            self.claims.append({name: entry for name in names if name in alive})
            self.claims.forget(name for name in names if name not in alive)
            self.claims.show(all_numbers, dict.fromkeys(alive))

        result = apply([[change(name, held[name], {}) for name in held]], act, check=check)
        released = [told(name, claim) for name, claim in held.items()]
        return {**result, "claimed": [], "held": [], "gone": [], "released": released}

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
