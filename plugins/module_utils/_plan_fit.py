# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What fits where: constraints (RFC 31), and nodes counted by kind instead of one by one.

Thousands of jobs meet thousands of nodes, so nobody may look at every node for every job.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import accumulate, islice
from operator import itemgetter
from typing import Any, NamedTuple

from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand

# A whole number, because infinity cannot be divided without a rest.
UNLIMITED = 1 << 60
# Where a node stands: up, created and booting, to be created, or to be created but no machine type fits.
FREE, BOOTING, SPARE, UNTYPED = range(4)
SPAN = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
# A job's constraint may name more hosts than there are, but not so many that it is a labour to read them.
MOST_NAMED = 10_000

# Cores, gpus and MB that are left on a node, and whether nothing runs on it.
Left = tuple[int, int, int, bool]


class Constraints:
    """Evaluates constraints on ranks; a node is its place in `ranks`."""

    def __init__(self, ranks: Sequence[Mapping[str, Any]]) -> None:
        self._every = set(range(len(ranks)))
        self._numbers = [rank.get("rank", -1) for rank in ranks]
        self._hosts: dict[str, set[int]] = {}
        self._properties: dict[str, set[int]] = {}
        for place, rank in enumerate(ranks):
            self._hosts.setdefault(rank["host"], set()).add(place)
            for name in rank.get("properties") or []:
                self._properties.setdefault(name, set()).add(place)
        self._operators: dict[str, Callable[[list[Any]], set[int]]] = {
            "properties": self._having,
            "hostlist": lambda values: self._union(map(self._named, values)),
            "ranks": lambda values: self._union(map(self._numbered, values)),
            "and": lambda values: self._all(map(self.match, values)),
            # An empty list asks for nothing.
            "or": lambda values: self._union(map(self.match, values)) if values else self._every,
            # As Flux evaluates it: not all of them together.
            "not": lambda values: self._every - self._all(map(self.match, values)),
        }

    def match(self, constraint: Any) -> set[int]:
        """Return the nodes that meet a constraint. Raises ValueError, which says what cannot be read."""
        if not isinstance(constraint, Mapping):
            raise ValueError(f"the constraint {constraint!r}")
        found = self._every
        for operator, values in constraint.items():
            if operator not in self._operators:
                raise ValueError(f"the operator {operator!r}")
            if not isinstance(values, list | tuple):
                raise ValueError(f"{values!r} of the operator {operator!r}")
            found = found & self._operators[operator](list(values))
        return found

    def _having(self, values: list[Any]) -> set[int]:
        found = self._every
        for name in map(str, values):
            having = self._properties.get(name.removeprefix("^"), set())
            found = found - having if name.startswith("^") else found & having
        return found

    def _named(self, text: Any) -> set[int]:
        try:
            most = max(MOST_NAMED, 2 * len(self._every))
            names = expand(str(text), most) if re.search(r"[\[,]", str(text)) else [str(text)]
        except SpecError:
            raise ValueError(f"the hostlist {text!r}") from None
        return self._union(self._hosts.get(name, set()) for name in names)

    def _numbered(self, text: Any) -> set[int]:
        spans = [SPAN.fullmatch(part) for part in str(text).strip("[]").split(",")]
        if None in spans:
            raise ValueError(f"the idset {text!r}")
        ends = sorted((int(span[1]), int(span[2] or span[1])) for span in spans if span)
        firsts = [first for first, _last in ends]
        # How far the spans up to each reach.
        reach = [-1, *accumulate((last for _first, last in ends), max)]
        return {
            place
            for place, number in enumerate(self._numbers)
            if number <= reach[bisect_right(firsts, number)]
        }

    def _union(self, found: Iterable[set[int]]) -> set[int]:
        return set().union(*found)

    def _all(self, found: Iterable[set[int]]) -> set[int]:
        return self._every.intersection(*found)


@dataclass(frozen=True)
class Shape:
    """What a job asks for. `constraint` is a key of the matches that a Pool is made with, "" for none."""

    nodes: int
    slots: int
    cores: int
    gpus: int
    memory_mb: int
    exclusive: bool
    constraint: str

    @property
    def wanted(self) -> int:
        """Return how many units it takes: nodes, or slots where it names no number of nodes."""
        return self.nodes or self.slots

    @property
    def whole(self) -> bool:
        """Return whether nothing else may run on its nodes."""
        return self.nodes > 0 or self.exclusive

    @property
    def slots_each(self) -> int:
        """Return the slots of one unit."""
        return self.slots if self.nodes else 1

    def units(self, left: Left) -> int:
        """Return how many of its units a node can give."""
        if not left[3] and self.whole:
            return 0
        slots = self.slots
        for have, need in ((left[0], self.cores), (left[1], self.gpus), (left[2], self.memory_mb)):
            if have < need * slots:
                slots = have // need
        return int(slots >= self.slots) if self.nodes else slots

    def rest(self, left: Left, units: int) -> Left:
        """Return what units of it leave of a node."""
        if self.whole:
            return (0, 0, 0, False)
        return (
            left[0] - units * self.cores,
            left[1] - units * self.gpus,
            left[2] - units * self.memory_mb,
            False,
        )


