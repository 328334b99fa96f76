# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects a list or a watch is of: label selectors and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.server.kube.errors import bad_request
from sandbox.server.kube.kinds import Object

Test = Callable[[Mapping[str, Any]], bool]

SETS = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")
EQUALS = re.compile(r"([^=!\s]+)\s*(==|=|!=)\s*([^=!\s]*)")


def _terms(text: str) -> list[str]:
    """Return what the commas outside of brackets separate."""
    return [term.strip() for term in re.split(r",(?![^(]*\))", text) if term.strip()]


def _label(term: str) -> Test:
    found = SETS.fullmatch(term)
    if found:
        key, values = found[1], {value.strip() for value in found[3].split(",")}
        if found[2] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    found = EQUALS.fullmatch(term)
    if found:
        name, sign, value = found.groups()
        return lambda labels: (labels.get(name) == value) == (sign != "!=")
    if re.fullmatch(r"!?[\w./-]+", term):
        return lambda labels: (term.lstrip("!") in labels) != term.startswith("!")
    raise bad_request(f"unable to parse requirement: found '{term}' in a label selector")


def _at(thing: Object, path: str) -> str:
    value: Any = thing
    for word in path.split("."):
        value = value.get(word, "") if isinstance(value, dict) else ""
    return str(value)


def _field(term: str) -> Test:
    found = EQUALS.fullmatch(term)
    if not found:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    path, sign, value = found.groups()
    return lambda thing: (_at(dict(thing), path) == value) == (sign != "!=")


def matching(labels: str = "", fields: str = "") -> Callable[[Object], bool]:
    """Return whether an object is one of those that two selectors mean. Raises KubeError."""
    of_labels = [_label(term) for term in _terms(labels)]
    of_fields = [_field(term) for term in _terms(fields)]

    def matches(thing: Object) -> bool:
        held = thing["metadata"].get("labels") or {}
        return all(test(held) for test in of_labels) and all(test(thing) for test in of_fields)

    return matches


def selects(selector: Mapping[str, str], thing: Object) -> bool:
    """Return whether a Service's selector means an object; an empty one means none."""
    labels = thing["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())
