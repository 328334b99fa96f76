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

HOSTLIST = re.compile(r"[A-Za-z0-9_.,\[\]-]+")


def expand(text: str) -> list[str]:
    """Return the names of a hostlist. Raises SpecError, which says what cannot be read."""
    _need()
    if not HOSTLIST.fullmatch(text):
        raise SpecError(f"wanted a Flux hostlist such as gffw-compute-a-[001-003], found {text!r}")
    try:
        names = list(NodeSet(text, resolver=RESOLVER_NOGROUP))
    except NodeSetException as error:
        raise SpecError(
            f"wanted a Flux hostlist such as gffw-compute-a-[001-003], found {text!r} ({error})"
        ) from None
    return [str(name) for name in names]


def fold(names: Iterable[str]) -> str:
    """Return names as one hostlist."""
    _need()
    return str(NodeSet.fromlist(list(names), resolver=RESOLVER_NOGROUP))


def _need() -> None:
    if NodeSet is None:
        raise SpecError(
            "wanted ClusterShell on the controller, found none: pip install ClusterShell"
        )
