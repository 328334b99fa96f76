# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The overlay's tree in the array `hosts` of [bootstrap]: who is whose parent, for the lead and for the machines. Pure.

An entry is a mapping of host (a hostlist) and maybe bind, connect and parent, see flux-config-bootstrap(5). A host's
rank is its place in the array.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand, fold

DEFAULT_PORT = 8050
"""Where a bursted machine that has others below it listens, where the lead's default_port does not say."""

Entry = Mapping[str, Any]


def names(hosts: Iterable[Entry]) -> list[str]:
    """Return the names of an array by rank."""
    return [name for entry in hosts for name in expand(str(entry["host"]))]


def parents(hosts: Sequence[Entry]) -> dict[str, str]:
    """Return each host's parent, "" where that is the lead."""
    lead = names(hosts[:1])[0]
    return {
        name: "" if parent == lead else parent
        for entry in hosts
        for parent in [str(entry.get("parent", ""))]
        for name in expand(str(entry["host"]))
    }


def declared(hosts: Sequence[Entry], burst: Sequence[str], gateway: str) -> list[dict[str, Any]]:
    """Return the array that a lead needs: its own, with the parents that a burst's machines must have.

    burst are the machines' names, and gateway that of the one which is the parent of the others, "" for none. Ranks
    stay as they are; machines that the array does not have come at its end.
    """
    missing = set(burst).difference(names(hosts))
    added = [{"host": name} for name in burst if name in missing]
    ours = set(burst)
    rows = []
    for place, entry in enumerate([*hosts, *added]):
        for name in expand(str(entry["host"])):
            rest = _rest(entry)
            if name in ours:
                rest.pop("parent", None)
                if gateway and name != gateway:
                    rest["parent"] = gateway
            rows.append((min(place, len(hosts)), name, rest))
    return list(_folded(rows))


def _folded(rows: Iterable[tuple[int, str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield one entry for all that follow each other and are alike, of rows of place, name, and what else there is."""
    for (_place, rest), group in groupby(rows, key=lambda row: (row[0], row[2])):
        found = [name for _unused, name, _same in group]
        text = fold(found)
        # A hostlist that sorts the names would give them other ranks.
        yield {"host": text if expand(text) == found else ",".join(found), **rest}


def for_machines(
    hosts: Sequence[Entry],
    lead: tuple[str, int],
    gateway: str = "",
    address: str = "",
    port: int = DEFAULT_PORT,
) -> list[dict[str, Any]]:
    """Return a lead's array as bursted machines need it: with the addresses at which they reach their parents.

    lead is the lead's address and port as they see it. The gateway, where there is one, listens at its own address and
    port, and the others connect there.
    """
    made = [dict(entry) for entry in hosts]
    made[0]["connect"] = f"tcp://{lead[0]}:{lead[1]}"
    if gateway:
        here = f"tcp://{address}:{port}"
        rows = [
            (place, name, _at(entry, here) if name == gateway else _rest(entry))
            for place, entry in enumerate(made)
            for name in expand(str(entry["host"]))
        ]
        made = list(_folded(rows))
    return made


def _rest(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "host"}


def _at(entry: Entry, uri: str) -> dict[str, Any]:
    return {**_rest(entry), "bind": uri, "connect": uri}


def toml(value: Any) -> str:
    """Return a value of JSON's kinds as TOML in one line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {toml(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, Collection) and not isinstance(value, str):
        return f"[ {', '.join(map(toml, value))} ]"
    return json.dumps(value)
