# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machines a burst needs: a pure decision on what the lead says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _reconciliation
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError, printable
from ansible_collections.flux.burst.plugins.module_utils._hostlist import fold
from ansible_collections.flux.burst.plugins.module_utils._plan_fit import (
    BOOTING,
    FREE,
    SPARE,
    UNLIMITED,
    UNTYPED,
    Constraints,
    Kind,
    Left,
    Node,
    Pool,
    Shape,
)

SIZINGS = ("all", "widest", "cap")
# What flux_queue_info calls it when nothing but resources or its turn keeps a job.
RESOURCES = ("", "resources", "turn")
# More ids than a line can show, and more characters of a reason, which may quote what the job's owner wrote.
MANY, LONGEST = 20, 400


@dataclass(frozen=True)
class Request:
    """What may be booted, and for whom.

    allowed are the hosts that may be booted, in order; existing the names of the burst's machines; max_hosts limits all
    of them (0: no limit). gateway is the host without which no other can join, "" for none. sizing is one of SIZINGS.
    machine_types are mappings of name, cores, memory_mb, gpus and price_per_hour (None: unknown), in order of
    preference. max_run_seconds is how long a machine lives (0: no limit), burst this burst's name, and now the time in
    seconds since the epoch.
    """

    allowed: Sequence[str]
    existing: Sequence[str] = ()
    max_hosts: int = 0
    gateway: str = ""
    sizing: str = "all"
    machine_types: Sequence[Mapping[str, Any]] = ()
    max_run_seconds: int = 0
    burst: str = ""
    now: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The decision.

    hosts are all that must exist, new_hosts those of them that do not yet, both in the order of the allowed ones.
    undrain are those of hosts that a burst has drained whose machine is gone.
    groups are hosts by machine type: {machine_type ("" without types), machine_types (it, and what will do in its
    place), hosts, new_hosts, price_per_hour (or None)}. jobs are the ids that machines of the burst serve, local_jobs
    those for which the lead's free nodes suffice, left the others: {id, reason}, and the reason reads after "job ID".
    time_limit is for how many seconds the machines are needed at most, 0 without a limit or without such jobs; price
    what the new hosts cost in that time, None if unknown.
    """

    hosts: list[str]
    new_hosts: list[str]
    undrain: list[str]
    groups: list[dict[str, Any]]
    jobs: list[str]
    local_jobs: list[str]
    left: list[dict[str, str]]
    time_limit: int
    price: float | None
    message: str

    def explanation(self) -> list[str]:
        """Return the decision in lines: the message, and why the first of the jobs that are left are."""
        told = [f"job {row['id']} {row['reason']}" for row in self.left[:MANY]]
        more = len(self.left) - len(told)
        return [self.message, *told, *([f"and {more} jobs more are left"] if more else [])]


@dataclass
class Situation:
    """What the reasons need to know.

    untyped are nodes for which there is no machine type; matched are the hosts that meet each constraint, and wishes
    what it asks for in words.
    """

    request: Request
    pool: Pool
    untyped: list[Kind]
    matched: dict[str, set[str]]
    wishes: dict[str, str]

    def near(self, shape: Shape) -> list[Kind]:
        """Return the kinds that would do for a job, were they of the right size."""
        return [
            kind
            for kind in (*self.pool.kinds, *self.untyped)
            if not shape.constraint or shape.constraint in kind.matches
        ]

    @cached_property
    def allowed(self) -> str:
        """Return the hostlist of all that may be booted; folding thousands of names takes its time."""
        return fold(self.request.allowed)


def plan(
    jobs: Iterable[Mapping[str, Any]], ranks: Iterable[Mapping[str, Any]], request: Request
) -> Plan:
    """Decide.

    jobs are as flux_queue_info returns them, ranks as flux_resource_info does; the order of neither matters. Raises
    SpecError for a sizing that is not known, and for allowed hosts that the lead does not declare.
    """
    if request.sizing not in SIZINGS:
        raise SpecError(
            f"sizing: wanted one of {', '.join(SIZINGS)}, found {request.sizing!r}: correct it."
        )
    nodes = sorted(ranks, key=lambda rank: (rank.get("rank", -1), rank["host"]))
    by_host = {rank["host"]: rank for rank in reversed(nodes)}
    _check_declared(request.allowed, by_host)
    ordered = _in_order(jobs)
    reasons: dict[str, str] = {}
    existing = set(request.existing)
    # It boots as soon as any does: it is counted, and given to jobs, as one that exists.
    counted = existing | ({request.gateway} if request.gateway else set())
    assumed = replace(request, existing=sorted(counted))
    shapes, situation = _prepare(ordered, nodes, assumed, reasons)
    served: dict[str, list[Mapping[str, Any]]] = {"burst": [], "local": []}
    failed: dict[Shape, list[str]] = {}
    for job, shape in shapes:
        # There is never more for a later job than for an earlier one.
        who = "" if shape in failed else _place(situation.pool, shape, request.sizing)
        if who:
            served[who].append(job)
        else:
            failed.setdefault(shape, []).append(job["id"])
    for shape, names in failed.items():
        reasons.update(dict.fromkeys(names, _why(shape, situation)))
    chosen = set(situation.pool.chosen())
    if served["burst"] or existing:
        chosen |= counted - existing
    new = [host for host in request.allowed if host in chosen]
    hosts = [host for host in request.allowed if host in chosen or host in existing]
    hosts += sorted(existing.difference(hosts))
    groups = _groups(hosts, chosen, by_host, situation.pool.asked_mb(), request)
    time_limit = _time_limit(served["burst"], request)
    ids = {who: [str(job["id"]) for job in found] for who, found in served.items()}
    left = [
        {"id": job["id"], "reason": printable(reasons[job["id"]], LONGEST)}
        for job in ordered
        if job["id"] in reasons
    ]
    drained = [host for host in request.allowed if _reconciliation.drained(by_host[host])]
    undrain = [
        host for host in hosts if host in by_host and _reconciliation.left_drained(by_host[host])
    ]
    message = _message(
        hosts, new, ids["burst"], ids["local"], [row["id"] for row in left], drained, existing
    )
    price = _price(groups, time_limit)
    return Plan(
        hosts, new, undrain, groups, ids["burst"], ids["local"], left, time_limit, price, message
    )


def _check_declared(allowed: Sequence[str], declared: Mapping[str, Any]) -> None:
    unknown = [host for host in allowed if host not in declared]
    if unknown:
        raise SpecError(
            f"burst_hostlist: wanted hosts that the lead's R declares, found {fold(unknown)} not in it: "
            "declare them in [bootstrap] hosts and [resource] of the lead and restart it, or correct the list."
        )


def _in_order(jobs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return each job once, in the order in which the scheduler looks at them."""
    by_id = {job["id"]: job for job in jobs}
    return sorted(
        by_id.values(),
        key=lambda job: (-job.get("priority", 16), job.get("submitted", 0.0), str(job["id"])),
    )


