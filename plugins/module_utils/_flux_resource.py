# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ranks as plain data: from what Flux says of its resources (R, RFC 20) and of their state."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_claim
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError

SPAN = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
# More than any instance has ranks, and few enough to be counted out without harm.
MOST_IDS = 1_000_000
STATES = ("free", "allocated", "drained", "draining", "down", "excluded")


def idset(text: str) -> list[int]:
    """Return the numbers of an idset (RFC 22), for instance "0-2,5" or "[0-2,5]". Raises FluxError."""
    ids: list[int] = []
    for part in filter(None, text.strip("[]").split(",")):
        span = SPAN.fullmatch(part)
        first, last = (int(span[1]), int(span[2] or span[1])) if span else (0, MOST_IDS)
        if len(ids) + last - first >= MOST_IDS:
            raise FluxError(
                f"wanted an idset such as 0-2,5 of fewer than {MOST_IDS} numbers from the lead, found {text[:80]!r}: "
                "see flux resource status there."
            )
        ids.extend(range(first, last + 1))
    return ids


@dataclass(frozen=True)
class Rank:
    """One broker's node.

    cores and gpus are what R declares, free_cores and free_gpus what no job has; both are 0 where no job may start.
    `drain_reason` is None where the rank is not drained; it outlives the node. Times are in seconds since the
    epoch: `since` when it came, went or was drained, 0 where the lead has not seen it; `idle_since` when it last
    had work or came, None where it is not free or nobody asked. `claim` is that of the burst that holds it.
    `overlay` is the word of flux-overlay(1), `overlay_error` the overlay's own on why a rank is not there.
    """

    rank: int
    host: str
    state: str
    cores: int
    gpus: int
    free_cores: int = 0
    free_gpus: int = 0
    drain_reason: str | None = None
    properties: list[str] = field(default_factory=list)
    overlay: str = ""
    overlay_error: str = ""
    since: float = 0.0
    idle_since: float | None = None
    claim: dict[str, Any] | None = None


def children_of(resource_set: Mapping[str, Any]) -> dict[int, Mapping[str, str]]:
    """Return the cores and gpus of each rank of an R, as idsets. Raises FluxError where it has none at all."""
    execution = resource_set.get("execution") or {}
    children: dict[int, Mapping[str, str]] = {}
    for entry in execution.get("R_lite") or []:
        children.update(dict.fromkeys(idset(entry["rank"]), entry["children"]))
    return children


def count(children: Mapping[str, str], kind: str) -> int:
    """Return how many of one kind a rank has."""
    return len(idset(children.get(kind, "")))


def ranks(
    status: Mapping[str, Any],
    allocated: Mapping[int, Mapping[str, str]],
    expand: Callable[[Iterable[str]], Sequence[str]],
) -> list[Rank]:
    """Return every rank of the instance.

    status is the answer to resource.status, allocated what jobs have of each rank (see children_of), and expand
    turns R's nodelist (a list of hostlists) into names. Raises FluxError for an R that names no host.
    """
    children = children_of(status["R"])
    hosts = expand(status["R"]["execution"].get("nodelist") or [])
    if len(hosts) != len(children):
        raise FluxError(
            f"wanted a hostname for each of the {len(children)} ranks of the lead's R, found {len(hosts)}: "
            "give [[resource.config]] of the lead its hosts, and restart it."
        )
    offline, excluded = set(idset(status["offline"])), set(idset(status["exclude"]))
    reasons = {
        rank: drain.get("reason") or ""
        for ids, drain in status["drain"].items()
        for rank in idset(ids)
    }
    times = {
        rank: drain.get("timestamp", 0.0)
        for ids, drain in status["drain"].items()
        for rank in idset(ids)
    }
    properties: dict[int, list[str]] = {}
    for name, ids in sorted(status["R"]["execution"].get("properties", {}).items()):
        for rank in idset(ids):
            properties.setdefault(rank, []).append(name)

    def state(rank: int) -> str:
        if rank in excluded:
            return "excluded"
        if rank in offline:
            return "down"
        if rank in reasons:
            return "draining" if rank in allocated else "drained"
        return "allocated" if rank in allocated else "free"

    def free(rank: int, kind: str) -> int:
        if state(rank) not in ("free", "allocated"):
            return 0
        return count(children[rank], kind) - count(allocated.get(rank, {}), kind)

    return [
        Rank(
            rank=rank,
            host=host,
            state=state(rank),
            cores=count(children[rank], "core"),
            gpus=count(children[rank], "gpu"),
            free_cores=free(rank, "core"),
            free_gpus=free(rank, "gpu"),
            drain_reason=reasons.get(rank),
            properties=properties.get(rank, []),
            since=times.get(rank, 0.0),
        )
        for rank, host in zip(sorted(children), hosts, strict=True)
    ]


