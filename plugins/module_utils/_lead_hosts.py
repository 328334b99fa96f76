# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broker's configuration lacks of the machines that a burst may boot. Pure.

A configuration is a mapping of its tables, see flux-config-bootstrap(5) and flux-config-resource(5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _hostlist, _overlay
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError


@dataclass(frozen=True)
class Machines:
    """The machines that a burst may boot, in their order, and what R is to declare of each.

    gateway is the one that is the overlay parent of the others, "" for none.
    """

    hosts: Sequence[str]
    cores: int
    gpus: int = 0
    properties: Sequence[str] = ("burst",)
    gateway: str = ""


@dataclass(frozen=True)
class Missing:
    """What has to be added at the end: entries to [bootstrap] hosts, and tables to [[resource.config]].

    array is all of hosts, to be put in place of what is there, where machines have other parents than they should.
    """

    hosts: Sequence[Mapping[str, Any]] = ()
    tables: Sequence[Mapping[str, Any]] = ()
    array: Sequence[Mapping[str, Any]] = ()

    def __bool__(self) -> bool:
        return bool(self.hosts or self.tables or self.array)


def members(config: Mapping[str, Any]) -> list[str]:
    """Return the hosts of [bootstrap]. Raises SpecError where there are none, or one is there twice.

    Each entry's own names are sorted, so this tells who is there, not every rank.
    """
    entries = (config.get("bootstrap") or {}).get("hosts") or []
    if not entries:
        raise SpecError(
            "wanted hosts in [bootstrap], found none: a broker of its own has no others. Add the lead there, with the "
            'address where it listens: hosts = [ { host = "LEAD", bind = "tcp://eth0:8050", connect = '
            '"tcp://LEAD:8050" } ], and curve_cert = "FILE" with a certificate of flux keygen FILE.'
        )
    found = [name for entry in entries for name in _hostlist.expand(str(entry.get("host", "")))]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise SpecError(
            f"wanted each host once in [bootstrap] hosts, as its place is its rank, found {hostlist(twice)} twice: "
            "remove the second."
        )
    return found


def missing(
    config: Mapping[str, Any],
    machines: Machines,
    ranks: Sequence[Mapping[str, Any]] = (),
    *,
    lead: bool = True,
    declared: Iterable[str] = (),
) -> Missing:
    """Return what the configuration lacks of the machines.

    ranks are what flux_resource_info returns of the running lead: where it has found its resources by itself, they
    must be written down before others are added. A broker that is not the lead has no resources to declare unless it
    has declared some: then they must be the lead's. declared are the hosts of the file that `path` of [resource]
    names. Raises SpecError.
    """
    there = members(config)
    hosts = [name for name in machines.hosts if name not in there]
    entries, array = _entries(config["bootstrap"]["hosts"], machines)
    resource = config.get("resource") or {}
    tables = resource.get("config") or []
    if not tables and not lead:
        return Missing(entries, array=array)
    if resource.get("path"):
        absent = [name for name in machines.hosts if name not in set(declared)]
        if absent:
            raise SpecError(_of_file(resource["path"], absent, machines, [*there, *hosts]))
        return Missing(entries, array=array)
    added = [] if tables else _as_they_run(there, ranks, machines)
    return Missing(entries, [*added, *_tables(tables, machines)], array)


def _entries(
    there: Sequence[Mapping[str, Any]], machines: Machines
) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Return what to add to an array of hosts, and the whole of it where that does not do."""
    whole = _overlay.declared(there, machines.hosts, machines.gateway)
    now, wanted = _overlay.parents(there), _overlay.parents(whole)
    if any(wanted[name] != parent for name, parent in now.items()):
        return (), whole
    return whole[len(there) :], ()


def text(lacking: Missing) -> str:
    """Return the TOML that a person would add, with where it goes."""
    lines = []
    if lacking.hosts:
        lines.append("# at the end of hosts in [bootstrap], on every broker of the lead's cluster:")
        lines += [f"{_overlay.toml(entry)}," for entry in lacking.hosts]
    if lacking.array:
        lines.append("# in place of hosts in [bootstrap], on every broker of the lead's cluster:")
        lines.append(f"hosts = {_overlay.toml(lacking.array)}")
    if lacking.tables:
        lines.append("# on the lead, at the end of its resources:")
    for table in lacking.tables:
        lines += ["[[resource.config]]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines)


def hostlist(names: Sequence[str]) -> str:
    """Return names as a hostlist that has them in this order."""
    folded = _hostlist.fold(names)
    try:
        return folded if _hostlist.expand(folded) == list(names) else ",".join(names)
    except SpecError:
        # More than one pair of brackets, which Flux does not read.
        return ",".join(names)


def idset(count: int) -> str:
    """Return so many numbers from 0 on, as Flux writes them."""
    return f"0-{count - 1}" if count > 1 else "0"


def _children(cores: int, gpus: int) -> dict[str, str]:
    return {"cores": idset(cores), **({"gpus": idset(gpus)} if gpus else {})}


def _tables(tables: Sequence[Mapping[str, Any]], machines: Machines) -> list[dict[str, Any]]:
    """Cores may be declared once for a host, properties as often as one likes."""
    sized: set[str] = set()
    marked: dict[str, set[str]] = {name: set() for name in machines.properties}
    for table in tables:
        hosts = _hostlist.expand(str(table.get("hosts", "")))
        if "cores" in table:
            sized.update(hosts)
        for name in table.get("properties") or []:
            marked.get(str(name), set()).update(hosts)
    new = [host for host in machines.hosts if host not in sized]
    lacking = {
        name: [host for host in machines.hosts if host not in marked[name]] for name in marked
    }
    together = [name for name, hosts in lacking.items() if hosts == new]
    made: list[dict[str, Any]] = []
    if new:
        made.append({"hosts": hostlist(new), **_children(machines.cores, machines.gpus)})
        if together:
            made[0]["properties"] = together
    made += [
        {"hosts": hostlist(hosts), "properties": [name]}
        for name, hosts in lacking.items()
        if hosts and (not new or name not in together)
    ]
    return made


def _as_they_run(
    there: Sequence[str], ranks: Sequence[Mapping[str, Any]], machines: Machines
) -> list[dict[str, Any]]:
    """The lead found its hosts' resources by itself; once one host is declared, all must be."""
    known = {rank["host"]: rank for rank in ranks}
    others = [name for name in there if name not in machines.hosts]
    unknown = [name for name in others if name not in known]
    if unknown:
        raise SpecError(
            f"wanted [[resource.config]] with {hostlist(unknown)}, found neither that nor resources of it in the "
            "running lead: declare its cores there, or start it."
        )
    groups: dict[tuple[int, int, tuple[str, ...]], list[str]] = {}
    for name in others:
        rank = known[name]
        kind = (rank["cores"], rank["gpus"], tuple(rank.get("properties") or ()))
        groups.setdefault(kind, []).append(name)
    return [
        {
            "hosts": hostlist(names),
            **_children(cores, gpus),
            **({"properties": list(properties)} if properties else {}),
        }
        for (cores, gpus, properties), names in groups.items()
    ]


def _of_file(path: str, absent: Sequence[str], machines: Machines, order: Sequence[str]) -> str:
    """R in a file is made by other tools, which would not know what was added to it."""
    ranks = ",".join(str(order.index(name)) for name in absent)
    words = f"flux R encode -r {ranks} -c {idset(machines.cores)}"
    words += f" -g {idset(machines.gpus)}" if machines.gpus else ""
    words += f" -H {hostlist(absent)}" + "".join(f" -p {name}" for name in machines.properties)
    return (
        f"wanted {hostlist(absent)} in {path}, which is the lead's R ([resource] path), found it not there: write it "
        f"by 'cp {path} {path}.old && {words} | cat {path}.old - | flux R append > {path}', or declare all resources "
        "in [[resource.config]] instead; then run this again."
    )
