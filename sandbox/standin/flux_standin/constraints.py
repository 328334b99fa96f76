# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Constraints on jobs (RFC 43) as job-list takes them, refused with its words."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable
from typing import Any

from . import lists
from .local import fail

STATES = {
    "depend": 2,
    "priority": 4,
    "sched": 8,
    "run": 16,
    "cleanup": 32,
    "inactive": 64,
    "pending": 2 | 4 | 8,
    "running": 16 | 32,
    "active": 2 | 4 | 8 | 16 | 32,
}
RESULTS = {"completed": 1, "failed": 2, "canceled": 4, "timeout": 8}
TIMES = ("t_submit", "t_depend", "t_run", "t_cleanup", "t_inactive")
COMPARED = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
ANYBODY = -1

Row = dict[str, Any]
Test = Callable[[Row], bool]


def _refuse(text: str) -> OSError:
    return fail(errno.EPROTO, f"invalid payload: constraint object invalid: {text}")


def compiled(constraint: Any) -> Test:
    """Return what tells whether a job's whole entry of job-list is meant. Raises OSError."""
    if not isinstance(constraint, dict):
        raise _refuse("constraint must be JSON object")
    if len(constraint) > 1:
        raise _refuse("constraint must only contain 1 element")
    for name, values in constraint.items():
        make = TESTS.get(name)
        if make is None:
            raise _refuse(f"unknown constraint operator: {name}")
        if not isinstance(values, list):
            raise _refuse(f"operator {name} values not an array")
        return make(name, values)
    return lambda row: True


def _combined(name: str, values: list[Any]) -> Test:
    tests = [compiled(each) for each in values]
    if name == "or":
        return lambda row: not tests or any(test(row) for test in tests)
    if name == "and":
        return lambda row: all(test(row) for test in tests)
    return lambda row: not all(test(row) for test in tests)


def _bits(name: str, values: list[Any]) -> Test:
    known, key = (STATES, "state") if name == "states" else (RESULTS, "result")
    bits = 0
    for value in values:
        bit = value if isinstance(value, int) else known.get(str(value).lower())
        if bit is None:
            raise _refuse(f"invalid {name} value '{value}' specified")
        bits |= bit
    return lambda row: bool(row.get(key, 0) & bits)


def _texts(name: str, values: list[Any]) -> Test:
    if not all(isinstance(value, str) for value in values):
        raise _refuse(f"{name} value must be a string")
    return lambda row: row.get(name) in values


def _users(name: str, values: list[Any]) -> Test:
    if not all(isinstance(value, int) for value in values):
        raise _refuse(f"{name} value must be an integer")
    return lambda row: ANYBODY in values or row["userid"] in values


def _hosts(name: str, values: list[Any]) -> Test:
    hosts = lists.expand(",".join(values))
    if any("[" in host for host in hosts):
        raise _refuse("host value not in valid Hostlist format")
    return lambda row: bool({*lists.expand(row.get("nodelist", ""))} & {*hosts})


def _ranks(name: str, values: list[Any]) -> Test:
    ranks: set[int] = set()
    for value in values:
        try:
            ranks.update(lists.ids(value))
        except ValueError:
            raise _refuse(f"ranks value '{value}': error parsing range '{value}'") from None
    return lambda row: bool({*lists.ids(row.get("ranks", ""))} & ranks)


def _time(name: str, values: list[Any]) -> Test:
    if not values:
        raise _refuse("timestamp value not specified")
    if not isinstance(values[0], str):
        raise _refuse(f"{name} value must be a string")
    sign = next((sign for sign in COMPARED if values[0].startswith(sign)), None)
    if sign is None:
        raise _refuse("timestamp comparison operator not specified")
    try:
        limit = float(values[0][len(sign) :])
    except ValueError:
        raise _refuse("Invalid timestamp value specified") from None
    return lambda row: name in row and bool(COMPARED[sign](row[name], limit))


TESTS: dict[str, Callable[[str, list[Any]], Test]] = {
    **dict.fromkeys(("and", "or", "not"), _combined),
    **dict.fromkeys(("states", "results"), _bits),
    **dict.fromkeys(("name", "queue"), _texts),
    **dict.fromkeys(TIMES, _time),
    "userid": _users,
    "hostlist": _hosts,
    "ranks": _ranks,
}