def _prepare(
    jobs: Sequence[Mapping[str, Any]],
    nodes: Sequence[Mapping[str, Any]],
    request: Request,
    reasons: dict[str, str],
) -> tuple[list[tuple[Mapping[str, Any], Shape]], Situation]:
    """Return the jobs that want nodes and the nodes that there are; the other jobs get their reason."""
    constraints = Constraints(nodes)
    matched: dict[str, set[int]] = {}
    unread: dict[str, str] = {}
    wishes: dict[str, str] = {}
    shapes = []
    for job in jobs:
        asked = job.get("constraints") or {}
        key = repr(asked) if asked else ""
        kept = _kept(job, request)
        if key and not kept and key not in matched and key not in unread:
            try:
                matched[key] = constraints.match(asked)
                wishes[key] = _wish(asked)
            except ValueError as error:
                unread[key] = f"has a constraint that cannot be evaluated: {error} is not known"
        if kept or key in unread:
            reasons[job["id"]] = kept or unread[key]
        else:
            shapes.append((job, _shape(job, key)))
    kinds = _kinds(nodes, request, matched)
    room = (
        max(request.max_hosts - len(set(request.existing)), 0) if request.max_hosts else UNLIMITED
    )
    pool = Pool([kind for kind in kinds if kind.tier != UNTYPED], room)
    untyped = [kind for kind in kinds if kind.tier == UNTYPED]
    hosts = {key: {nodes[place]["host"] for place in places} for key, places in matched.items()}
    return shapes, Situation(request, pool, untyped, hosts, wishes)


