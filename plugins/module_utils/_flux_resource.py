# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranks as plain data: from what Flux says of its resources (R, RFC 20) and of their state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _flux

STATES = ("free", "allocated", "drained", "draining", "down", "excluded")


def idset(text: str) -> list[int]:
    """Return the numbers of an idset (RFC 22), for instance "0-2,5" or "[0-2,5]"."""
    ids: list[int] = []
    for part in filter(None, text.strip("[]").split(",")):
        first, _unused, last = part.partition("-")
        ids.extend(range(int(first), int(last or first) + 1))
    return ids


@dataclass(frozen=True)
class Rank:
    """One broker's node. `drain_reason` is None where the rank is not drained; it outlives the node."""

    rank: int
    host: str
    state: str
    cores: int
    gpus: int
    drain_reason: str | None = None
    properties: list[str] = field(default_factory=list)


def allocated_ranks(resource_set: Mapping[str, Any]) -> set[int]:
    """Return the ranks that occur in an R."""
    lite = resource_set.get("execution", {}).get("R_lite") or []
    return {rank for entry in lite for rank in idset(entry["rank"])}


def ranks(
    status: Mapping[str, Any],
    allocated: set[int],
    expand: Callable[[Iterable[str]], Sequence[str]],
) -> list[Rank]:
    """Return every rank of the instance.

    status is the answer to resource.status, allocated the ranks with jobs, and expand turns R's nodelist (a list of
    hostlists) into names.
    """
    execution = status["R"]["execution"]
    children: dict[int, Mapping[str, str]] = {}
    for entry in execution["R_lite"]:
        children.update(dict.fromkeys(idset(entry["rank"]), entry["children"]))
    hosts = expand(execution["nodelist"])
    offline, excluded = set(idset(status["offline"])), set(idset(status["exclude"]))
    reasons = {
        rank: drain.get("reason") or ""
        for ids, drain in status["drain"].items()
        for rank in idset(ids)
    }
    properties = {name: set(idset(ids)) for name, ids in execution.get("properties", {}).items()}

    def state(rank: int) -> str:
        if rank in excluded:
            return "excluded"
        if rank in offline:
            return "down"
        if rank in reasons:
            return "draining" if rank in allocated else "drained"
        return "allocated" if rank in allocated else "free"

    return [
        Rank(
            rank=rank,
            host=host,
            state=state(rank),
            cores=len(idset(children[rank].get("core", ""))),
            gpus=len(idset(children[rank].get("gpu", ""))),
            drain_reason=reasons.get(rank),
            properties=sorted(name for name, ids in properties.items() if rank in ids),
        )
        for rank, host in zip(sorted(children), hosts, strict=True)
    ]


def read(client: _flux.FluxClient) -> list[Rank]:
    """Ask a lead broker for every rank. Raises FluxError."""
    allocated = allocated_ranks(client.rpc("sched.resource-status")["allocated"])
    return ranks(client.rpc("resource.status"), allocated, _flux.hosts)
