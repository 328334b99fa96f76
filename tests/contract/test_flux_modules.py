# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flux_* modules against a lead that runs: the real Flux is the judge, the stand-in must not differ."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flux_instances import Instance, eventually, real_flux
from flux_modules import module, result, start

NO_REAL = "no real Flux in /usr/bin: the stand-in alone was asked"
KINDS = [
    "standin",
    pytest.param(
        "real",
        marks=[pytest.mark.real_flux, pytest.mark.skipif(not real_flux(), reason=NO_REAL)],
    ),
]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="brokers need hostnames of their own: root"
)
BURST = ("b-1", "b-2", "b-3")


def begun(kind: str, folder: Path) -> Instance:
    """An instance whose lead runs; three machines of a burst are declared and down."""
    instance = Instance(kind, folder, ("lead", "worker", *BURST))
    lead = instance.start("lead")
    eventually("the lead leads", lambda: lead.status.startswith("Running as leader of 5 node"))
    return instance


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """An instance for one test."""
    instance = begun(request.param, tmp_path)
    yield instance
    instance.close()


@pytest.fixture(scope="module", params=KINDS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """An instance for tests that leave it as it was."""
    instance = begun(request.param, tmp_path_factory.mktemp(request.param))
    yield instance
    instance.close()


def submit(instance: Instance, *words: str) -> str:
    """Submit a job and return its id as our modules write it."""
    done = instance.flux("submit", "--cwd", "/tmp", *words, "hostname")
    assert done.returncode == 0, done.stderr
    return "f" + done.stdout.strip()[1:]


@pytest.fixture
def jobs(shared: Instance) -> Iterator[list[str]]:
    """Three jobs that wait, two of them burstable."""
    made = [
        submit(shared, "-N", "3", "--setattr=burstable", "--job-name=first"),
        submit(shared, "-N", "4", "--job-name=plain"),
        submit(shared, "-N", "2", "--setattr=burstable=later", "--job-name=second"),
    ]
    yield made
    shared.flux("cancel", *made)
    eventually("they are gone", lambda: queue(shared, attribute="")["pending_count"] == 0)


def queue(instance: Instance, **options: Any) -> dict[str, Any]:
    """Run flux_queue_info without a cache."""
    return module(instance, "flux_queue_info", **{"cache_dir": "", **options})


def ids(found: dict[str, Any]) -> list[str]:
    """The ids of the jobs that were found."""
    return [job["id"] for job in found["jobs"]]


def test_only_marked_jobs_are_read_in_the_order_of_the_scheduler(
    shared: Instance, jobs: list[str]
) -> None:
    found = queue(shared)
    assert ids(found) == [jobs[0], jobs[2]]
    assert found["pending_count"] == 3
    first = found["jobs"][0]
    assert (first["nodes"], first["name"], first["cwd"]) == (3, "first", "/tmp")
    assert (first["attribute_value"], first["claim"], first["problem"]) == (1, None, "")
    assert found["jobs"][1]["attribute_value"] == "later"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"value": "later"}, [2]),
        ({"value": "1"}, [0]),
        ({"names": ["second"]}, [2]),
        ({"names": ["nobody"]}, []),
        ({"users": ["root"]}, [0, 2]),
        ({"users": ["65534"]}, []),
        ({"min_age": 3600}, []),
        ({"attribute": ""}, [0, 1, 2]),
        ({"attribute": "other"}, []),
    ],
)
def test_jobs_are_selected_by_option(
    shared: Instance, jobs: list[str], options: dict[str, Any], wanted: list[int]
) -> None:
    assert ids(queue(shared, **options)) == [jobs[number] for number in wanted]


def test_a_user_whom_the_lead_does_not_know_is_one_clear_error(shared: Instance) -> None:
    assert "found 'nobody-here'" in queue(shared, users=["nobody-here"])["msg"]


def test_what_is_kept_between_runs_changes_no_answer(
    shared: Instance, jobs: list[str], tmp_path: Path
) -> None:
    cold = queue(shared, cache_dir=str(tmp_path))
    warm = queue(shared, cache_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) != []
    assert ids(warm) == ids(cold) == [jobs[0], jobs[2]]
    assert warm["jobs"] == cold["jobs"]
    new = submit(shared, "-N", "2", "--setattr=burstable")
    jobs.append(new)
    assert ids(queue(shared, cache_dir=str(tmp_path))) == [jobs[0], jobs[2], new]