def _shape(job: Mapping[str, Any], constraint: str) -> Shape:
    return Shape(
        nodes=job.get("nodes") or 0,
        slots=max(job.get("slots") or 0, 1),
        cores=job.get("cores_per_slot") or 0,
        gpus=job.get("gpus_per_slot") or 0,
        memory_mb=job.get("memory_mb_per_slot") or 0,
        exclusive=bool(job.get("exclusive")),
        constraint=constraint,
    )


def _kept(job: Mapping[str, Any], request: Request) -> str:
    """Return what else than resources keeps a job, "" where nothing does."""
    waits_for, claim = job.get("waits_for") or "", job.get("claim") or {}
    duration, fuse = job.get("duration") or 0.0, request.max_run_seconds
    if job.get("urgency", 16) == 0:
        return "is held (urgency 0)"
    if job.get("state") == "depend":
        return "waits for its dependencies"
    if job.get("state") == "priority":
        return "waits for its priority"
    if waits_for not in RESOURCES:
        return f"waits: {waits_for}"
    if _is_anothers(claim, request):
        return f"is claimed by burst {claim['burst']} until {_clock(claim['until'])}"
    if fuse and duration > fuse:
        return (
            f"may run for {_span(duration)}, but the machines end after {_span(fuse)} "
            "(burst_max_run_duration)"
        )
    return f"cannot be planned for: {job['problem']}" if job.get("problem") else ""


def _is_anothers(claim: Mapping[str, Any], request: Request) -> bool:
    return bool(claim) and claim["burst"] != request.burst and claim["until"] > request.now


def _clock(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g} s after 1970"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"


def _fitting_types(rank: Mapping[str, Any], request: Request) -> list[Mapping[str, Any]]:
    return [
        kind
        for kind in request.machine_types
        if kind["cores"] >= rank["cores"] and (kind.get("gpus") or 0) >= rank["gpus"]
    ]


def _kinds(
    nodes: Sequence[Mapping[str, Any]], request: Request, matched: Mapping[str, set[int]]
) -> list[Kind]:
    """Return the nodes that jobs can take, by kind."""
    place_of = {host: place for place, host in enumerate(request.allowed)}
    existing = set(request.existing)
    matches: list[list[str]] = [[] for node in nodes]
    for key, places in matched.items():
        for place in places:
            matches[place].append(key)
    memory: dict[tuple[int, int], int | None] = {}
    kinds: dict[tuple[int, bool, Left, tuple[str, ...]], Kind] = {}
    seen: set[str] = set()
    for place, rank in enumerate(nodes):
        host, state = rank["host"], rank["state"]
        burst, order, free = host in existing, place_of.get(host, place), state == "free"
        cores, gpus, size = rank["cores"], rank["gpus"], UNLIMITED
        if host in place_of and request.machine_types and (burst or state == "down"):
            if (cores, gpus) not in memory:
                sizes = [
                    kind.get("memory_mb") or UNLIMITED for kind in _fitting_types(rank, request)
                ]
                memory[cores, gpus] = max(sizes, default=None)
            fitting = memory[cores, gpus]
            # Which type a machine has that exists is not known; without a type now, it counts as one with enough.
            size = UNLIMITED if fitting is None else fitting
        if state in ("free", "allocated"):
            tier = FREE
            cores = rank.get("free_cores", cores if free else 0)
            gpus = rank.get("free_gpus", gpus if free else 0)
        elif state != "down" or _reconciliation.drained(rank) or host in seen:
            continue
        elif burst:
            tier = BOOTING
        elif host in place_of and not _is_anothers(rank.get("claim") or {}, request):
            untyped = request.machine_types and memory[cores, gpus] is None
            tier, burst = (UNTYPED, True) if untyped else (SPARE, True)
        else:
            continue
        if state == "down":
            seen.add(host)
        left = (cores, gpus, size, state != "allocated")
        same = (tier, burst, left, tuple(matches[place]))
        if same not in kinds:
            kinds[same] = Kind(tier, burst, left, frozenset(matches[place]))
        kinds[same].nodes.append(Node(host, order))
    for kind in kinds.values():
        if kind.tier == SPARE:
            kind.nodes.sort(key=lambda node: node.order)
    return list(kinds.values())


