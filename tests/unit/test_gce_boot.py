# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine has booted when it has published its host keys; one that does not is named with its last words."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_boot
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

KEYS = {"ssh-ed25519": "AAAA"}


class Session:
    """Has host keys after so many looks, and a console."""

    def __init__(self, looks: int, console: list[str] | None = None) -> None:
        self.looks, self.console, self.asked = looks, console, 0

    def host_keys(self, project: str, zone: str, instance: str) -> dict[str, str]:
        self.asked += 1
        return KEYS if self.asked > self.looks else {}

    def serial_lines(self, project: str, zone: str, instance: str, count: int) -> list[str]:
        if self.console is None:
            raise GceError("HTTP 403 (Required 'compute.instances.x' permission)", status=403)
        return self.console[-count:]


def read(session: Any, timeout: float) -> dict[str, str]:
    """Wait for the keys of a machine."""
    return _gce_boot.host_keys(session, "p", "z", "b-002", timeout)


def test_a_machine_that_has_booted_is_asked_once() -> None:
    session = Session(0)
    assert read(session, 0) == KEYS
    assert session.asked == 1


def test_a_machine_that_boots_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(_gce_boot.time, "sleep", slept.append)
    assert read(Session(9), 60) == KEYS
    assert slept[0] == _gce_boot.SHORT
    assert slept[-1] == _gce_boot.LONG
    assert slept == sorted(slept)


@pytest.mark.parametrize(
    ("console", "said"),
    [
        (["a", "b", "c", "Kernel panic"], "console: b | c | Kernel panic"),
        ([], "console: empty"),
        (None, "console: unreadable, HTTP 403, compute.instances.x is missing"),
    ],
)
def test_a_machine_that_does_not_boot_is_named_with_its_last_words(
    console: list[str] | None, said: str
) -> None:
    with pytest.raises(GceError, match="stage boot: wanted the SSH host keys of b-002") as caught:
        read(Session(1, console), 0)
    assert said in str(caught.value)
    assert caught.value.facts["stage"] == "boot"
