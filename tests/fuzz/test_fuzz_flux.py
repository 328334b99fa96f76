# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs as a hostile user submits them, and answers of a broker that is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import brokers
import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.flux.burst.plugins.action.flux_queue_info import condition
from ansible_collections.flux.burst.plugins.module_utils import (
    _flux,
    _flux_claim,
    _flux_nodes,
    _flux_queue,
    _flux_queue_read,
    _flux_resource,
    _plan,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, FluxError
from ansible_collections.flux.burst.plugins.modules import flux_identity_info, flux_job_claim
from fuzzing import changed, changed_json, fuzzed, loaded, survives, told
from hypothesis import strategies as st

SELECTIONS = st.sampled_from(
    [
        _flux_queue.Selection(),
        _flux_queue.Selection(attribute=""),
        _flux_queue.Selection(value='{"zone": "a"}', queues=("batch",), min_age=1.0),
    ]
)
RANKS = [
    {"rank": 0, "host": "lead", "state": "excluded", "cores": 4, "gpus": 0, "drain_reason": None},
    {"rank": 1, "host": "worker", "state": "free", "cores": 4, "gpus": 0, "drain_reason": None},
    *(
        {
            "rank": number + 1,
            "host": f"b-{number}",
            "state": "down",
            "cores": 4,
            "gpus": 1,
            "properties": ["burst"],
            "drain_reason": None,
        }
        for number in (1, 2, 3)
    ),
]
TYPES = [{"name": "n2-standard-8", "cores": 4, "memory_mb": 32000, "gpus": 1}]


@pytest.fixture(autouse=True)
def bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what brokers.client() replaces."""
    monkeypatch.setattr(_flux, "bindings", _flux.bindings)


def decided(jobs: list[dict[str, Any]]) -> None:
    """Plan for jobs; whoever reads the plan reads lines."""
    for sizing in _plan.SIZINGS:
        request = _plan.Request(
            ["b-1", "b-2", "b-3"],
            sizing=sizing,
            machine_types=TYPES,
            max_run_seconds=14400,
            burst="mine",
            now=1795525200.0,
        )
        made = _plan.plan(jobs, RANKS, request)
        assert {*made.jobs, *made.local_jobs, *(row["id"] for row in made.left)} == {
            job["id"] for job in jobs
        }
        for line in made.explanation():
            told(ValueError(line))
        json.dumps(asdict(made))


@fuzzed(
    0.16,
    jobspec=changed_json(brokers.JOBSPEC, 4),
    listed=changed(brokers.LISTED, 1),
    selection=SELECTIONS,
)
def test_jobs(jobspec: str, listed: Any, selection: _flux_queue.Selection) -> None:
    def job() -> Any:
        asked = _flux_queue.asked_of(jobspec, selection)
        if asked is None or _flux_queue_wrong(listed):
            return None
        made = _flux_queue.waiting_job(listed, asked)
        assert _flux_queue.job_number(made["id"]) == listed["id"]
        for key in ("name", "cwd", "waits_for", "problem"):
            assert not made[key] or made[key].isprintable()
        # It is what Ansible carries from the lead to the controller.
        decided([json.loads(json.dumps(made)), {**made, "id": "f1"}])
        return made

    survives(job)


def _flux_queue_wrong(listed: Any) -> bool:
    asked = {"attrs": _flux_queue.LISTED}
    return bool(_flux._flux_answers.wrong("job-list.list-id", asked, {"job": listed}))


WHERE = st.sampled_from(
    ["job.nodes <= 8", "job.attribute_value.zone == 'a'", "job.name.upper()", "job.cwd[0] == '/'"]
)


@fuzzed(0.02, jobspec=changed_json(brokers.JOBSPEC, 4), expression=WHERE)
def test_jinja_expressions_on_jobs(jobspec: str, expression: str) -> None:
    asked = _flux_queue.asked_of(jobspec, _flux_queue.Selection(attribute=""))
    if asked is not None:
        job = _flux_queue.waiting_job(brokers.LISTED, asked)
        survives(lambda: condition(expression)(job), AnsibleActionFail)


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, list[str]]]:
    """All answers of a broker, a few of which are not as they should be."""
    wrong = draw(st.sets(st.sampled_from([*brokers.ANSWERS, *brokers.STREAMS]), max_size=3))
    given = {
        topic: draw(changed_json(answer)) if topic in wrong else json.dumps(answer)
        for topic, answer in brokers.ANSWERS.items()
    }
    streams = {
        topic: [draw(changed_json(each)) if topic in wrong else json.dumps(each) for each in rows]
        for topic, rows in brokers.STREAMS.items()
    }
    streams["log.dmesg"] = [draw(st.text(max_size=60)), *brokers.LOG]
    return given, streams


def _nodes(client: _flux.FluxClient) -> Any:
    found = _flux_nodes.chosen(client, ["b-1", "b-2"])
    watch = _flux_nodes.Watch(client, [2, 3])
    _flux_nodes.jobs_on(client, {1, 2})
    return _flux_nodes.findings(client, found, watch, {}, 1.0)


def _claim(client: _flux.FluxClient) -> Any:
    params = {
        "burst": "mine",
        "jobs": [brokers.NAME],
        "hosts": ["b-1"],
        "ttl": 3600,
        "by": "me",
    }
    claiming = flux_job_claim.Claiming(client, params)
    return claiming.claim(check=False), claiming.release(check=False)


def _journal(client: _flux.FluxClient) -> Any:
    return _flux_queue_read._journal(client, {brokers.ID}, _flux_queue.Selection())


def _queue(client: _flux.FluxClient) -> Any:
    jobs, _pending = _flux_queue_read.read(client, _flux_queue.Selection())
    json.dumps(jobs)
    return decided(jobs)


READERS: list[Callable[[_flux.FluxClient], Any]] = [
    _queue,
    _journal,
    _nodes,
    _claim,
    _flux_resource.read_all,
    flux_identity_info.read,
    lambda client: _flux_claim.Claims(client).read(),
]


@fuzzed(0.2, given_answers=answers(), reader=st.sampled_from(READERS))
def test_answers_of_flux(
    given_answers: tuple[dict[str, str], dict[str, list[str]]],
    reader: Callable[[_flux.FluxClient], Any],
) -> None:
    survives(lambda: reader(brokers.client(*given_answers)), FluxError)


@fuzzed(0.02, text=st.text("0123456789-,[] x²", max_size=40))
def test_idsets(text: str) -> None:
    found = survives(lambda: _flux_resource.idset(text), FluxError)
    assert found is None or len(found) < _flux_resource.MOST_IDS


def lines() -> Iterator[str]:
    """What may stand in a claim's log."""
    yield from (brokers.CLAIM, "\n", "[1]\n", "{}\n", '{"t": NaN}\n', "x" * 70_000, "[" * 100_000)


@fuzzed(
    0.02, parts=st.lists(st.sampled_from(list(lines())) | changed_json(json.loads(brokers.CLAIM)))
)
def test_logs_of_claims(parts: list[str]) -> None:
    held = survives(lambda: _flux_claim.holder("\n".join(parts)), BurstError)
    if held is not None:
        decided([{"id": "f1", "nodes": 1, "claim": loaded(json.dumps(asdict(held)))}])