def test_why_a_job_waits_is_told(shared: Instance, jobs: list[str]) -> None:
    jobs.append(submit(shared, "-N", "1", "--setattr=burstable", "--urgency=0"))
    jobs.append(submit(shared, "-n", "1", "--setattr=burstable", "--urgency=1"))
    found = {job["id"]: job["waits_for"] for job in queue(shared)["jobs"]}
    assert found == {jobs[0]: "resources", jobs[2]: "resources", jobs[3]: "hold", jobs[4]: "turn"}


def claim(instance: Instance, burst: str, ids: list[str], **options: Any) -> dict[str, Any]:
    """Run flux_job_claim."""
    return module(instance, "flux_job_claim", burst=burst, jobs=ids, **options)


def held(instance: Instance) -> dict[str, str]:
    """Who holds which job, as the queue shows it."""
    return {job["id"]: job["claim"]["burst"] for job in queue(instance)["jobs"] if job["claim"]}


def test_a_claim_is_made_once_shown_and_given_back(shared: Instance, jobs: list[str]) -> None:
    mine = [jobs[0], jobs[2]]
    planned = claim(shared, "one", mine, check=True)
    assert planned["changed"] and planned["claimed"] == mine
    assert held(shared) == {}
    first = claim(shared, "one", mine, ttl=600, by="controller")
    assert first["changed"] and first["claimed"] == mine
    assert held(shared) == dict.fromkeys(mine, "one")
    again = claim(shared, "one", mine, ttl=600)
    assert not again["changed"] and again["claimed"] == mine
    shown = shared.flux("jobs", "-n", "-o", "{id} {user.burst.name}").stdout
    assert shown.count(" one") == 2
    released = module(shared, "flux_job_claim", burst="one", state="released")
    assert released["changed"] and [it["id"] for it in released["released"]] == mine
    assert held(shared) == {}
    assert " one" not in shared.flux("jobs", "-n", "-o", "{id} {user.burst.name}").stdout
    assert not module(shared, "flux_job_claim", burst="one", state="released")["changed"]


def test_what_another_burst_holds_is_told_and_left_to_it(shared: Instance, jobs: list[str]) -> None:
    claim(shared, "one", [jobs[0]], by="login1")
    found = claim(shared, "two", [jobs[0], jobs[2]])
    assert found["claimed"] == [jobs[2]]
    (row,) = found["held"]
    assert (row["id"], row["burst"], row["by"]) == (jobs[0], "one", "login1")
    assert not module(shared, "flux_job_claim", burst="two", state="released", jobs=[jobs[0]])[
        "changed"
    ]
    assert held(shared) == {jobs[0]: "one", jobs[2]: "two"}
    for burst in ("one", "two"):
        module(shared, "flux_job_claim", burst=burst, state="released")


def test_an_expired_claim_is_nobody_s(shared: Instance, jobs: list[str]) -> None:
    claim(shared, "one", [jobs[0]], ttl=1)
    time.sleep(1.1)
    assert held(shared) == {}
    assert claim(shared, "two", [jobs[0]])["claimed"] == [jobs[0]]
    module(shared, "flux_job_claim", burst="two", state="released")


def test_a_job_that_waits_no_more_is_not_claimed(shared: Instance, jobs: list[str]) -> None:
    shared.flux("cancel", jobs[0])
    eventually("it is gone", lambda: jobs[0] not in ids(queue(shared)))
    found = claim(shared, "one", [jobs[0], jobs[2], "f234"])
    assert (found["claimed"], found["gone"]) == ([jobs[2]], [jobs[0], "f234"])
    module(shared, "flux_job_claim", burst="one", state="released")


def test_what_is_no_job_id_is_one_clear_error(shared: Instance) -> None:
    assert "found 'x y'" in claim(shared, "one", ["x y"])["msg"]


def resources(instance: Instance, **options: Any) -> dict[str, Any]:
    """Run flux_resource_info."""
    return module(instance, "flux_resource_info", **options)


