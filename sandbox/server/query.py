# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a list request asks for: filter, order, page and partial response."""

from __future__ import annotations

import base64
import contextlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sandbox.server.errors import ApiError

Resource = Mapping[str, Any]
Test = Callable[[Resource], bool]
Mask = dict[str, Any]
Item = TypeVar("Item")

TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|(?P<mark>\(|\)|!=|<=|>=|=|<|>|:)|(?P<word>[^\s()=<>!:"']+))"""
)
COMPARATORS = {"=", "!=", "<", "<=", ">", ">=", ":", "eq", "ne"}
ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
PAGE_LIMIT = 500


def _bad(what: str) -> ApiError:
    return ApiError(
        400,
        "invalid",
        f"Invalid value for field 'filter': '{what}'. Invalid list filter expression.",
    )


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        if match is None:
            raise _bad(text)
        kind = str(match.lastgroup)
        value = match[kind]
        found.append(
            (kind, re.sub(r"\\([\"'])", r"\1", value[1:-1]) if kind == "string" else value)
        )
        at = match.end()
    return found


def values_at(resource: object, path: Sequence[str]) -> list[Any]:
    """Return the scalars at a dotted path, through lists; a key may itself have dots."""
    if isinstance(resource, list):
        return [value for element in resource for value in values_at(element, path)]
    if not path:
        return [resource]
    if not isinstance(resource, Mapping):
        return []
    for length in range(len(path), 0, -1):
        key = ".".join(path[:length])
        if key in resource:
            return values_at(resource[key], path[length:])
    return []


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(left: object, right: str, comparator: str) -> bool:
    low: Any = _text(left)
    high: Any = right
    with contextlib.suppress(ValueError):
        low, high = float(low), float(high)
    return bool(ORDERINGS[comparator](low, high))


def _pattern(comparator: str, value: str) -> re.Pattern[str]:
    try:
        if comparator in ("eq", "ne"):
            return re.compile(f"(?:{value})\\Z", re.DOTALL)
    except re.error:
        raise _bad(value) from None
    words = ".*".join(re.escape(part) for part in value.split("*"))
    return re.compile(f".*(?:{words})" if comparator == ":" else f"(?:{words})\\Z", re.S | re.I)


def _comparison(field: str, comparator: str, value: str) -> Test:
    path = field.split(".")
    if comparator in ORDERINGS:
        return lambda it: any(_ordered(v, value, comparator) for v in values_at(it, path))
    if comparator == ":" and value == "*":
        return lambda it: bool(values_at(it, path))
    pattern = _pattern(comparator, value)
    if comparator in ("!=", "ne"):
        return lambda it: not any(pattern.match(_text(v)) for v in values_at(it, path))
    return lambda it: any(pattern.match(_text(v)) for v in values_at(it, path))


class _Parser:
    """expression = factor (OR factor)...; factor = terms joined by AND or nothing."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at = text, _tokens(text), 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def either(self) -> Test:
        tests = [self.both()]
        while self.peek() == ("word", "OR"):
            self.take()
            tests.append(self.both())
        return tests[0] if len(tests) == 1 else lambda it: any(test(it) for test in tests)

    def both(self) -> Test:
        tests = [self.term()]
        while self.peek()[0] != "end" and self.peek() not in (("word", "OR"), ("mark", ")")):
            if self.peek() == ("word", "AND"):
                self.take()
            tests.append(self.term())
        return tests[0] if len(tests) == 1 else lambda it: all(test(it) for test in tests)

    def term(self) -> Test:
        kind, value = self.take()
        if (kind, value) == ("word", "NOT") or (kind, value) == ("word", "-"):
            test = self.term()
            return lambda it: not test(it)
        if (kind, value) == ("mark", "("):
            inner = self.either()
            if self.take() != ("mark", ")"):
                raise _bad(self.text)
            return inner
        comparator = self.take()[1]
        kind_right, right = self.take()
        if kind == "mark" or comparator not in COMPARATORS or kind_right not in ("word", "string"):
            raise _bad(self.text)
        return self._joined(value, comparator, right, kind_right)

    def _joined(self, field: str, comparator: str, right: str, kind: str) -> Test:
        # A bare value may hold colons and equal signs, as in a URL or a time.
        while kind == "word" and self.peek() == ("mark", ":"):
            right += self.take()[1] + self.take()[1]
        if field.startswith("-"):
            test = _comparison(field[1:], comparator, right)
            return lambda it: not test(it)
        return _comparison(field, comparator, right)


def compile_filter(text: str) -> Test:
    """Return a test for a filter expression (AIP-160, or the older `field eq regex`). Raises ApiError."""
    if not text.strip():
        return lambda it: True
    parser = _Parser(text)
    test = parser.either()
    if parser.peek()[0] != "end":
        raise _bad(text)
    return test


def order(resources: list[Item], order_by: str, key: Callable[[Item], Resource]) -> list[Item]:
    """Return them ordered by name, or by creationTimestamp desc. Raises ApiError for other orders."""
    if order_by in ("", "name"):
        return sorted(resources, key=lambda it: str(key(it).get("name", "")))
    if order_by == "creationTimestamp desc":
        return sorted(
            resources, key=lambda it: str(key(it).get("creationTimestamp", "")), reverse=True
        )
    raise ApiError(
        400,
        "invalid",
        f"Invalid value for field 'orderBy': '{order_by}'. Invalid field name in the order by clause.",
    )


def page(
    items: Sequence[Item], query: Mapping[str, str], test: Callable[[Item], bool]
) -> tuple[list[Item], str]:
    """Return one page of the items that pass a test, by maxResults and pageToken, and the next page's token or "".

    The items are ordered. A page looks at no more of them than it needs: there may be thousands. Raises ApiError.
    """
    try:
        size = int(query.get("maxResults", PAGE_LIMIT))
        token = query.get("pageToken", "")
        start = int(base64.urlsafe_b64decode(token).decode()) if token else 0
    except ValueError:
        raise ApiError(
            400, "invalid", "Invalid value for field 'pageToken' or 'maxResults'."
        ) from None
    if not 0 <= size <= PAGE_LIMIT:
        raise ApiError(
            400,
            "invalid",
            f"Invalid value for field 'maxResults': '{size}'. Must be within 0 and {PAGE_LIMIT}.",
        )
    found: list[Item] = []
    for index in range(start, len(items)):
        if not test(items[index]):
            continue
        if len(found) == (size or PAGE_LIMIT):
            return found, base64.urlsafe_b64encode(str(index).encode()).decode()
        found.append(items[index])
    return found, ""


def parse_fields(text: str) -> Mask:
    """Return the tree of a `fields` selector: `a,b(c,d/e)` -> {a: {}, b: {c: {}, d: {e: {}}}}."""
    marks = re.findall(r"[(),/]|[^(),/\s]+", text)
    at = 0

    def group() -> Mask:
        nonlocal at
        mask: Mask = {}
        while at < len(marks) and marks[at] != ")":
            node = mask
            while True:
                if marks[at] in "(),/":
                    raise _bad_fields(text)
                node = node.setdefault(marks[at], {})
                at += 1
                if at < len(marks) and marks[at] == "/":
                    at += 1
                    if at == len(marks):
                        raise _bad_fields(text)
                    continue
                break
            if at < len(marks) and marks[at] == "(":
                at += 1
                node.update(group())
                if at == len(marks):
                    raise _bad_fields(text)
                at += 1
            if at < len(marks) and marks[at] == ",":
                at += 1
        return mask

    mask = group()
    if at != len(marks):
        raise _bad_fields(text)
    return mask


def _bad_fields(text: str) -> ApiError:
    return ApiError(400, "invalidParameter", f"Invalid field selection {text}")


def select(value: Any, mask: Mask) -> Any:
    """Return the part of a JSON value that a mask names; `*` names every key."""
    if not mask:
        return value
    if isinstance(value, list):
        return [select(element, mask) for element in value]
    if not isinstance(value, dict):
        return value
    return {
        key: select(inner, mask[key] if key in mask else mask["*"])
        for key, inner in value.items()
        if key in mask or "*" in mask
    }
