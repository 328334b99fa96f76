# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: calls that are told to fail, as Compute Engine fails them, set by POST /sandbox/faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from sandbox.server.errors import ApiError, OperationError, invalid, required
from sandbox.server.state import Resource

MOMENTS = ("request", "answer", "operation", "hang", "warning")
REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    409: "alreadyExists",
    412: "conditionNotMet",
    429: "rateLimitExceeded",
    500: "internalError",
}
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "str": (str,),
    "list[Resource]": (list,),
}


class Dropped(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class Rule:
    """Which calls fail, when in their life, and how; the JSON of a rule has these keys.

    method is a method's id or a pattern of ids ("instances.insert", "instances.*", "*"); scope
    ("zones/us-central1-a") and contains (a text in the path or the body) narrow it down. The first
    `after` calls pass, and then `times` calls fail, or all.

    at says when: "request" before anything is done; "answer" when all is done and only the answer is
    lost; "operation" in the operation that the call began; "hang" in an operation that is not done
    until the rules are replaced, or for `seconds`; "warning" in an operation that succeeds.

    status is the HTTP status, 0 for a connection that is closed; code and message are Google's;
    `more` are further entries of an operation's error; `seconds` pass first; retry_after is what the
    answer asks for. Of a bulkInsert fail_count machines fail, 0 being all.
    """

    method: str
    at: str
    scope: str = ""
    contains: str = ""
    status: int = 503
    code: str = ""
    message: str = "The sandbox was told to fail here"
    more: list[Resource] = field(default_factory=list)
    times: int | None = None
    after: int = 0
    seconds: float = 0.0
    retry_after: int = 0
    fail_count: int = 0
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)
    replaced: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def matches(self, method: str, scope: str, request: str, body: Resource) -> bool:
        """Return whether a call is meant."""
        return (
            fnmatchcase(method, self.method)
            and self.scope in ("", scope)
            and (self.contains in request or self.contains in json.dumps(body))
        )

    def fires(self) -> bool:
        """Count one call that is meant, and return whether it fails."""
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.fired >= self.times):
            return False
        self.fired += 1
        return True

    def error(self) -> ApiError | Dropped:
        """Return how a request fails."""
        if self.status == 0:
            return Dropped()
        reason = self.code or REASONS.get(self.status, "backendError")
        return ApiError(self.status, reason, self.message, self.retry_after)

    def warning(self) -> Resource:
        """Return the entry among an operation's warnings."""
        return {"code": self.code or "DEPRECATED_RESOURCE_USED", "message": self.message}

    async def strike(self) -> None:
        """Let an operation fail or hang. Raises OperationError."""
        if self.at == "hang":
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.replaced.wait(), self.seconds or None)
            return
        await asyncio.sleep(self.seconds)
        code = self.code or "INTERNAL_ERROR"
        raise OperationError(code, self.message, self.status, self.more)

    def shown(self) -> Resource:
        """Return the rule as JSON, with how many calls it saw and how many it let fail."""
        names = [each.name for each in fields(self) if each.name != "replaced"]
        return {name: getattr(self, name) for name in names}


class Faults:
    """The rules that hold now."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def replace(self, body: Any, methods: Collection[str]) -> None:
        """Hold these rules instead, {"faults": [...]}; what hangs goes on. Raises ApiError."""
        given = body.get("faults") if isinstance(body, dict) else None
        if not isinstance(given, list):
            raise required("faults")
        rules = [_rule(f"faults[{place}]", each, methods) for place, each in enumerate(given)]
        for rule in self._rules:
            rule.replaced.set()
        self._rules = rules

    def take(
        self, moments: Sequence[str], method: str, scope: str, request: str, body: Resource
    ) -> Rule | None:
        """Return the first rule for one of these moments that lets this call fail."""
        for rule in self._rules:
            meant = rule.at in moments and rule.matches(method, scope, request, body)
            if meant and rule.fires():
                return rule
        return None

    def shown(self) -> Resource:
        """Return the rules as JSON."""
        return {"faults": [rule.shown() for rule in self._rules]}


def _rule(where: str, given: Any, methods: Collection[str]) -> Rule:
    if not isinstance(given, Mapping):
        raise invalid(where, given, "Must be an object.")
    known = {each.name: str(each.type) for each in fields(Rule) if each.init}
    for name, value in given.items():
        if name not in known:
            raise invalid(where, name, f"Must be one of {', '.join(known)}.")
        if not isinstance(value, TYPES[known[name]]) or isinstance(value, bool):
            raise invalid(f"{where}.{name}", value, f"Must be of type {known[name]}.")
        if isinstance(value, int | float) and value < 0:
            raise invalid(f"{where}.{name}", value, "Must not be negative.")
    for name in ("method", "at"):
        if name not in given:
            raise required(f"{where}.{name}")
    rule = Rule(**given)
    if rule.at not in MOMENTS:
        raise invalid(f"{where}.at", rule.at, f"Must be one of {', '.join(MOMENTS)}.")
    if not any(fnmatchcase(method, rule.method) for method in methods):
        raise invalid(f"{where}.method", rule.method, "The sandbox serves no such method.")
    _check_status(where, rule)
    return rule


def _check_status(where: str, rule: Rule) -> None:
    lowest = "0 or " if rule.at in ("request", "answer") else ""
    if not (400 <= rule.status <= 599 or (lowest and rule.status == 0)):
        raise invalid(f"{where}.status", rule.status, f"Must be {lowest}within 400 and 599.")
