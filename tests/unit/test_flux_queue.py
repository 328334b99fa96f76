# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as real Flux 0.88 lists them become rows that a plan can read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _flux_queue


def jobspec(resources: list[dict[str, Any]], **system: Any) -> str:
    return json.dumps({"resources": resources, "attributes": {"system": system}, "version": 1})


def node(count: Any, *inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "node", "count": count, "exclusive": True, "with": list(inner)}


def slot(count: Any, *inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "slot", "count": count, "label": "task", "with": list(inner)}


CORE = {"type": "core", "count": 1}


@pytest.mark.parametrize(("number", "text"), [(8019509248, "fDDf5hq"), (0, "f1"), (57, "fz")])
def test_a_job_id_is_written_as_flux_does(number: int, text: str) -> None:
    assert _flux_queue.f58(number) == text


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ([node(4, slot(1, CORE))], (4, 1, 1, 0, True)),
        ([slot(6, {"type": "core", "count": 2})], (0, 6, 2, 0, False)),
        ([slot(2, CORE, {"type": "gpu", "count": 1})], (0, 2, 1, 1, False)),
        ([node({"min": 2, "max": 8}, slot(3, CORE))], (2, 3, 1, 0, True)),
        ([node("2-8", slot(3, CORE))], (2, 3, 1, 0, True)),
        ([node("3+", slot(1, CORE))], (3, 1, 1, 0, True)),
        ([slot(2, node(1, CORE))], (1, 2, 1, 0, True)),
    ],
)
def test_what_a_job_asks_for_is_read_from_its_jobspec(
    resources: list[dict[str, Any]], wanted: tuple[int, int, int, int, bool]
) -> None:
    keys = ("nodes", "slots", "cores_per_slot", "gpus_per_slot", "exclusive")
    assert _flux_queue.shape(jobspec(resources)) == dict(zip(keys, wanted, strict=True))


@pytest.mark.parametrize(
    ("system", "wanted"),
    [
        ({"burstable": 1}, (True, 1)),
        ({"burstable": False}, (True, False)),
        ({"environment": {"burstable": 1}}, (False, None)),
        ({}, (False, None)),
    ],
)
def test_only_a_system_attribute_marks_a_job(
    system: dict[str, Any], wanted: tuple[bool, Any]
) -> None:
    assert _flux_queue.marked("burstable", jobspec([slot(1, CORE)], **system)) == wanted


def test_the_quick_look_never_misses_a_marked_job() -> None:
    assert _flux_queue.may_have("burstable", jobspec([], burstable=1))
    assert not _flux_queue.may_have("burstable", jobspec([], cwd="/burstable"))


def test_a_job_without_optional_entries_has_plain_defaults() -> None:
    listed = {"id": 57, "userid": 7, "state": 8, "urgency": 16, "t_submit": 5.0}
    job = _flux_queue.waiting_job(listed, jobspec([slot(1, CORE)]), 1)
    assert (job["id"], job["state"], job["queue"], job["duration"]) == ("fz", "sched", "", 0.0)
