#!/usr/bin/python
# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say on the lead which controller is at work on a burst."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_burst_lock
short_description: Let one controller at a time be at work on a burst
version_added: 0.1.0
description:
  - A lock in the lead's key-value store says who is at work on a burst, and until when. A second controller with the
    same specification fails, with the name of the first, before it changes anything.
  - It is taken over where its time is over, where its owner was a process of this controller that is no more, and where
    O(take_over) names its owner.
  - It protects from mistakes and not from crashes; what a controller that was killed leaves is finished by the next.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: Whether this controller is at work. V(free) of a lock that another holds does nothing.
    type: str
    choices: [held, free]
    default: held
  burst:
    description: Name of the burst.
    type: str
    required: true
  duration:
    description: After how many seconds the lock is nobody's, where its owner does not say so before.
    type: int
    default: 900
  take_over:
    description: Owner of the lock, who is known to be at work no more.
    type: str
    default: ""
  owner:
    description: Who takes or frees it. The action plugin of this module sets it.
    type: str
attributes:
  check_mode:
    description: Says who holds the lock, and neither takes nor frees it.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: N/A
  idempotent:
    description: A lock that is held by its owner is renewed. That is no change of the burst.
    support: full
extends_documentation_fragment:
  - flux.burst._flux
"""

EXAMPLES = r"""
- name: Be at work on the burst for at most a quarter of an hour
  flux.burst.flux_burst_lock:
    burst: flux-burst
    duration: 900

- name: Be at work no more
  flux.burst.flux_burst_lock:
    burst: flux-burst
    state: free
"""

RETURN = r"""
owner:
  description: Who holds the lock now; empty for nobody.
  returned: success, or when another holds it
  type: str
  sample: root@login1:4711
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_claim
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module

TRIES = 5


def held(client: _flux.FluxClient, params: dict[str, Any], *, check: bool) -> str:
    """Take or renew the lock and return its owner. Raises FluxError where another holds it."""
    locks, burst, now = _flux_claim.Claims(client, _flux_claim.LOCKS), params["burst"], time.time()
    mine = _flux_claim.Claim(params["owner"], now + params["duration"])
    found = locks.read([burst]).get(burst)
    if check:
        return found.burst if found and found.until > now else ""
    text = _flux_claim.line(mine, now)
    if found and found.burst == params["take_over"]:
        text = _flux_claim.release_line(found.burst, now) + text
    for _try in range(TRIES):
        locks.append({burst: text})
        found = locks.read([burst]).get(burst)
        # Else its owner freed it in this moment, and with it went what was written here.
        if found:
            break
    if found is None:
        raise FluxError(
            f"burst {burst}: wanted its lock, found it freed by others {TRIES} times in a row: run again."
        )
    if found.burst == mine.burst:
        return mine.burst
    end = time.strftime("%H:%M:%S UTC", time.gmtime(found.until))
    raise FluxError(
        f"burst {burst}: wanted no other controller at work on it, found {found.burst}, until {end} at the latest: "
        f"wait for it, or, where that is at work no more, set burst_take_over to {found.burst}.",
        owner=found.burst,
    )


def free(client: _flux.FluxClient, params: dict[str, Any], *, check: bool) -> str:
    """Free the lock where its owner is this one; return who holds it then."""
    locks, burst = _flux_claim.Claims(client, _flux_claim.LOCKS), params["burst"]
    found = locks.read([burst]).get(burst)
    if found is None or found.until <= time.time():
        return ""
    if found.burst != params["owner"] or check:
        return found.burst
    locks.forget([burst])
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
            "burst": {"type": "str", "required": True},
            "duration": {"type": "int", "default": 900},
            "take_over": {"type": "str", "default": ""},
            "owner": {"type": "str"},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        do = held if module.params["state"] == "held" else free
        owner = do(_flux.FluxClient.of(module.params), module.params, check=module.check_mode)
        module.exit_json(changed=False, owner=owner)


if __name__ == "__main__":
    main()