def test_every_rank_is_told_with_its_state_and_its_overlay(fresh: Instance) -> None:
    found = resources(fresh)
    assert found["hostlists"]["down"] == "worker,b-[1-3]"
    assert found["hostlists"]["free"] == "lead"
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1, 2, 3, 4]
    assert {rank["overlay"] for rank in found["ranks"][1:]} == {"offline"}
    assert found["ranks"][2]["properties"] == ["burst"]
    before = time.time()
    fresh.start("worker")
    online(fresh, "worker")
    worker = resources(fresh)["ranks"][1]
    assert (worker["state"], worker["overlay"], worker["free_cores"]) == ("free", "full", 2)
    assert before - 1 < worker["since"] <= time.time()
    assert worker["idle_since"] == worker["since"]


def online(instance: Instance, *hosts: str, **options: Any) -> dict[str, Any]:
    """Run flux_nodes with state=online."""
    return module(
        instance,
        "flux_nodes",
        **{"hosts": list(hosts), "state": "online", "timeout": 20, **options},
    )


def test_a_node_is_idle_from_the_end_of_its_last_job(fresh: Instance) -> None:
    fresh.start("worker")
    online(fresh, "worker")
    came = resources(fresh)["ranks"][1]["idle_since"]
    assert fresh.flux("run", "-N", "2", "hostname").returncode == 0
    eventually("it is free", lambda: resources(fresh)["ranks"][1]["idle_since"] is not None)
    found = resources(fresh)
    assert found["ranks"][1]["idle_since"] > came
    assert found["idle"] == ["lead", "worker"]
    assert resources(fresh, idle_for=3600)["idle"] == []


def test_three_brokers_are_seen_as_soon_as_flux_says_that_they_are_online(fresh: Instance) -> None:
    waiting = start(fresh, "flux_nodes", hosts=list(BURST), state="online", timeout=30)
    time.sleep(1)
    for host in BURST:
        fresh.start(host)
    found = result(waiting)
    returned = time.time()
    times = {host: found["transitions"][host][-1] for host in BURST}
    assert {event["name"] for event in times.values()} == {"online"}
    assert returned - max(event["time"] for event in times.values()) < 0.3
    assert {rank["state"] for rank in found["ranks"]} <= {"free", "allocated"}


def test_a_node_that_never_comes_is_told_at_the_limit_and_the_others_are_not(
    fresh: Instance,
) -> None:
    fresh.start("b-1")
    found = online(fresh, "b-1", "b-2", timeout=3)
    (finding,) = found["findings"]
    assert (finding["host"], finding["stage"]) == ("b-2", "machine")
    assert "b-2: stage machine: the lead has seen nothing of it" in found["msg"]


def test_what_the_machine_itself_reported_is_named_as_the_cause(fresh: Instance) -> None:
    reports = {
        "b-1": {"log": ["Error loading certificate: /c: readable by group/other"], "exit_code": 1},
        "b-2": {"status": "Joining Flux instance via tcp://x", "lead_port": "no answer"},
        "b-3": {"status": "Joining Flux instance via tcp://x", "lead_port": ""},
    }
    found = online(fresh, *BURST, timeout=0, reports=reports)["findings"]
    assert [row["stage"] for row in found] == ["certificate", "lead_port", "certificate"]


def test_certificates_are_told_by_their_fingerprints(fresh: Instance) -> None:
    mine = module(fresh, "flux_identity_info")["cert_fingerprint"]
    stuck = {"status": "Joining Flux instance via tcp://x", "lead_port": ""}
    reports = {
        "b-1": {**stuck, "certificate": "ab" * 32},
        "b-2": {**stuck, "certificate": mine},
    }
    found = online(fresh, "b-1", "b-2", timeout=0, reports=reports)["findings"]
    assert f"fingerprint {'ab' * 8}, the lead's {mine[:16]}" in found[0]["cause"]
    assert found[1]["remedy"] == "restart the lead, which runs with an older one"


