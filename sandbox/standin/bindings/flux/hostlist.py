# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostlists as flux.hostlist has them."""

from __future__ import annotations

from collections.abc import Iterable

from flux_standin.lists import expand, fold


def decode(text: str) -> list[str]:
    """Return the names of a hostlist."""
    names: list[str] = expand(text)
    return names


class Hostlist:
    """A list of names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)

    def encode(self) -> str:
        """Return the names as one hostlist."""
        text: str = fold(self._names)
        return text
