# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostlists (Flux RFC 29), idsets (RFC 22) and job ids (RFC 19)."""

from __future__ import annotations

import re
from collections.abc import Iterable

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
NUMBERED = re.compile(r"(.*?)(\d+)")


def ids(text: str) -> list[int]:
    """Return the numbers of an idset."""
    found: list[int] = []
    for part in filter(None, text.strip("[]").split(",")):
        first, _unused, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def idset(numbers: Iterable[int]) -> str:
    """Return numbers as an idset."""
    return ",".join(_ranges([(number, str(number)) for number in sorted(set(numbers))]))


def _ranges(numbers: list[tuple[int, str]]) -> list[str]:
    """Return ascending numbers, each with its text, as ranges."""
    made: list[tuple[str, str, int]] = []
    for number, text in numbers:
        if made and made[-1][2] + 1 == number and len(made[-1][1]) <= len(text):
            made[-1] = (made[-1][0], text, number)
        else:
            made.append((text, text, number))
    return [first if first == last else f"{first}-{last}" for first, last, _unused in made]


def expand(text: str) -> list[str]:
    """Return the names of a hostlist, in order."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        found = re.fullmatch(r"([^\[]*)\[([^\]]+)\](.*)", part)
        if not found:
            names.append(part)
            continue
        head, numbers, tail = found.groups()
        for one in numbers.split(","):
            first, _unused, last = one.partition("-")
            for number in range(int(first), int(last or first) + 1):
                names.append(f"{head}{number:0{len(first)}}{tail}")
    return names


def fold(names: Iterable[str]) -> str:
    """Return names as one hostlist, in order."""
    groups: list[tuple[str, list[tuple[int, str]]]] = []
    for name in names:
        found = NUMBERED.fullmatch(name)
        head, digits = (found[1], found[2]) if found else (name, "")
        if digits and groups and groups[-1][0] == head and groups[-1][1]:
            groups[-1][1].append((int(digits), digits))
        else:
            groups.append((head, [(int(digits), digits)] if digits else []))
    made = []
    for head, numbers in groups:
        ranges = _ranges(numbers)
        text = ",".join(ranges)
        made.append(f"{head}[{text}]" if len(numbers) > 1 else f"{head}{text}")
    return ",".join(made)


def f58(number: int) -> str:
    """Return a job id in base 58."""
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return f"f{digits or BASE58[0]}"


def job_id(text: str) -> int:
    """Return a job id from its base 58 or decimal form. Raises ValueError."""
    if text[:1] not in ("f", "ƒ"):
        return int(text)
    number = 0
    for digit in text[1:]:
        number = number * 58 + BASE58.index(digit)
    return number
