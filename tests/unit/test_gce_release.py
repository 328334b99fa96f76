# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in use is asked for again until it is free, somebody means to stay, or time is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._changes import Change
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_release import (
    IN_USE,
    PAUSE,
    RELEASE_SECONDS,
    delete_all,
)


def going(kind: str, name: str, region: str = "") -> Change:
    return Change(kind, name, "delete", {"name": name, "region": region}, {})


ROUTER, ADDRESS = going("router", "t-router", "r1"), going("address", "t-nat-1", "r1")
NETWORK = going("network", "t-net")


class Client:
    """Deletes, but for the answers and operations that shall fail: (name, code) each, first ones first."""

    def __init__(
        self, refused: Sequence[tuple[str, str]] = (), failing: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.refused, self.failing = list(refused), list(failing)
        self.calls: list[tuple[str, str, str]] = []
        self.gone: list[str] = []
        self.now = 0.0

    def delete(self, kind: str, name: str, **place: str) -> Any:
        self.calls.append((kind, name, place.get("region", "")))
        self._raise(self.refused, name)
        return None if name == "gone" else name

    def wait(self, started: Any) -> None:
        self._raise(self.failing, started)
        self.gone.append(started)

    @staticmethod
    def _raise(script: list[tuple[str, str]], name: str) -> None:
        for entry in script:
            if entry[0] == name:
                script.remove(entry)
                raise GceError(f"{name} {entry[1]}", codes=(entry[1],))

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(client: Client, *changes: Change, occupied: bool = False) -> list[str]:
    refused = delete_all(
        client, changes, lambda: occupied, clock=lambda: client.now, sleep=client.sleep
    )
    return [change.name for change, _unused in refused]


def test_all_of_it_is_deleted_at_once_where_nothing_uses_it() -> None:
    client = Client()
    assert run(client, ROUTER, ADDRESS, NETWORK) == []
    assert client.calls == [
        ("router", "t-router", "r1"),
        ("address", "t-nat-1", "r1"),
        ("network", "t-net", ""),
    ]
    assert client.now == 0.0


@pytest.mark.parametrize("code", IN_USE)
@pytest.mark.parametrize("late", [False, True])
def test_only_what_was_in_use_is_asked_for_again(code: str, late: bool) -> None:
    script = [("t-nat-1", code), ("t-nat-1", code)]
    client = Client(failing=script) if late else Client(refused=script)
    assert run(client, ADDRESS, NETWORK) == []
    assert sorted(client.gone) == ["t-nat-1", "t-net"]
    assert [name for _kind, name, _region in client.calls].count("t-net") == 1
    assert client.now == 2 * PAUSE


def test_what_is_gone_already_is_not_waited_for() -> None:
    client = Client()
    assert run(client, going("network", "gone")) == []
    assert client.gone == []


def test_it_gives_up_when_time_is_over_and_says_what_is_left() -> None:
    client = Client(refused=[("t-net", IN_USE[0])] * 1000)
    assert run(client, NETWORK, ROUTER) == ["t-net"]
    assert RELEASE_SECONDS < client.now <= RELEASE_SECONDS + PAUSE
    assert client.gone == ["t-router"]


def test_it_gives_up_at_once_where_somebody_means_to_stay() -> None:
    client = Client(refused=[("t-net", IN_USE[0])] * 2)
    assert run(client, NETWORK, occupied=True) == ["t-net"]
    assert client.now == 0.0


@pytest.mark.parametrize("late", [False, True])
def test_every_other_failure_is_raised(late: bool) -> None:
    script = [("t-net", "forbidden")]
    with pytest.raises(GceError, match="forbidden"):
        run(Client(failing=script) if late else Client(refused=script), NETWORK)