@dataclass(slots=True, eq=False)
class Node:
    """A node; the jobs on it at once ask for `asked_mb` of memory, the largest that takes its turn for `alone_mb`."""

    host: str
    order: int
    asked_mb: int = 0
    alone_mb: int = 0


@dataclass(eq=False)
class Kind:
    """Nodes that no job can tell apart.

    `burst` says that they are the burst's machines, `left` what each has at first, `ready` how many of `nodes`, from
    the first, exist or have been chosen. `buckets` hold those by what earlier jobs leave of them.
    """

    tier: int
    burst: bool
    left: Left
    matches: frozenset[str]
    nodes: list[Node] = field(default_factory=list)
    ready: int = 0
    buckets: dict[Left, list[Node]] = field(default_factory=dict)
    # By n: how much memory the first n nodes need for a job that takes its turn. Saves looking at each of them.
    first_mb: dict[int, int] = field(default_factory=dict)

    @property
    def spare(self) -> int:
        """Return how many could still be chosen."""
        return len(self.nodes) - self.ready if self.tier == SPARE else 0

    def put(self, left: Left, nodes: Sequence[Node]) -> None:
        """Keep nodes for later jobs; those with nothing left are of no use to any."""
        if nodes and (left[0] > 0 or left[1] > 0):
            self.buckets.setdefault(left, []).extend(nodes)

    def preference(self) -> tuple[Any, ...]:
        """Return the order in which jobs take kinds of the same tier.

        The lead's own come first, and nothing takes what few jobs can do without (gpus, constraints, size) while there
        is something else.
        """
        return (self.burst, self.left[1], len(self.matches), self.left[0])


class Offer(NamedTuple):
    """So many nodes of a kind, each with `left`, that give `units` each; the least `turn` is taken first."""

    turn: int
    kind: Kind
    left: Left
    number: int
    units: int


