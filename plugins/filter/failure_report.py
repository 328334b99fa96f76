# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told at the end of a run that failed."""

from __future__ import annotations

DOCUMENTATION = r"""
name: failure_report
short_description: What is told at the end of a run that failed
version_added: 0.1.0
description:
  - The reason, and what became of the burst's claims and machines, with what the machines that are kept cost, and where
    what is known of those that failed is. C(playbooks/burst.yml) ends with it.
positional: claims, machines, deleted, busy, undeleted, diagnostics
options:
  _input:
    description: Why the run failed.
    type: str
    required: true
  claims:
    description: What M(flux.burst.flux_job_claim) returned, or C(msg) with why it failed.
    type: dict
    required: true
  machines:
    description: The burst's machines before any was deleted, as M(flux.burst.gce_burst_info) returns them; a text where
      they could not be read.
    type: raw
    required: true
  deleted:
    description: Names of those that were deleted.
    type: list
    elements: str
    required: true
  busy:
    description: Names of those that were not, because a job runs there.
    type: list
    elements: str
    required: true
  undeleted:
    description: Why machines or the network could not be deleted, empty where they could or were to be kept.
    type: str
    required: true
  diagnostics:
    description: Where what is known of the machines is, or why it is nowhere.
    type: str
    required: true
author:
  - flux.burst contributors (@flux-framework)
"""

EXAMPLES = r"""
- name: Fail, and say what became of everything
  ansible.builtin.fail:
    msg: "{{ why | flux.burst.failure_report(released, found.instances, [], [], '', kept.path) }}"
"""

RETURN = r"""
_value:
  description: It, in lines.
  type: str
  sample: |-
    wanted every node online within 60 s, found 1 of 2 that are not:
    gffw-compute-a-001: stage munge: munged does not run: see journalctl -u munge on that machine.
    claims: given back on job fDDf5hq; no machine on host gffw-compute-a-002, given back
    machines: kept gffw-compute-a-[001-002] (2), 0.39 an hour until they are deleted; the last one ends in 3h 58m
    diagnostics: /root/.ansible/flux_burst/_diagnostics/flux-burst/20261126-160500
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _gce_burst
from ansible_collections.flux.burst.plugins.module_utils._hostlist import fold


def failure_report(
    why: str,
    claims: Mapping[str, Any],
    machines: Sequence[Mapping[str, Any]] | str,
    deleted: Sequence[str],
    busy: Sequence[str],
    undeleted: str,
    diagnostics: str,
) -> str:
    """Return the report."""
    lines = [
        why,
        f"claims: {_claims(claims)}",
        f"machines: {_machines(machines, deleted, busy, undeleted)}",
        f"diagnostics: {diagnostics}",
    ]
    return "\n".join(lines)


def _claims(claims: Mapping[str, Any]) -> str:
    if "released" not in claims:
        why = " ".join(str(claims.get("msg", "the lead was not asked")).split())
        return f"not given back ({why}): run playbooks/reconcile.yml, or they expire"
    jobs = [row["id"] for row in claims["released"]]
    hosts = [row["id"] for row in claims["released_hosts"]]
    told = [
        f"{kind} {names}" for kind, names in (("jobs", ", ".join(jobs)), ("hosts", fold(hosts)))
    ]
    told = [text for text, found in zip(told, (jobs, hosts), strict=True) if found]
    return f"given back on {' and '.join(told)}" if told else "there are none to give back"


def _machines(
    machines: Sequence[Mapping[str, Any]] | str,
    deleted: Sequence[str],
    busy: Sequence[str],
    undeleted: str,
) -> str:
    if isinstance(machines, str):
        return f"not looked at ({machines}): see playbooks/status.yml"
    kept = [row for row in machines if row["name"] not in deleted]
    told = [f"deleted {_named(deleted)}"] if deleted else []
    if kept:
        total = _gce_burst.totals(kept)
        text = (
            f"kept {_named([row['name'] for row in kept])}, {total['price_per_hour']:.2f} an hour"
        )
        if total["without_price"]:
            text += f" without {', '.join(total['without_price'])}, whose price is unknown,"
        text += " until playbooks/teardown.yml deletes them"
        if total["last_end"] is not None:
            text += f"; the last one ends in {_gce_burst.span(total['last_end'])}"
        told.append(text)
    if busy:
        told.append(f"a job runs on {_named(busy)}, which therefore stays")
    if undeleted:
        told.append(
            f"not all could be deleted ({' '.join(undeleted.split())}): run playbooks/teardown.yml"
        )
    return "; ".join(told or ["there are none"])


def _named(names: Sequence[str]) -> str:
    return f"{fold(names)} ({len(names)})"


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Any]:
        """Return it by its name."""
        return {"failure_report": failure_report}
