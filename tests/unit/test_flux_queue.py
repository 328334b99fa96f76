# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as real Flux 0.88 lists them become rows that a plan can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.flux.burst.plugins.action.flux_queue_info import condition, selected
from ansible_collections.flux.burst.plugins.module_utils import _flux_queue, _flux_queue_read
from ansible_collections.flux.burst.plugins.module_utils._flux_resource import Rank
from hypothesis import given
from hypothesis import strategies as st


def spec(resources: Any, version: Any = 1, **system: Any) -> dict[str, Any]:
    return {"resources": resources, "attributes": {"system": system}, "version": version}


def node(count: Any, *inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "node", "count": count, "exclusive": True, "with": list(inner)}


def slot(count: Any, *inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "slot", "count": count, "label": "task", "with": list(inner)}


def some(kind: str, count: int, **more: Any) -> dict[str, Any]:
    return {"type": kind, "count": count, **more}


CORE = some("core", 1)
GPU = some("gpu", 1)


@pytest.mark.parametrize(("number", "text"), [(8019509248, "fDDf5hq"), (0, "f1"), (57, "fz")])
def test_a_job_id_is_written_and_read_as_flux_does(number: int, text: str) -> None:
    assert _flux_queue.f58(number) == text
    assert _flux_queue.job_number(text) == number
    assert _flux_queue.job_number("\u0192" + text[1:]) == number
    assert _flux_queue.job_number(str(number)) == number


@given(st.integers(0, 2**63 - 1))
def test_every_job_id_can_be_read_back(number: int) -> None:
    assert _flux_queue.job_number(_flux_queue.f58(number)) == number


@pytest.mark.parametrize("text", ["", "f", "f0", "fO", "x", "1.5"])
def test_what_is_no_job_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|substring not found"):
        _flux_queue.job_number(text)


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ([node(4, slot(1, CORE))], (4, 1, 1, 0, True)),
        ([slot(6, some("core", 2))], (0, 6, 2, 0, False)),
        ([slot(2, CORE, GPU)], (0, 2, 1, 1, False)),
        ([node({"min": 2, "max": 8}, slot(3, CORE))], (2, 3, 1, 0, True)),
        ([node("2-8", slot(3, CORE))], (2, 3, 1, 0, True)),
        ([node("3+", slot(1, CORE))], (3, 1, 1, 0, True)),
        ([slot(2, node(1, CORE))], (2, 1, 1, 0, True)),
        ([slot(2, node(3, some("core", 4)))], (6, 1, 4, 0, True)),
    ],
)
def test_what_a_job_asks_for_is_read_from_its_jobspec(
    resources: list[dict[str, Any]], wanted: tuple[int, int, int, int, bool]
) -> None:
    found = _flux_queue.shape(spec(resources))
    keys = ("nodes", "slots", "cores_per_slot", "gpus_per_slot", "exclusive")
    assert tuple(found[key] for key in keys) == wanted
    assert found["problem"] == ""


@pytest.mark.parametrize(
    ("memory", "megabytes"),
    [(some("memory", 512), 512), (some("memory", 2, unit="GB"), 2048)],
)
def test_memory_is_told_in_megabytes(memory: dict[str, Any], megabytes: int) -> None:
    assert _flux_queue.shape(spec([slot(1, CORE, memory)]))["memory_mb_per_slot"] == megabytes


def test_what_is_nested_too_deeply_is_a_problem_of_that_job_alone() -> None:
    text = json.dumps(spec([slot(1, CORE)], burstable="HERE"))
    for depth in (30, 1500, 100_000):
        asked = _flux_queue.asked_of(
            text.replace('"HERE"', "[" * depth + "]" * depth), _flux_queue.Selection(attribute="")
        )
        assert asked is not None
        assert asked["problem"] or depth == 30
        asked = _flux_queue.asked_of(
            text.replace('"HERE"', "[" * depth + "]" * depth), _flux_queue.Selection()
        )
        assert asked is None or (asked["attribute_value"] is None and "levels" in asked["problem"])


def test_what_a_job_is_called_moves_no_cursor_and_makes_no_line() -> None:
    listed = {"id": 1, "userid": 2, "urgency": 16, "t_submit": 1.0, "state": 2}
    hostile = "\x1b[2Ja\nb: ok\x9b31m\u202e"
    asked = _flux_queue.asked_of(spec([slot(1, CORE)], cwd=hostile), _flux_queue.Selection(""))
    assert asked is not None
    job = _flux_queue.waiting_job({**listed, "name": hostile, "dependencies": [hostile]}, asked)
    assert job["name"] == job["cwd"] == r"\x1b[2Ja\nb: ok\x9b31m\u202e"
    assert job["waits_for"].isprintable()


def test_constraints_are_kept_as_they_are() -> None:
    constraints = {"properties": ["gpu"]}
    assert _flux_queue.shape(spec([slot(1, CORE)], constraints=constraints))["constraints"] == (
        constraints
    )


