# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When flux_config restarts a broker, when it does not dare to, and what is left where the broker stays down.

Flux and systemd are played; tests/integration/test_lead_manage.py has the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _lead_broker as lead
from ansible_collections.flux.burst.plugins.module_utils import _units
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, FluxError

OLD, NEW = "# old\n", "# new\n"


class Machine:
    """A machine whose broker runs with some hosts; a restart takes those of the file."""

    def __init__(self, file: Path) -> None:
        self.file, self.name = file, "lead"
        self.hosts = ["lead", "worker"]
        self.jobs: list[int] = []
        self.statedir = "/var/lib/flux"
        self.breaks: set[str] = set()
        self.restarts: list[str] = []
        self.asked: list[Any] = []
        self.below: dict[int, list[int]] = {0: [1, 2]}

    def attribute(self, name: str) -> str:
        if name == "statedir" and not self.statedir:
            raise FluxError("no such attribute")
        return {"hostlist": ",".join(self.hosts), "statedir": self.statedir, "rank": "1"}[name]

    def rpc(self, topic: str, payload: dict[str, Any], rank: int = 0) -> dict[str, Any]:
        if topic == "overlay.topology":
            return self.tree(payload["rank"])
        assert topic == "job-list.list"
        self.asked.append(payload["constraint"]["states"])
        return {"jobs": [{"id": number, "ranks": "1"} for number in self.jobs]}

    def tree(self, rank: int) -> dict[str, Any]:
        return {
            "rank": rank,
            "children": [
                self.tree(child) for child in self.below.get(rank, []) if child < len(self.hosts)
            ],
        }

    def systemctl(self, word: str, unit: str) -> str:
        assert (word, unit) == ("restart", "flux.service")
        text = self.file.read_text()
        self.restarts.append(text)
        if text in self.breaks:
            raise BurstError("wanted it to start, found exit code 1.")
        self.hosts = ["lead", "worker", "b-1"] if text == NEW else ["lead", "worker"]
        return ""

    def lacking(self) -> list[str]:
        return [] if "b-1" in self.hosts else ["b-1"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path / "system.toml")
    made.file.write_text(OLD)
    unit = _units.parse("flux.service", "ActiveState=active\nStatusText=Running as leader\n")
    monkeypatch.setattr(lead.socket, "gethostname", lambda: made.name)
    monkeypatch.setattr(lead._units, "show", lambda _name: unit)
    monkeypatch.setattr(lead._units, "systemctl", made.systemctl)
    monkeypatch.setattr(
        lead._flux, "hosts", lambda lists: [name for text in lists for name in text.split(",")]
    )
    monkeypatch.setattr(lead._flux, "hostlist", ",".join)
    monkeypatch.setattr(lead.LeadBroker, "_client", lambda _self: made)
    monkeypatch.setattr(lead.LeadBroker, "_lacking", lambda _self, _client: made.lacking())
    monkeypatch.setattr(lead.LeadBroker, "_try", lambda _self: None)
    monkeypatch.setattr(lead.LeadBroker, "_look_at_the_others", lambda _self: None)
    return made


@pytest.fixture
def broker(machine: Machine) -> Callable[..., lead.LeadBroker]:
    def make(
        restart: bool = True,
        over_jobs: str = "",
        hosts: tuple[str, ...] = ("b-1",),
        gateway: str = "",
    ) -> lead.LeadBroker:
        path = str(machine.file)
        edited = lead.Edited({path: NEW}, {}, ["lead", "worker", *hosts], hosts, ["burst"], gateway)
        policy = lead.Policy(restart, over_jobs, timeout=1)
        return lead.LeadBroker(
            "local:///nowhere", 1.0, service="flux.service", edited=edited, policy=policy
        )

    return make


