# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of this collection, and the one place where they become a module's failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

LONGEST = 4000
"""Characters of a line of a message: what others wrote and it quotes may be longer."""


def printable(text: str, most: int = 0) -> str:
    """Return a text in one line and without characters that a terminal acts on, those as escapes such as \\x1b.

    What is longer than `most` characters is cut there, 0 for no limit.
    """
    if most and len(text) > most:
        text = f"{text[: most - 3]}..."
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


class BurstError(Exception):
    """What was wanted, what was found, where, and what to do next, in one line for each thing that is wrong.

    `facts` are further return values of a module that fails with it.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        # What others wrote may be in it: a terminal must not be told what to do by a line break or an escape.
        super().__init__("\n".join(printable(line, LONGEST) for line in message.split("\n")))
        self.facts = facts


class GceError(BurstError):
    """Compute Engine refused or did not answer.

    `status` is the HTTP status, 0 without one; `codes` are Google's own words for what went wrong, such as
    ZONE_RESOURCE_POOL_EXHAUSTED or alreadyExists, in the order in which it tells them, and `said` what it says of them.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        codes: tuple[str, ...] = (),
        said: str = "",
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.status = status
        self.codes, self.said = codes, said


class FluxError(BurstError):
    """Flux refused or did not answer. `errno` is Flux's own, 0 without one."""

    def __init__(self, message: str, *, errno: int = 0, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.errno = errno


class SpecError(BurstError):
    """The specification or an argument is not right."""


class Failing(Protocol):
    """The part of AnsibleModule that is used here."""

    def fail_json(self, msg: str, **facts: Any) -> Any:
        """End the module with a failure."""


@contextmanager
def failing_module(module: Failing) -> Iterator[None]:
    """Turn a BurstError into the module's failure, and nothing else: a defect keeps its traceback."""
    try:
        yield
    except BurstError as error:
        module.fail_json(msg=str(error), **error.facts)