@pytest.mark.parametrize(
    ("jobspec", "problem"),
    [
        (spec([slot(1, CORE)], version=7), "its jobspec has version 7, version 1 is understood"),
        (spec([slot(1, slot(2, CORE))]), "its jobspec has slots in slots, which cannot be placed"),
        (spec([{"count": 1}]), "its jobspec cannot be read"),
        (spec([slot("many", CORE)]), "its jobspec cannot be read"),
        (spec(None), "its jobspec cannot be read"),
        (spec([slot(1, some("memory", 1, unit="furlong"))]), "its jobspec cannot be read"),
        ({}, "its jobspec cannot be read"),
        (spec([slot(-1, CORE)]), "its jobspec cannot be read"),
        (spec([slot(10**30, CORE)]), f"its jobspec has a count of {10**30}"),
        (
            spec([slot(1, CORE)], constraints={"hostlist": ["a[1-9]"] * 999}),
            "its constraints has more than 4096 characters, or more than 20 levels",
        ),
    ],
)
def test_a_jobspec_that_cannot_be_planned_for_says_why(
    jobspec: dict[str, Any], problem: str
) -> None:
    assert _flux_queue.shape(jobspec)["problem"] == problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["version", "resources", "type", "count", "with", "attributes", "system"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_jobspec_however_odd_is_a_traceback(found: Any) -> None:
    selection = _flux_queue.Selection(attribute="")
    asked = _flux_queue.asked_of(json.dumps(found), selection)
    assert asked is None or isinstance(asked["problem"], str)


@pytest.mark.parametrize(
    ("system", "value", "wanted"),
    [
        ({"burstable": 1}, "", (True, 1)),
        ({"burstable": 1}, "1", (True, 1)),
        ({"burstable": "gce"}, "gce", (True, "gce")),
        ({"burstable": "gce"}, '"gce"', (True, "gce")),
        ({"burstable": {"zone": "a"}}, '{"zone": "a"}', (True, {"zone": "a"})),
        ({"burstable": "aws"}, "gce", (False, "aws")),
        ({"burstable": False}, "", (True, False)),
        ({"environment": {"burstable": 1}}, "", (False, None)),
        ({}, "", (False, None)),
    ],
)
def test_only_a_system_attribute_with_the_value_marks_a_job(
    system: dict[str, Any], value: str, wanted: tuple[bool, Any]
) -> None:
    selection = _flux_queue.Selection(value=value)
    assert selection.takes(spec([slot(1, CORE)], **system)) == wanted


def test_without_an_attribute_every_job_is_taken() -> None:
    selection = _flux_queue.Selection(attribute="")
    assert selection.may_take("{}")
    assert selection.takes(spec([slot(1, CORE)])) == (True, None)


def test_the_quick_look_never_misses_a_marked_job() -> None:
    selection = _flux_queue.Selection()
    assert selection.may_take(json.dumps(spec([], burstable=1)))
    assert not selection.may_take(json.dumps(spec([], cwd="/burstable")))


def test_the_broker_selects_what_it_can() -> None:
    selection = _flux_queue.Selection(
        queues=("batch",), user_ids=(7, 8), names=("sim",), min_age=60.0
    )
    assert selection.constraint(1000.0) == {
        "and": [
            {"states": ["pending"]},
            {"queue": ["batch"]},
            {"userid": [7, 8]},
            {"name": ["sim"]},
            {"t_submit": ["<=940.000000"]},
        ]
    }


LISTED = {"id": 57, "userid": 7, "state": 8, "urgency": 16, "t_submit": 5.0}


def waiting(resources: list[dict[str, Any]], **listed: Any) -> dict[str, Any]:
    asked = _flux_queue.asked_of(json.dumps(spec(resources, burstable=1)), _flux_queue.Selection())
    assert asked is not None
    return _flux_queue.waiting_job({**LISTED, **listed}, {**asked, "in_queue": ""})


def test_a_job_without_optional_entries_has_plain_defaults() -> None:
    job = waiting([slot(1, CORE)])
    assert (job["id"], job["state"], job["queue"], job["duration"]) == ("fz", "sched", "", 0.0)
    assert (job["cores_per_node"], job["cwd"], job["claim"]) == (0, "", None)
    assert "in_queue" not in job


def test_cores_and_gpus_of_a_node_are_those_of_all_its_slots() -> None:
    job = waiting([node(2, slot(3, some("core", 2), GPU))])
    assert (job["cores_per_node"], job["gpus_per_node"]) == (6, 3)


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ({}, "resources"),
        ({"urgency": 0}, "hold"),
        ({"state": 4}, "priority"),
        ({"state": 2, "dependencies": ["after-ok=f12"]}, "dependencies after-ok=f12"),
    ],
)
def test_why_a_job_waits(listed: dict[str, Any], wanted: str) -> None:
    assert waiting([slot(1, CORE)], **listed)["waits_for"] == wanted


