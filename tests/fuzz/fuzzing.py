# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inputs that are nearly right, and what must come of each: a result or an error in one line, soon."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WHOLE = 50_000
INPUTS = int(os.environ.get("FLUX_BURST_FUZZ_INPUTS", "2000"))
"""How many inputs all properties get together; `make fuzz` gives WHOLE."""
CPU_SECONDS, SECONDS = 5.0, 60.0
"""What one input may take, of this process's time and of a machine that has other work."""

DEEP = {"@DEEP@": 30, "@DEEPER@": 1500, "@DEEPEST@": 100_000}
"""Texts that stand for so many lists in lists, which Python cannot copy."""
RAW = {"@NAN@": "NaN", "@HUGE@": "1e999", "@DIGITS@": "9" * 5000, "@INFINITY@": "-Infinity"}
"""Texts that stand for what Python's JSON takes for numbers."""
ODD = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 1.5, -0.0, 1e308, 1e-320),
    *(
        "",
        " ",
        "x",
        "0",
        "-",
        "1-",
        "-1",
        "3-1",
        "0-999999999999",
        "1,2,,3",
        "[",
        "]",
        "[1-2",
        "a,",
    ),
    *(
        "a[1-999999999]",
        "a[1-2]b[3-4]",
        "\x1b[2J",
        "\x9b31m",
        "\u202eevil",
        "a\nb",
        "a\0b",
        "\ud800",
    ),
    *(
        "{{ 7 * 7 }}",
        "{% for x in range(9**9) %}{% endfor %}",
        "../../etc/shadow",
        "~nobody-here/x",
    ),
    *(
        "²",
        "٣",
        "9" * 5000,
        "x" * 70_000,
        "2026-13-45T99:99:99Z",
        "2026-11-26T00:00:00",
        "10.0.0.0/33",
    ),
    *([], {}, [[]], {"a": {}}, [None], {"": ""}, [1, "a", {}]),
    *DEEP,
    *RAW,
)
KEYS = st.sampled_from(
    ["", "id", "name", "type", "items", "data", "x", "a\nb", "\x1b", "__class__"]
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a JSON value, as its container and the key or index there."""
    found = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        keys = each.keys() if isinstance(each, dict) else range(len(each))
        found += [(each, key) for key in keys]
        waiting += [each[key] for key in keys if isinstance(each[key], (dict, list))]
    return found


@st.composite
def changed(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A JSON value with a few changes: something odd in a place, or a place missing, doubled, renamed or moved."""
    whole = [deepcopy(value)]
    for _unused in range(draw(st.integers(0, most))):
        there = places(whole)
        container, key = there[draw(st.integers(0, len(there) - 1))]
        how = draw(st.sampled_from(["odd", "odd", "odd", "text", "gone", "more", "key", "moved"]))
        if how == "odd":
            container[key] = deepcopy(draw(st.sampled_from(ODD)))
        elif how == "text":
            container[key] = draw(st.text(max_size=12))
        elif how == "moved":
            other, place = there[draw(st.integers(0, len(there) - 1))]
            container[key] = deepcopy(other[place])
        elif container is whole:
            continue
        elif how == "gone":
            del container[key]
        elif how == "more" and isinstance(container, list):
            container += [deepcopy(container[key])] * draw(st.integers(1, 30))
        elif how == "key" and isinstance(container, dict):
            container[draw(KEYS)] = container.pop(key)
    return whole[0]


@st.composite
def changed_json(draw: st.DrawFn, value: Any, most: int = 3) -> str:
    """The JSON text of such a value; now and then it is cut short."""
    text = json.dumps(draw(changed(value, most)))
    for word, depth in DEEP.items():
        text = text.replace(f'"{word}"', "[" * depth + "]" * depth)
    for word, raw in RAW.items():
        text = text.replace(f'"{word}"', raw)
    cut = draw(st.integers(0, 200))
    return text[: -cut or None] if cut < 5 else text


def loaded(text: str) -> Any:
    """Return what a JSON text says, None where it says nothing that Python can hold."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class Hung(BaseException):
    """No Exception: nothing that is tried takes it for one of its own."""


@contextmanager
def soon() -> Iterator[None]:
    """Raise Hung where what is done takes longer than one input may."""

    def late(_number: int, _frame: FrameType | None) -> None:
        raise Hung(f"not done after {CPU_SECONDS:g} s of this process")

    old = [signal.signal(number, late) for number in (signal.SIGVTALRM, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGVTALRM, signal.SIGALRM), old, strict=True):
            signal.signal(number, handler)


def told(error: BaseException) -> None:
    """See that an error is a line that a terminal can show."""
    text = str(error)
    assert text.strip(), f"{type(error).__name__} says nothing"
    assert text.isprintable(), f"not one line of printable text: {text!r}"
    assert len(text) < 5000, f"{len(text)} characters: {text[:200]}..."


def survives(call: Callable[[], Any], *errors: type[Exception]) -> Any:
    """Return what a call returns, None where it raises an error of its own, in one line; it must do either soon."""
    with soon():
        try:
            return call()
        except errors as error:
            told(error)
            return None


def fuzzed(share: float, **inputs: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test on its share of all inputs, and count them.

    A sample is the same each time; the whole is another one each time, and Hypothesis says how to repeat what failed.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        count = [0]

        def counted(*args: Any, **kwargs: Any) -> None:
            count[0] += 1
            test(*args, **kwargs)

        counted.__name__ = counted.__qualname__ = test.__name__
        run = settings(
            max_examples=max(round(INPUTS * share), 1),
            deadline=None,
            database=None,
            derandomize=INPUTS < WHOLE,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )(given(**inputs)(counted))

        def whole(record_property: pytest.RecordProperty) -> None:
            run()
            record_property("inputs", count[0])

        whole.__name__ = test.__name__
        whole.__doc__ = test.__doc__
        return whole

    return decorate