def test_a_broker_without_the_machines_gets_files_and_one_restart(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    done = broker().run(check=False)
    assert [row["kind"] for row in done["resources"]] == ["file", "unit"]
    assert machine.restarts == [NEW]
    assert broker().run(check=False)["changed"] is False
    assert machine.restarts == [NEW]


def test_a_run_that_was_cut_before_the_restart_is_made_good(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    machine.file.write_text(NEW)
    done = broker().run(check=False)
    assert [row["kind"] for row in done["resources"]] == ["unit"]
    assert machine.restarts == [NEW]


@pytest.mark.parametrize(
    ("below", "gateway", "moved"),
    [
        ({0: [1, 2], 2: [3]}, "b-1", ""),
        ({0: [1, 2, 3]}, "b-1", "b-2"),
        ({0: [1, 2, 3]}, "", ""),
        ({0: [1, 2], 2: [3]}, "", "b-2"),
        ({0: [1], 1: [2], 2: [3]}, "b-1", "b-1"),
    ],
)
def test_a_lead_that_runs_with_other_parents_restarts(
    machine: Machine,
    broker: Callable[..., lead.LeadBroker],
    below: dict[int, list[int]],
    gateway: str,
    moved: str,
) -> None:
    machine.file.write_text(NEW)
    machine.hosts, machine.below = ["lead", "worker", "b-1", "b-2"], below
    done = broker(hosts=("b-1", "b-2"), gateway=gateway).run(check=False)
    assert machine.restarts == ([NEW] if moved else [])
    shown = [(row["before"]["topology"], row["after"]["topology"]) for row in done["diff"]]
    wanted = f"gateway {gateway}" if gateway else "flat"
    assert shown == ([(f"other parents of {moved}", wanted)] if moved else [])


def test_files_alone_are_replaced_without_a_restart(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    machine.jobs = [1]
    broker(restart=False).run(check=False)
    assert machine.file.read_text() == NEW
    assert machine.restarts == []


@pytest.mark.parametrize(
    ("over_jobs", "wanted"),
    [
        ("", "wanted no job while flux.service on lead restarts, which ends them, found job f2"),
        ("worker", "wanted the lead's name lead, found worker"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_jobs_are_ended_only_where_the_lead_is_named(
    machine: Machine,
    broker: Callable[..., lead.LeadBroker],
    over_jobs: str,
    wanted: str,
    check: bool,
) -> None:
    machine.jobs = [1]
    with pytest.raises(BurstError, match=wanted):
        broker(over_jobs=over_jobs).run(check=check)
    assert (machine.file.read_text(), machine.restarts) == (OLD, [])
    broker(over_jobs="lead").run(check=check)
    assert machine.restarts == ([] if check else [NEW])


def test_jobs_that_wait_count_where_the_lead_would_forget_them(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    broker().run(check=True)
    machine.statedir = ""
    broker().run(check=True)
    assert machine.asked == [["running"], ["running", "pending"]]


def test_a_worker_restarts_where_no_job_is_on_it(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    machine.name, machine.jobs = "worker", [1]
    with pytest.raises(BurstError, match=r"flux.service on worker restarts.*found job f2"):
        broker().run(check=False)
    assert machine.restarts == []
    broker(over_jobs="lead").run(check=False)
    assert machine.restarts == [NEW]


def test_a_worker_that_is_down_takes_the_files_when_it_starts(
    machine: Machine, broker: Callable[..., lead.LeadBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.name = "worker"
    unit = _units.parse("flux.service", "ActiveState=inactive\n")
    monkeypatch.setattr(lead._units, "show", lambda _name: unit)
    done = broker().run(check=False)
    assert [row["kind"] for row in done["resources"]] == ["file"]


def test_a_broker_that_does_not_come_up_gets_its_old_files_back(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    machine.breaks = {NEW}
    with pytest.raises(BurstError, match=r"exit code 1. The old configuration is back and runs."):
        broker().run(check=False)
    assert machine.file.read_text() == OLD
    assert machine.restarts == [NEW, OLD]
    machine.breaks = {NEW, OLD}
    with pytest.raises(BurstError, match=r"With the old configuration again: .*exit code 1"):
        broker().run(check=False)


def test_a_machine_that_is_no_broker_of_the_instance_is_named(
    machine: Machine, broker: Callable[..., lead.LeadBroker]
) -> None:
    machine.name = "other"
    with pytest.raises(BurstError, match=r"wanted other in \[bootstrap\] hosts"):
        broker()


def test_a_directory_without_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(BurstError, match=r"\*.toml files in .*none: set lead_config_dir"):
        lead.texts(str(tmp_path))
    (tmp_path / "a.toml").write_bytes(b"\xff")
    with pytest.raises(BurstError, match=r"a.toml: wanted to read it as UTF-8"):
        lead.texts(str(tmp_path))
