# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flux hostlists (RFC 29) on the controller, by ClusterShell."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError

try:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
except ImportError:
    NodeSet = None

# Flux reads one pair of brackets in a name; ClusterShell would read more, steps, groups and set operators.
SPAN = r"[0-9]{1,18}(-[0-9]{1,18})?"
TERM = rf"[A-Za-z0-9_.-]*(\[{SPAN}(,{SPAN})*\][A-Za-z0-9_.-]*)?"
HOSTLIST = re.compile(rf"(?=[^,]){TERM}(,(?=[^,]){TERM})*")
RANGE = re.compile(r"(?<=[\[,])([0-9]+)-([0-9]+)(?=[\],])")
# More than any burst, and few enough to be counted out without harm.
MOST_NAMES = 100_000
# No host name is that long; Python refuses to read a longer number.
TOO_LONG = re.compile(r"[0-9]{256}")
LONGEST_SHOWN = 200
SPLIT = re.compile(r"(?:[^,\[]|\[[^\]]*\])+")


def expand(text: str, most: int = MOST_NAMES) -> list[str]:
    """Return the names of a hostlist, each once. Raises SpecError, which says what cannot be read, or is too much."""
    _need()
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
    wanted = f"wanted a Flux hostlist such as gffw-compute-a-[001-003], found {shown!r}"
    if not HOSTLIST.fullmatch(text) or TOO_LONG.search(text):
        raise SpecError(wanted)
    if sum(int(last) - int(first) for first, last in RANGE.findall(text)) > most:
        raise SpecError(f"{wanted} (more than {most} names)")
    try:
        terms = [
            NodeSet(part, resolver=RESOLVER_NOGROUP)
            for term in SPLIT.finditer(text)
            for part in _spans(term[0])
        ]
    except NodeSetException as error:
        raise SpecError(f"{wanted} ({error})") from None
    return list(dict.fromkeys(str(name) for names in terms for name in names))


def _spans(term: str) -> list[str]:
    """Return one term for each span of a term's brackets: ClusterShell would sort them, and Flux does not."""
    head, bracket, rest = term.partition("[")
    if not bracket:
        return [term]
    spans, _bracket, tail = rest.partition("]")
    return [f"{head}[{span}]{tail}" for span in spans.split(",")]


def fold(names: Iterable[str]) -> str:
    """Return names as one hostlist."""
    _need()
    return str(NodeSet.fromlist(list(names), resolver=RESOLVER_NOGROUP))


def _need() -> None:
    if NodeSet is None:
        raise SpecError(
            "wanted ClusterShell on the controller, found none: pip install ClusterShell"
        )