def test_hosts_in_another_order_are_told_by_the_lead(fresh: Instance) -> None:
    config = fresh.config("b-2")
    system = config / "system.toml"
    text = system.read_text()
    system.write_text(
        text.replace('"b-1"', '"x"').replace('"b-2"', '"b-1"').replace('"x"', '"b-2"')
    )
    broker = fresh.start("b-2", config)
    eventually("the broker gives up", lambda: broker.process.poll() is not None)
    (finding,) = online(fresh, "b-2", timeout=1)["findings"]
    assert finding["stage"] == "hostname"
    assert "rejecting connection from b-2 (rank 2)" in finding["cause"]


def test_a_drained_node_is_not_online_and_its_reason_is_told(fresh: Instance) -> None:
    fresh.start("b-1")
    online(fresh, "b-1")
    module(
        fresh,
        "flux_nodes",
        hosts=["b-1"],
        state="drained",
        reason="rank 2 missing resources: core1",
    )
    (finding,) = online(fresh, "b-1", timeout=1)["findings"]
    assert finding["stage"] == "resources"
    assert "missing resources: core1" in finding["cause"]


def test_drain_stop_undrain_leaves_a_name_for_the_next_burst(fresh: Instance) -> None:
    def nodes(state: str, **options: Any) -> dict[str, Any]:
        return module(fresh, "flux_nodes", hosts=["b-1"], state=state, **options)

    for _unused in range(2):
        broker = fresh.start("b-1")
        assert online(fresh, "b-1", prove=True, imp="")["findings"] == []
        assert nodes("drained", check=True)["changed"]
        assert nodes("drained", reason="end")["changed"]
        assert not nodes("drained", reason="end")["changed"]
        broker.stop()
        gone = nodes("offline")
        assert not gone["changed"]
        assert gone["ranks"][0]["overlay_error"] == "administrative shutdown"
        assert nodes("undrained")["changed"]
        assert not nodes("undrained")["changed"]
        assert resources(fresh)["ranks"][2]["drain_reason"] is None


def test_hosts_may_be_given_in_any_order(shared: Instance) -> None:
    hosts = ["b-3", "b-1", "b-2"]
    drained = module(shared, "flux_nodes", hosts=hosts, state="drained", reason="order")
    assert [rank["drain_reason"] for rank in drained["ranks"]] == ["order"] * 3
    undrained = module(shared, "flux_nodes", hosts=hosts, state="undrained")
    assert [rank["drain_reason"] for rank in undrained["ranks"]] == [None] * 3


def test_a_node_where_jobs_would_fail_is_found_by_a_command_that_runs_there(
    fresh: Instance,
) -> None:
    fresh.start("b-1")
    found = online(fresh, "b-1", prove=True, imp="/etc/hostname")
    (finding,) = found["findings"]
    assert (finding["host"], finding["stage"]) == ("b-1", "imp")
    assert "IMP not installed setuid: /etc/hostname" in found["msg"]


def test_a_node_that_stays_is_told_or_disconnected(fresh: Instance) -> None:
    fresh.start("b-1")
    online(fresh, "b-1")
    options: dict[str, Any] = {"hosts": ["b-1"], "state": "offline", "timeout": 0}
    (finding,) = module(fresh, "flux_nodes", **options)["findings"]
    assert finding["stage"] == "leave"
    assert module(fresh, "flux_nodes", disconnect=True, **options)["changed"]
    assert resources(fresh)["ranks"][2]["state"] == "down"


def test_a_job_that_outlives_the_limit_of_a_drain_is_named_and_lives(fresh: Instance) -> None:
    fresh.start("b-1")
    online(fresh, "b-1")
    done = fresh.flux("submit", "-N", "2", "sleep", "6")
    name = "f" + done.stdout.strip()[1:]
    eventually("it runs", lambda: resources(fresh)["ranks"][2]["state"] == "allocated")
    drain: dict[str, Any] = {"hosts": ["b-1"], "state": "drained"}
    found = module(fresh, "flux_nodes", timeout=1, **drain)
    assert f"job {name} still runs there" in found["msg"]
    assert module(fresh, "flux_nodes", timeout=30, **drain)["ranks"][0]["state"] == "drained"
    assert fresh.flux("jobs", "-n", "-a", "-o", "{status_abbrev}").stdout.strip() == "CD"


def test_a_host_that_is_not_declared_is_one_clear_error(shared: Instance) -> None:
    assert "found c-1 not in it" in online(shared, "c-1")["msg"]