def _place(pool: Pool, shape: Shape, sizing: str) -> str:
    if sizing == "widest":
        return pool.take(shape, alone=True)
    return pool.take(shape, alone=False) or (
        pool.take(shape, alone=True) if sizing == "cap" else ""
    )


def _why(shape: Shape, situation: Situation) -> str:
    """Return why a job did not fit; the first of these that holds is the one to do something about."""
    pool, request = situation.pool, situation.request
    free, boot = pool.supply(shape, alone=True)
    if free + boot < shape.wanted:
        return (
            _why_untyped(shape, situation)
            or _why_constraint(shape, situation)
            or _why_small(shape, situation.near(shape))
            or f"asks for {_units(shape)}; at most {free + boot} that match can be had "
            f"({free} free, {boot} to boot)"
        )
    alone = request.sizing != "all" or pool.machines(shape, alone=True) > pool.room
    free, boot = pool.supply(shape, alone)
    if free + boot < shape.wanted:
        return (
            f"asks for {_units(shape)}; the jobs that are served leave {free + boot} that match "
            f"({free} free, {boot} to boot)"
        )
    return (
        f"needs {_count(pool.machines(shape, alone), 'more machine')}; "
        f"burst_max_hosts allows {pool.room} more"
    )


def _why_untyped(shape: Shape, situation: Situation) -> str:
    untyped = [
        kind for kind in situation.near(shape) if kind.tier == UNTYPED and shape.units(kind.left)
    ]
    if not untyped:
        return ""
    kind = untyped[0]
    names = ", ".join(str(row["name"]) for row in situation.request.machine_types)
    return (
        f"needs machines such as {kind.nodes[0].host}, to which R gives {_count(kind.left[0], 'core')} and "
        f"{_count(kind.left[1], 'gpu')}; no machine type has as many ({names})"
    )


def _why_constraint(shape: Shape, situation: Situation) -> str:
    if not shape.constraint or situation.near(shape):
        return ""
    wish = situation.wishes[shape.constraint]
    having = situation.matched[shape.constraint].intersection(situation.request.allowed)
    if having:
        return f"asks for {wish}; what has it ({fold(having)}) is busy, drained or excluded"
    none = f"none of {situation.allowed} has" if situation.request.allowed else "no free node has"
    return f"asks for {wish}, which {none}"


def _why_small(shape: Shape, kinds: Sequence[Kind]) -> str:
    """Return which resource of a node is too small for one unit, "" where one unit fits somewhere."""
    kinds = [kind for kind in kinds if kind.left[3] or not shape.whole]
    if not kinds or any(shape.units(kind.left) for kind in kinds):
        return ""
    slots = shape.slots if shape.nodes else 1
    where = "on one node" if slots > 1 else "in one slot"
    needs = [slots * need for need in (shape.cores, shape.gpus, shape.memory_mb)]
    for place, what in enumerate(("cores", "gpus", "MB of memory")):
        largest = max(kind.left[place] for kind in kinds)
        if largest < needs[place]:
            return f"asks for {needs[place]} {what} {where}; the largest node that matches has {largest}"
    return (
        f"asks for {needs[0]} cores, {needs[1]} gpus and {needs[2]} MB of memory {where}; "
        "no node that matches has all of them"
    )


