# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A broker's TOML files with the machines of a burst in them, on the controller; all else in them stays as it is.

Flux merges the tables of all files of its directory, in the order of their names.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _lead_hosts
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError

try:
    import tomlkit
    from tomlkit.items import AoT, Array, Table
except ImportError:
    tomlkit = None  # type: ignore[assignment]

# What only the machine itself can fill in: a port that is free there, and a certificate made for one trial.
PORT, CERT = "@port@", "@cert@"


@dataclass(frozen=True)
class Edited:
    """The files as they are to be, by path.

    hosts are the hostlists of [bootstrap] in rank order. trial has the same files for a broker that is started only to
    see what it says of them: it listens on loopback with a certificate of its own, see PORT and CERT.
    """

    files: Mapping[str, str]
    hosts: Sequence[str]
    trial: Mapping[str, str]


def load(files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the tables of each file. Raises SpecError for what is no TOML."""
    found = {}
    for path in sorted(files):
        try:
            found[path] = tomllib.loads(files[path])
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"{path}: wanted TOML, found '{error}': correct it.") from None
    return found


def merged(loaded: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the configuration that Flux makes of some files."""
    whole: dict[str, Any] = {}
    for path in sorted(loaded):
        _merge(whole, loaded[path])
    return whole


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def edited(files: Mapping[str, str], lacking: _lead_hosts.Missing) -> Edited:
    """Return the files with what they lack at the end of [bootstrap] hosts and of [[resource.config]].

    Raises SpecError where a file cannot be edited without a change of anything else.
    """
    loaded = load(files)
    new = dict(files)
    at = _file_with(loaded, "bootstrap", "hosts")
    if lacking.hosts:
        new[at] = _extended(at, new[at], ("bootstrap", "hosts"), lacking.hosts)
    if lacking.array:
        new[at] = _with_hosts(at, new[at], lacking.array)
    if lacking.tables:
        place = _file_with(loaded, "resource", "config") or _file_with(loaded, "resource") or at
        new[place] = _extended(place, new[place], ("resource", "config"), lacking.tables)
    after = load(new)
    whole = merged(after)
    hosts = [str(entry["host"]) for entry in whole["bootstrap"]["hosts"]]
    if not {"config", "path"} & set(whole.get("resource") or {}):
        # A worker's: as rank 0 it would wait for all others, to hear what they have.
        after[at].setdefault("resource", {})["config"] = [{"hosts": ",".join(hosts), "cores": "0"}]
    return Edited(new, hosts, {path: _trial(tables) for path, tables in after.items()})


def _file_with(loaded: Mapping[str, Mapping[str, Any]], table: str, key: str = "") -> str:
    """Return the path of the one file that has this, "" where none has."""
    found = [path for path, tables in loaded.items() if table in tables]
    if key:
        found = [path for path in found if key in loaded[path][table]]
        if len(found) > 1:
            raise SpecError(
                f"wanted {key} of [{table}] in one file, found it in {' and '.join(found)}, of which Flux takes the "
                "last: remove the others."
            )
    return found[-1] if found else ""


def _extended(
    path: str, text: str, where: tuple[str, str], added: Sequence[Mapping[str, Any]]
) -> str:
    """Return a file's text with further tables at the end of an array of tables."""
    wanted = tomllib.loads(text)
    table = wanted.setdefault(where[0], {})
    table[where[1]] = [*table.get(where[1], []), *map(dict, added)]
    document = _document(text)
    array = document.get(where[0], {}).get(where[1])
    if isinstance(array, (AoT, Array)):
        for each in added:
            _append(array, each)
        new = tomlkit.dumps(document)
    else:
        lines = [f"\n[[{'.'.join(where)}]]\n{_rows(each)}" for each in added]
        new = text + ("" if text.endswith("\n") or not text else "\n") + "".join(lines)
    if not _says(new, wanted):
        raise SpecError(
            f"{path}: wanted to add to {'.'.join(where)}, found it written in a way that cannot be edited safely: "
            f"add this by hand: {', '.join(_inline(each) for each in added)}"
        )
    return new


def _with_hosts(path: str, text: str, hosts: Sequence[Mapping[str, Any]]) -> str:
    """Return a file's text with another array of hosts; all outside of it stays as it is."""
    wanted = tomllib.loads(text)
    wanted["bootstrap"]["hosts"] = [*map(dict, hosts)]
    document = _document(text)
    rows = "".join(f"    {_inline(each)},\n" for each in hosts)
    document["bootstrap"]["hosts"] = tomlkit.parse(f"hosts = [\n{rows}]\n")["hosts"]
    new = tomlkit.dumps(document)
    if not _says(new, wanted):
        raise SpecError(
            f"{path}: wanted to replace hosts of [bootstrap], found it written in a way that cannot be edited safely: "
            f"replace it by hand: hosts = [ {', '.join(map(_inline, hosts))} ]"
        )
    return new


def _document(text: str) -> Any:
    if tomlkit is None:
        raise SpecError("wanted tomlkit on the controller, found none: pip install tomlkit")
    return tomlkit.parse(text)


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False


def _rows(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def _inline(table: Mapping[str, Any]) -> str:
    return f"{{ {', '.join(f'{key} = {json.dumps(value)}' for key, value in table.items())} }}"


def _append(array: AoT | Array, added: Mapping[str, Any]) -> None:
    if isinstance(array, AoT):
        _append_table(array, added)
        return
    item = tomlkit.parse(f"item = {_inline(added)}")["item"]
    text = array.as_string()
    if "\n" in text:
        indents = re.findall(r"\n([ \t]+)[^ \t\n\]]", text)
        array.add_line(item, indent=indents[-1] if indents else "  ")
    else:
        array.append(item)


def _append_table(array: AoT, added: Mapping[str, Any]) -> None:
    """A comment after the last table is mostly of what follows: it stays before that."""
    new, last = tomlkit.parse(_rows(added)), array[-1]
    body = last.value.body
    end = len(body)
    while end and body[end - 1][0] is None:
        end -= 1
    tail = body[end:]
    del body[end:]
    last.add(tomlkit.nl())
    table: Table = tomlkit.table()
    for key in list(new):
        table.add(key, new[key])
    for _key, item in tail:
        table.value.append(None, item)
    array.append(table)


def _trial(tables: Mapping[str, Any]) -> str:
    """Return a file of the trial: what the broker listens at and its certificate are others, all else is the same."""
    found = copy.deepcopy(dict(tables))
    bootstrap = found.get("bootstrap")
    if isinstance(bootstrap, dict):
        for key, value in (
            ("default_bind", f"tcp://127.0.0.1:{PORT}"),
            ("default_connect", f"tcp://127.0.0.1:{PORT}"),
            ("curve_cert", CERT),
        ):
            if key in bootstrap or (key != "curve_cert" and "hosts" in bootstrap):
                bootstrap[key] = value
        for entry in bootstrap.get("hosts", []):
            entry.pop("bind", None)
            entry.pop("connect", None)
    return tomlkit.dumps(found)