class Pool:
    """All nodes that jobs may take, and at most `room` machines to be created.

    Every method that takes a job says which nodes serve it: "burst" where machines of the burst are among them,
    "local" where not, "" where there are too few; then nothing is taken.
    """

    def __init__(self, kinds: Sequence[Kind], room: int) -> None:
        self.kinds = sorted(kinds, key=Kind.preference)
        self.room = room
        self._fitting: dict[Shape, list[tuple[int, Kind, int]]] = {}
        self._alone: dict[Shape, str] = {}
        for kind in kinds:
            kind.ready = len(kind.nodes) if kind.tier in (FREE, BOOTING) else 0
            kind.put(kind.left, kind.nodes[: kind.ready])

    def fitting(self, shape: Shape) -> list[tuple[int, Kind, int]]:
        """Return the kinds that can give something to a job: its turn, itself, and how many units each node gives."""
        if shape not in self._fitting:
            given = [
                (turn, kind, shape.units(kind.left))
                for turn, kind in enumerate(self.kinds)
                if not shape.constraint or shape.constraint in kind.matches
            ]
            self._fitting[shape] = [row for row in given if row[2]]
        return self._fitting[shape]

    def offers(self, shape: Shape, alone: bool) -> list[Offer]:
        """Return what a job can have without another machine: beside the earlier jobs, or alone.

        What is up comes first. Slots go where something runs already, so that other nodes stay whole.
        """
        found = []
        spread, later = len(self.kinds), 2 * len(self.kinds)
        for place, kind, most in self.fitting(shape):
            turn = place if kind.tier == FREE else place + later
            if alone:
                if kind.ready:
                    at = turn + spread if kind.left[3] else turn
                    found.append(Offer(at, kind, kind.left, kind.ready, most))
                continue
            for left, nodes in kind.buckets.items():
                if units := shape.units(left):
                    at = turn + spread if left[3] else turn
                    found.append(Offer(at, kind, left, len(nodes), units))
        return sorted(found, key=itemgetter(0))

    def supply(self, shape: Shape, alone: bool) -> tuple[int, int]:
        """Return how many units are free, and how many are to boot, without regard to `room`."""
        free = boot = 0
        for offer in self.offers(shape, alone):
            given = offer.number * offer.units
            free, boot = (free + given, boot) if offer.kind.tier == FREE else (free, boot + given)
        return free, boot + sum(kind.spare * units for turn, kind, units in self.fitting(shape))

    def machines(self, shape: Shape, alone: bool) -> int:
        """Return how many more machines a job needs, without regard to `room`."""
        wanted = shape.wanted - sum(
            offer.number * offer.units for offer in self.offers(shape, alone)
        )
        return sum(count for kinds, count, units in self._to_boot(shape, wanted))

    def take(self, shape: Shape, alone: bool) -> str:
        """Give a job its nodes: beside the earlier jobs, or as if there were no others."""
        if not alone:
            return self._take(shape, alone)
        # The next one of the same shape finds the machines of the first, or lacks them as that one did.
        if shape not in self._alone:
            self._alone[shape] = self._take(shape, alone)
        return self._alone[shape]

    def _take(self, shape: Shape, alone: bool) -> str:
        picked: list[tuple[Offer, int, int]] = []
        wanted = shape.wanted
        for offer in self.offers(shape, alone):
            if wanted <= 0:
                break
            count = min(offer.number, -(-wanted // offer.units))
            taken = min(wanted, count * offer.units)
            picked.append((offer, count, taken))
            wanted -= taken
        to_boot = self._to_boot(shape, wanted)
        given = sum(count * units for kinds, count, units in to_boot)
        if given < wanted or sum(count for kinds, count, units in to_boot) > self.room:
            return ""
        for offer, count, taken in picked:
            self._use(shape, offer, count, taken, alone)
        for kinds, count, units in to_boot:
            for kind, node in _first(kinds, count):
                kind.ready += 1
                self.room -= 1
                taken = min(wanted, units)
                wanted -= taken
                asked = taken * shape.slots_each * shape.memory_mb
                if alone:
                    node.alone_mb = asked
                    kind.put(kind.left, [node])
                else:
                    node.asked_mb = asked
                    kind.put(shape.rest(kind.left, taken), [node])
        return "burst" if to_boot or any(offer.kind.burst for offer, *rest in picked) else "local"

    def _to_boot(self, shape: Shape, wanted: int) -> list[tuple[list[Kind], int, int]]:
        """Return kinds of spare machines, how many of them, and the units of each; the largest first."""
        by_units: dict[int, list[Kind]] = {}
        if wanted > 0:
            spare = [row[1:] for row in self.fitting(shape) if row[1].spare]
            for kind, units in spare:
                by_units.setdefault(units, []).append(kind)
        found = []
        for units in sorted(by_units, reverse=True):
            if wanted > 0:
                there = sum(kind.spare for kind in by_units[units])
                count = min(there, -(-wanted // units))
                found.append((by_units[units], count, units))
                wanted -= count * units
        return found

    def _use(self, shape: Shape, offer: Offer, count: int, taken: int, alone: bool) -> None:
        kind, each = offer.kind, shape.slots_each * shape.memory_mb
        # All give what they can but the last one, which gives what is still wanted.
        last = taken - (count - 1) * offer.units
        if alone:
            if each and count > 1:
                kind.first_mb[count - 1] = max(kind.first_mb.get(count - 1, 0), offer.units * each)
            node = kind.nodes[count - 1]
            node.alone_mb = max(node.alone_mb, last * each)
            return
        bucket = kind.buckets[offer.left]
        nodes = bucket[:count]
        del bucket[:count]
        if not bucket:
            del kind.buckets[offer.left]
        if each:
            for node in nodes[:-1]:
                node.asked_mb += offer.units * each
            nodes[-1].asked_mb += last * each
        kind.put(shape.rest(offer.left, offer.units), nodes[:-1])
        kind.put(shape.rest(offer.left, last), nodes[-1:])

    def asked_mb(self) -> dict[str, int]:
        """Return the memory in MB that the jobs on each machine of the burst ask for."""
        found = {}
        for kind in self.kinds:
            most = 0
            for place in reversed(range(kind.ready if kind.burst else 0)):
                most = max(most, kind.first_mb.get(place + 1, 0))
                node = kind.nodes[place]
                found[node.host] = max(most, node.asked_mb, node.alone_mb)
        return found

    def chosen(self) -> list[str]:
        """Return the hosts that are to be created."""
        return [
            node.host
            for kind in self.kinds
            if kind.tier == SPARE
            for node in kind.nodes[: kind.ready]
        ]


def _first(kinds: Collection[Kind], count: int) -> list[tuple[Kind, Node]]:
    """Return so many spare nodes of these kinds, in the order in which hosts are allowed."""
    queues = (
        [(node.order, kind, node) for node in kind.nodes[kind.ready : kind.ready + count]]
        for kind in kinds
    )
    found = islice(merge(*queues, key=lambda row: row[0]), count)
    return [(kind, node) for order, kind, node in found]