def _wish(constraint: Mapping[str, Any]) -> str:
    """Return a constraint as words."""
    words = {"properties": "property", "hostlist": "host", "ranks": "rank"}
    operator, values = next(iter(constraint.items()))
    if len(constraint) == 1 and operator in words:
        return f"{words[operator]} {', '.join(map(str, values))}"
    return f"the constraint {dict(constraint)}"


def _units(shape: Shape) -> str:
    return _count(shape.wanted, "node" if shape.nodes else "slot")


def _groups(
    hosts: Sequence[str],
    chosen: set[str],
    by_host: Mapping[str, Mapping[str, Any]],
    asked_mb: Mapping[str, int],
    request: Request,
) -> list[dict[str, Any]]:
    """Return the hosts by the machine types that carry what their jobs ask, in the order of the types."""
    found: dict[tuple[str, ...], list[str]] = {}
    order = {str(kind["name"]): place for place, kind in enumerate(request.machine_types)}
    prices = {str(kind["name"]): kind.get("price_per_hour") for kind in request.machine_types}
    fitting: dict[tuple[int, int], list[tuple[str, int]]] = {}
    allowed = set(request.allowed)
    for host in hosts:
        if host not in allowed:
            continue
        rank = by_host[host]
        size = (rank["cores"], rank["gpus"])
        if size not in fitting:
            fitting[size] = [
                (str(kind["name"]), kind.get("memory_mb") or UNLIMITED)
                for kind in _fitting_types(rank, request)
            ]
        asked = asked_mb.get(host, 0)
        names = tuple(name for name, memory in fitting[size] if memory >= asked)
        found.setdefault(names, []).append(host)
    return [
        {
            "machine_type": names[0] if names else "",
            "machine_types": list(names),
            "hosts": members,
            "new_hosts": [host for host in members if host in chosen],
            "price_per_hour": prices.get(names[0]) if names else None,
        }
        for names, members in sorted(
            found.items(), key=lambda pair: [order[name] for name in pair[0]]
        )
    ]


def _time_limit(served: Sequence[Mapping[str, Any]], request: Request) -> int:
    """Return for how many seconds the jobs need the machines: at once, or one after the other."""
    durations = [job.get("duration") or 0.0 for job in served]
    if not all(durations):
        return request.max_run_seconds
    needed = max(durations, default=0.0) if request.sizing == "all" else math.fsum(durations)
    return min(math.ceil(needed), request.max_run_seconds or math.ceil(needed))


def _price(groups: Sequence[Mapping[str, Any]], time_limit: int) -> float | None:
    """Return what the new hosts cost in that time; without a time limit that has no bound."""
    hours = time_limit / 3600
    total = 0.0
    for group in groups:
        if group["new_hosts"]:
            if group["price_per_hour"] is None or not time_limit:
                return None
            total += len(group["new_hosts"]) * group["price_per_hour"] * hours
    return round(total, 4)


def _message(
    hosts: Sequence[str],
    new: Sequence[str],
    served: Sequence[str],
    local: Sequence[str],
    left: Sequence[str],
    drained: Sequence[str],
    existing: set[str],
) -> str:
    if new and served:
        text = f"burst {_machines(new)} for {_jobs(served)}"
    elif new:
        text = f"burst {_machines(new)}, which the others need to join"
    elif existing:
        text = "nothing more to burst"
    elif local:
        text = f"nothing to burst: the nodes that are free suffice for {_jobs(local)}"
    elif left:
        text = "nothing to burst: no waiting burstable job can be served"
    else:
        text = "nothing to burst: no waiting job is marked as burstable"
    if existing:
        text += f"; keep {_machines([host for host in hosts if host in existing])}"
    if left:
        text += f"; leave {_jobs(left)}"
    if drained:
        text += f"; {fold(drained)} is drained on the lead and is left out"
    return text


def _machines(hosts: Sequence[str]) -> str:
    return f"{_count(len(hosts), 'machine')} ({fold(hosts)})"


def _jobs(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:MANY]) + (", ..." if len(ids) > MANY else "")
    return f"{_count(len(ids), 'job')} ({shown})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
