# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why machines of a burst were not configured, from what Ansible remembers of each."""

from __future__ import annotations

DOCUMENTATION = r"""
name: join_reports
short_description: Why machines were not configured
version_added: 0.1.0
description:
  - Of the machines that C(playbooks/join.yml) did not bring as far as a broker that joined, what their tasks said or
    why they could not be reached. M(flux.burst.flux_nodes) takes it as O(flux.burst.flux_nodes#module:reports).
positional: hostvars, gateway
options:
  _input:
    description: Names of the machines.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  gateway:
    description: Name of the machine that is the overlay parent of the others. Where it did not join, nothing is said of
      those that were left out for its sake.
    type: str
    default: ""
author:
  - flux.burst contributors (@flux-framework)
"""

EXAMPLES = r"""
- name: See who joined, and who did not and why
  flux.burst.flux_nodes:
    hosts: "{{ groups.burst_nodes }}"
    state: online
    reports: "{{ groups.burst_nodes | flux.burst.join_reports(hostvars) }}"
"""

RETURN = r"""
_value:
  description: By hostname, what is known of each machine that failed. C(failure) is its message; the other keys are
    those of C(evidence), where M(flux.burst.flux_broker) came as far as that.
  type: dict
  sample:
    gffw-compute-a-001:
      failure: "stage tunnel: wanted the machine reached by SSH, found 'Connection refused': see its serial console."
"""

from collections.abc import Iterable, Mapping
from typing import Any

# The tasks of the roles that reach a machine first, by what they register.
FIRST = ("__node_base_release", "__node_broker")
ADVICE = "see its serial console, and run the burst again"

Variables = Mapping[str, Any]


def join_reports(
    hosts: Iterable[str], hostvars: Mapping[str, Variables], gateway: str = ""
) -> dict[str, Any]:
    """Return a report for each of these hosts that was not configured."""
    stopped = gateway in hostvars and bool(report(hostvars[gateway]))
    found = {
        host: report(hostvars[host])
        for host in hosts
        if host == gateway or not stopped or tried(hostvars[host])
    }
    return {host: made for host, made in found.items() if made}


def tried(known: Variables) -> bool:
    """Return whether anything is known of why a host was not configured."""
    unreachable = any((known.get(name) or {}).get("unreachable") for name in FIRST)
    return bool(known.get("__node_failure")) or unreachable or bool(known.get("__node_broker"))


def report(known: Variables) -> Variables:
    """Return what is known of one host, nothing where it was configured."""
    failure: Variables = known.get("__node_failure") or {}
    if failure or "status_text" in (known.get("__node_broker") or {}):
        return failure
    results = [known.get(name) or {} for name in FIRST]
    said = next((result["msg"] for result in results if result.get("unreachable")), "")
    text = " ".join(str(said).removeprefix("Task failed: ").split())
    if not text.startswith("stage "):
        text = (
            f"stage tunnel: wanted the machine reached by SSH, found '{text or 'that it was lost on the way'}': "
            f"{ADVICE}."
        )
    return {"failure": text}


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return it by its name."""
        return {"join_reports": join_reports}
