# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service answers, compared with the shape that its reference gives it, before anything reads it.

A shape is a type; a tuple of shapes of which one must fit; a list of one shape, which all elements have; a mapping of
shapes by key, where a key that ends with "?" may be missing and keys that are not named are not looked at; an Each, or
a Readable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import printable

NUMBER = (int, float)
WORDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
LONGEST = 40
"""Characters of a key or a value that are told."""


class Each:
    """An object of any keys, whose values all have one shape."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


class Readable:
    """A value of one type that a function can read, which raises ValueError for others; words say what it is."""

    def __init__(self, kind: type, read: Callable[[Any], object], words: str) -> None:
        self.kind, self.read, self.words = kind, read, words


def misfit(value: Any, shape: Any, where: str) -> str:
    """Return the first thing that is not as a shape says, "" where all is; where is what the value is called."""
    if isinstance(shape, tuple):
        said = [misfit(value, each, where) for each in shape]
        return said[0] if all(said) else ""
    if isinstance(shape, Readable):
        return misfit(value, shape.kind, where) or _unread(value, shape, where)
    kind = shape if isinstance(shape, type) else list if isinstance(shape, list) else dict
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return f"{where} is {WORDS[type(value)]}, and not {WORDS[kind]}"
    if isinstance(shape, type):
        return _extreme(value, where)
    parts = _parts(value, shape, where)
    return next(filter(None, (misfit(each, inner, name) for each, inner, name in parts)), "")


def _parts(value: Any, shape: Any, where: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield what is in a list or an object, with its shape and what it is called; what is missing is null."""
    if isinstance(shape, list):
        for place, each in enumerate(value):
            yield each, shape[0], f"{where}[{place}]"
    elif isinstance(shape, Each):
        for key, each in value.items():
            yield each, shape.shape, f"{where}.{printable(key, LONGEST)}"
    else:
        for name, inner in shape.items():
            key = name.rstrip("?")
            if key in value or key == name:
                yield value.get(key), inner, f"{where}.{key}"


def _unread(value: Any, shape: Readable, where: str) -> str:
    try:
        shape.read(value)
    except (ValueError, OverflowError):
        return f"{where} is {repr(value)[:LONGEST]}, and not {shape.words}"
    return ""


def _extreme(value: Any, where: str) -> str:
    """Return how a number is one that no service has: with it nobody can reckon."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where} is {value}"
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return f"{where} has more than 64 bits"
    return ""
