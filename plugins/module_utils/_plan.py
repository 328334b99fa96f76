# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines a burst needs: a pure decision on what the lead says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._hostlist import fold


@dataclass(frozen=True)
class Node:
    """A node that a waiting job could take whole."""

    host: str
    cores: int
    gpus: int


@dataclass(frozen=True)
class Plan:
    """`hosts` are all that must exist, `new_hosts` those of them that do not yet, `jobs` the ids that they serve."""

    hosts: list[str]
    new_hosts: list[str]
    jobs: list[str]
    message: str


def plan(
    jobs: Sequence[Mapping[str, Any]],
    ranks: Sequence[Mapping[str, Any]],
    allowed: Sequence[str],
    existing: Sequence[str],
    max_hosts: int,
) -> Plan:
    """Decide.

    jobs are as flux_queue_info returns them and in its order, ranks as flux_resource_info does; allowed are the hosts
    that may be booted, in order, existing those that are, and max_hosts limits all of them (0: no limit).
    Raises SpecError for allowed hosts that the lead does not declare.
    """
    by_host = {rank["host"]: rank for rank in ranks}
    _check_declared(allowed, by_host)
    drained = [host for host in allowed if by_host[host]["drain_reason"] is not None]
    room = (max_hosts or len(allowed)) - len(existing)
    spare = [
        _node(by_host[host])
        for host in allowed
        if host not in existing and host not in drained and by_host[host]["state"] == "down"
    ][: max(room, 0)]
    free = [
        _node(rank)
        for rank in ranks
        if rank["state"] == "free"
        or (rank["state"] == "down" and rank["host"] in existing and rank["host"] not in drained)
    ]
    most = len(free) + len(spare) + sum(rank["state"] == "allocated" for rank in ranks)
    served, large = [], []
    used: list[str] = []
    for job in jobs:
        if job["urgency"] == 0:
            continue
        taken = _take(job, free, spare)
        if taken is not None:
            served.append(job["id"])
            used += [node.host for node in taken if node in spare]
            free = [node for node in free if node not in taken]
            spare = [node for node in spare if node not in taken]
        elif job["nodes"] > most:
            large.append(job["id"])
    new = [host for host in allowed if host in used]
    hosts = sorted({*existing, *new}, key=lambda host: _order(host, allowed))
    return Plan(hosts, new, served, _message(jobs, existing, new, served, large, drained))


def _check_declared(allowed: Sequence[str], declared: Mapping[str, Any]) -> None:
    unknown = [host for host in allowed if host not in declared]
    if unknown:
        raise SpecError(
            f"burst_hostlist: wanted hosts that the lead's R declares, found {fold(unknown)} not in it: "
            "declare them in [bootstrap] hosts and [resource] of the lead and restart it, or correct the list."
        )


def _order(host: str, allowed: Sequence[str]) -> tuple[int, str]:
    return (allowed.index(host) if host in allowed else len(allowed), host)


def _node(rank: Mapping[str, Any]) -> Node:
    return Node(rank["host"], rank["cores"], rank["gpus"])


def _take(job: Mapping[str, Any], free: Sequence[Node], spare: Sequence[Node]) -> list[Node] | None:
    """Return the nodes that the job would get, free ones first; None where it does not fit."""
    fits = {node.host: _slots(job, node) for node in (*free, *spare)}
    wanted = job["nodes"] or job["slots"]
    taken: list[Node] = []
    for node in (*free, *spare):
        if wanted <= 0:
            break
        slots = fits[node.host]
        if job["nodes"] and slots >= job["slots"]:
            taken.append(node)
            wanted -= 1
        elif not job["nodes"] and slots:
            taken.append(node)
            wanted -= slots
    return taken if wanted <= 0 else None


def _slots(job: Mapping[str, Any], node: Node) -> int:
    """Return how many of the job's slots fit into a node."""
    limits = [
        have // need
        for have, need in (
            (node.cores, job["cores_per_slot"]),
            (node.gpus, job["gpus_per_slot"]),
        )
        if need
    ]
    return int(min(limits, default=job["slots"]))


def _message(
    jobs: Sequence[Mapping[str, Any]],
    existing: Sequence[str],
    new: Sequence[str],
    served: Sequence[str],
    large: Sequence[str],
    drained: Sequence[str],
) -> str:
    if new:
        text = f"burst {_machines(new)} for {_jobs(served)}"
    elif existing:
        text = "nothing more to burst"
    elif not jobs:
        text = "nothing to burst: no waiting job is marked as burstable"
    elif served:
        text = f"nothing to burst: the nodes that are free suffice for {_jobs(served)}"
    else:
        text = "nothing to burst: no waiting burstable job can be served"
    if existing:
        text += f"; keep {_machines(existing)}"
    if large:
        text += f"; {_jobs(large)} asks for more nodes than there can be"
    if drained:
        text += f"; {fold(drained)} is drained on the lead and is left out"
    return text


def _machines(hosts: Sequence[str]) -> str:
    return f"{len(hosts)} machine{'s' if len(hosts) != 1 else ''} ({fold(hosts)})"


def _jobs(ids: Sequence[str]) -> str:
    return f"{len(ids)} job{'s' if len(ids) != 1 else ''} ({', '.join(ids)})"
