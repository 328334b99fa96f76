# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An answer of Compute Engine that is older than the machines is not taken for them."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_creation
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_place import Place
from test_gce_instances import HOSTS, PARAMS

NEW, NEW_FAILS = (False, True), (False, False)
OLD, OLD_FAILED = (True, True), (True, False)


class Started:
    """A creation that was answered."""

    def __init__(self, repeated: bool) -> None:
        self.repeated = repeated


class Cloud:
    """Answers each bulk request with the next of the given outcomes: (repeated, succeeds)."""

    def __init__(self, *outcomes: tuple[bool, bool], code: str = "INTERNAL_ERROR") -> None:
        self.outcomes, self.code = list(outcomes), code
        self.there: set[str] = set()
        self.requests: list[tuple[str, str]] = []

    def bulk_insert(self, body: dict[str, Any], request_id: str, zone: str) -> Started:
        self.requests.append((zone, request_id))
        return Started(self.outcomes[0][0])

    def wait(self, started: Started) -> None:
        repeated, succeeds = self.outcomes.pop(0)
        if not succeeds:
            raise GceError(f"found {self.code}", codes=(self.code,))
        if not repeated:
            self.there = set(HOSTS)

    def create(self, *zones: str) -> list[str]:
        """Create machines in the first of these zones that has them."""
        creation = _gce_creation.Creation(PARAMS, self)  # type: ignore[arg-type]
        creation.places = [Place("n2-standard-4", zone) for zone in zones or ("a",)]
        return creation.create(self, HOSTS, [], lambda: self.there)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcomes", "requests"),
    [([NEW], 1), ([OLD, NEW], 2), ([OLD_FAILED, NEW], 2), ([OLD, OLD_FAILED, NEW], 3)],
)
def test_an_old_answer_is_not_taken_for_machines(
    outcomes: list[tuple[bool, bool]], requests: int
) -> None:
    """For an hour Compute Engine answers a known requestId with the old operation, failed or not."""
    cloud = Cloud(*outcomes)
    assert cloud.create() == []
    assert cloud.there == set(HOSTS)
    assert len(cloud.requests) == len(set(cloud.requests)) == requests


@pytest.mark.parametrize(("outcomes", "requests"), [([NEW_FAILS], 1), ([OLD_FAILED, NEW_FAILS], 2)])
def test_a_creation_that_fails_now_is_not_tried_again(
    outcomes: list[tuple[bool, bool]], requests: int
) -> None:
    cloud = Cloud(*outcomes)
    with pytest.raises(GceError, match="INTERNAL_ERROR") as caught:
        cloud.create("a", "b")
    assert len(cloud.requests) == requests
    assert caught.value.facts["attempts"][0]["codes"] == ["INTERNAL_ERROR"]


def test_a_request_in_another_zone_has_another_id() -> None:
    cloud = Cloud(NEW_FAILS, NEW, code="STOCKOUT")
    assert cloud.create("a", "b") == []
    assert [zone for zone, _unused in cloud.requests] == ["a", "b"]
    assert len({request for _unused, request in cloud.requests}) == 2


def test_machines_that_vanish_each_time_are_told() -> None:
    cloud = Cloud(*[OLD] * _gce_creation.REPEATS)
    with pytest.raises(GceError, match=f"found them gone {_gce_creation.REPEATS} times"):
        cloud.create()