def rank(number: int, state: str = "free", cores: int = 2, free: int | None = None) -> Rank:
    left = cores if free is None else free
    return Rank(number, f"n{number}", state, cores, 0, left if state != "down" else 0)


@pytest.mark.parametrize(
    ("resources", "ranks", "wanted"),
    [
        ([node(2, slot(1, CORE))], [rank(1), rank(2)], True),
        ([node(2, slot(1, CORE))], [rank(1), rank(2, "down")], False),
        ([node(1, slot(1, CORE))], [rank(1, "allocated", free=1)], False),
        ([slot(3, CORE)], [rank(1), rank(2, "allocated", free=1)], True),
        ([slot(4, CORE)], [rank(1), rank(2, "allocated", free=1)], False),
        ([slot(1, some("core", 4))], [rank(1), rank(2)], False),
        ([slot(1, CORE, GPU)], [rank(1)], False),
    ],
)
def test_a_job_that_free_nodes_would_take_waits_for_its_turn(
    resources: list[dict[str, Any]], ranks: list[Rank], wanted: bool
) -> None:
    assert _flux_queue.fits_now(waiting(resources), ranks) is wanted


def test_what_is_known_of_jobs_is_kept_and_read_back(tmp_path: Path) -> None:
    cache = _flux_queue_read.Cache(str(tmp_path), "instance")
    cache.keep({1: None, 2: {"nodes": 4}})
    assert _flux_queue_read.Cache(str(tmp_path), "instance").known == {1: None, 2: {"nodes": 4}}
    assert _flux_queue_read.Cache(str(tmp_path), "another").known == {}
    assert _flux_queue_read.Cache("", "instance").known == {}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"format": 0}', '{"format": 1}'])
def test_a_spoilt_cache_is_the_same_as_none(tmp_path: Path, content: str) -> None:
    cache = _flux_queue_read.Cache(str(tmp_path), "instance")
    cache.keep({1: None})
    assert cache.path is not None
    cache.path.write_text(content)
    assert _flux_queue_read.Cache(str(tmp_path), "instance").known == {}


def test_a_cache_that_others_may_write_or_that_is_a_link_is_not_believed(tmp_path: Path) -> None:
    cache = _flux_queue_read.Cache(str(tmp_path), "instance")
    cache.keep({1: None})
    assert cache.path is not None
    cache.path.chmod(0o666)
    assert _flux_queue_read.Cache(str(tmp_path), "instance").known == {}
    cache.path.chmod(0o600)
    moved = cache.path.rename(tmp_path / "moved")
    cache.path.symlink_to(moved)
    assert _flux_queue_read.Cache(str(tmp_path), "instance").known == {}


def test_where_takes_the_jobs_for_which_it_is_true() -> None:
    takes = condition("job.nodes <= 8 and 'sim' in job.name")
    assert takes({"id": "f1", "nodes": 4, "name": "sim-1"})
    assert not takes({"id": "f1", "nodes": 9, "name": "sim-1"})


def test_a_job_for_which_where_has_no_answer_stops_no_other() -> None:
    takes = condition("job.attribute_value.zone == 'a'")
    good = {"id": "f1", "attribute_value": {"zone": "a"}}
    other = {"id": "f2", "attribute_value": {"zone": "b"}}
    hostile = {"id": "f3", "attribute_value": "\x1b[2J"}
    found, warnings = selected([hostile, good, other], takes)
    assert found == [good]
    [warning] = warnings
    assert "fails for job f3" in warning
    assert warning.endswith("it is left out")
    assert warning.isprintable()


def test_where_that_fails_for_every_job_is_wrong_itself() -> None:
    with pytest.raises(AnsibleActionFail, match="which fails for job f1"):
        selected([{"id": "f1"}, {"id": "f2"}], condition("job.nodess <= 8"))
    assert selected([], condition("job.nodess <= 8")) == ([], [])


def test_where_never_evaluates_the_text_of_a_job() -> None:
    hostile = {"id": "f1", "name": "{{ lookup('pipe', 'touch /tmp/owned') }}", "nodes": 1}
    assert condition("'lookup' in job.name")(hostile)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("job.nodes <=", "unexpected 'end of template'"),
        ("job.nodess <= 8", "has no attribute 'nodess'"),
        ("job.nodes / 0", "division by zero"),
        ("job.nodes <= 'x'", "not supported between"),
        ("job.__class__.__mro__", "unsafe"),
    ],
)
def test_where_that_cannot_be_evaluated_is_one_clear_error(expression: str, wanted: str) -> None:
    with pytest.raises(AnsibleActionFail, match="where: wanted a Jinja expression") as caught:
        condition(expression)({"id": "f1", "nodes": 4})
    assert wanted in str(caught.value)