def read(client: _flux.FluxClient) -> list[Rank]:
    """Ask a lead broker for every rank, without times and overlay. Raises FluxError."""
    allocated = children_of(client.rpc("sched.resource-status")["allocated"])
    return ranks(client.rpc("resource.status"), allocated, _flux.hosts)


def read_all(client: _flux.FluxClient) -> list[Rank]:
    """Ask a lead broker for every rank, with times and overlay. Raises FluxError."""
    found = read(client)
    seen = transitions(history(client))
    overlay = _overlay(client)
    idle = _idle(client, found, seen)
    claims = _flux_claim.Claims(client, _flux_claim.HOSTS).read(rank.host for rank in found)
    now = time.time()
    valid = {host: asdict(claim) for host, claim in claims.items() if claim.until > now}
    return [
        replace(
            rank,
            since=max(seen.get(rank.rank, 0.0), rank.since),
            idle_since=idle.get(rank.rank),
            claim=valid.get(rank.host),
            overlay=overlay.get(rank.rank, ("", ""))[0],
            overlay_error=overlay.get(rank.rank, ("", ""))[1],
        )
        for rank in found
    ]


def history(client: _flux.FluxClient) -> Iterator[dict[str, Any]]:
    """Yield the events of the resource journal so far (RFC 21 describes their form)."""
    stream = client.stream("resource.journal")
    while (text := stream.next()) is not None:
        events = client.read("resource.journal", text)["events"]
        if not events:
            return
        yield from events


def transitions(events: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Return when each rank came, went, or was drained or undrained last; a restart of the lead is such a time too."""
    seen: dict[int, float] = {}
    for event in events:
        context = event.get("context") or {}
        ids = context.get("idset", context.get("online", "") if event["name"] == "restart" else "")
        if event["name"] in ("restart", "online", "offline", "drain", "undrain"):
            seen.update(dict.fromkeys(idset(ids), event["timestamp"]))
    return seen


def _idle(
    client: _flux.FluxClient, found: Sequence[Rank], seen: Mapping[int, float]
) -> dict[int, float]:
    """Return since when each free rank has had no job: its last job's end, or when it came."""
    idle = {rank.rank: seen.get(rank.rank, 0.0) for rank in found if rank.state == "free"}
    if not idle:
        return {}
    question = {
        "max_entries": 0,
        "since": min(idle.values()),
        "attrs": ["ranks", "t_inactive"],
        "constraint": {"states": ["inactive"]},
    }
    for job in client.rpc("job-list.list", question)["jobs"]:
        for rank in idset(job.get("ranks", "")):
            if rank in idle:
                idle[rank] = max(idle[rank], job["t_inactive"])
    return idle


def _overlay(
    client: _flux.FluxClient, rank: int = 0, above: tuple[int, ...] = ()
) -> dict[int, tuple[str, str]]:
    """Return status and error of every rank below a router, which alone knows its own peers."""
    health = client.rpc("overlay.health", None, rank)
    found = {rank: (str(health["status"]), "")} if rank == 0 else {}
    for child in health["children"]:
        found[child["rank"]] = (str(child["status"]), str(child.get("error", "")))
    routers = [
        child["rank"]
        for child in (client.rpc("overlay.topology", {"rank": rank})["children"])
        if child.get("children")
    ]
    for router in routers:
        # None is below itself, whatever it says.
        new = router not in (*above, rank)
        if new and found.get(router, ("", ""))[0] in ("full", "partial", "degraded"):
            found.update(_overlay(client, router, (*above, rank)))
    return found