def test_without_hosts_nothing_is_done(shared: Instance) -> None:
    assert not online(shared)["changed"]


def test_the_identity_is_what_machines_must_share(shared: Instance) -> None:
    found = module(shared, "flux_identity_info")
    assert found["hosts"] == ["lead", "worker", *BURST]
    assert (found["user"], found["uid"]) == ("root", 0)
    assert found["version"].startswith("0.88.")
    assert found["security_version"].startswith("0.15.")
    assert found["exec_path"].endswith("/libexec/flux/cmd")
    assert found["module_path"].endswith("/flux/modules")
    assert len(found["cert_fingerprint"]) == 64
    assert abs(found["time"] - time.time()) < 10


def test_an_identity_is_asked_of_the_lead_only(fresh: Instance) -> None:
    fresh.start("worker")
    online(fresh, "worker")
    found = module(fresh, "flux_identity_info", uri=fresh.uri("worker"))
    assert "wanted the lead broker (rank 0)" in found["msg"]


READERS = ("flux_queue_info", "flux_resource_info", "flux_identity_info")


@pytest.mark.parametrize("name", READERS)
def test_no_broker_at_the_uri_is_one_clear_error(
    shared: Instance, name: str, tmp_path: Path
) -> None:
    assert "found no socket there" in module(shared, name, uri=f"local://{tmp_path}/none")["msg"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/dead")
    assert "Connection refused" in module(shared, name, uri=f"local://{tmp_path}/dead")["msg"]


@pytest.mark.parametrize("name", READERS)
def test_a_broker_that_does_not_answer_is_told_within_the_limit(fresh: Instance, name: str) -> None:
    pid = int(fresh.ask("attr.get", {"name": "broker.pid"})["value"])
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        found = module(fresh, name, rpc_timeout=1)
        assert time.monotonic() - began < 6
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "within 1 s" in found["msg"] or "no answer" in found["msg"]


def test_what_failed_on_a_machine_is_told_at_once_even_where_its_broker_is_online(
    fresh: Instance,
) -> None:
    fresh.start("b-2")
    online(fresh, "b-2")
    base = "stage base: wanted the IMP setuid, found it without: chmod it."
    reports = {
        "b-2": {"failure": base},
        "b-1": {"failure": "stage tunnel: wanted SSH, found none: wait."},
        # The machine's own words tell more than the message.
        "b-3": {"failure": "stage broker: x: y.", "log": ["Config file error: x"], "reached": True},
    }
    before = time.monotonic()
    for check in (False, True):
        found = online(fresh, *BURST, timeout=60, reports=reports, check=check)["findings"]
        told = {row["host"]: row["stage"] for row in found}
        assert told == {
            "b-1": "tunnel",
            "b-2": "base",
            "b-3": "broker" if check else "configuration",
        }
    assert time.monotonic() - before < 30, "nobody waits for machines that failed"


def test_nodes_are_proven_in_whatever_order_they_are_named(fresh: Instance) -> None:
    for host in ("b-1", "b-2"):
        fresh.start(host)
    found = online(fresh, "b-2", "b-1", prove=True, imp="")
    assert found["findings"] == [], found


def test_a_job_s_user_must_be_known_and_its_directory_had_better_be_there(fresh: Instance) -> None:
    fresh.start("b-1")
    jobs = [
        {"id": "f1", "user_id": 0, "cwd": "/tmp"},
        {"id": "f2", "user_id": 0, "cwd": "/no/such/directory"},
    ]
    found = online(fresh, "b-1", prove=True, imp="", jobs=jobs)
    assert found["findings"] == []
    assert found["missing_directories"] == {"/no/such/directory": ["b-1"]}
    [warning] = found["warnings"]
    assert "job f2 starts in /no/such/directory, which is not on b-1" in str(warning)
    assert "--cwd" in str(warning)
    found = online(fresh, "b-1", prove=True, imp="", jobs=[{**jobs[1], "user_id": 987654}])
    (finding,) = found["findings"]
    assert (finding["stage"], "userid 987654" in finding["cause"]) == ("user", True)
    assert len(found["warnings"]) == 1
