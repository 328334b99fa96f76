# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection relies on in Flux, asked of the stand-in and of the real Flux, which is the judge."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flux_instances import Instance, eventually, real_flux

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


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instance]:
    """An instance whose lead runs, for one test."""
    instance = Instance(request.param, tmp_path)
    try:
        lead = instance.start("lead")
        eventually("the lead leads", lambda: lead.status.startswith("Running as leader of 3 node"))
        yield instance
    finally:
        instance.close()


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """A lead and a worker that joined it; `spare` is declared and down."""
    instance = Instance(request.param, tmp_path_factory.mktemp(request.param))
    try:
        instance.start("lead")
        worker = instance.start("worker")
        eventually(
            "the worker joins", lambda: worker.status.startswith("Running as member of 3 node")
        )
        eventually("the worker is online", lambda: instance.online() == "0-1")
        yield instance
    finally:
        instance.close()


def fails(instance: Instance, config: Path, name: str = "worker", hostname: str = "") -> str:
    """Return what a broker that must not start logs."""
    broker = instance.start(name, config, hostname)
    eventually("the broker gives up", lambda: broker.process.poll() is not None)
    assert broker.process.returncode != 0
    return broker.logged()


def test_a_member_leaves_at_once_when_it_is_stopped(fresh: Instance) -> None:
    worker = fresh.start("worker")
    eventually("the worker is online", lambda: fresh.online() == "0-1")
    worker.stop()
    eventually("the worker is offline", lambda: fresh.online() == "0", limit=3)


def test_a_member_waits_for_a_lead_that_is_not_there_and_joins_when_it_comes(
    fresh: Instance,
) -> None:
    fresh.brokers["lead"].stop()
    worker = fresh.start("worker")
    eventually("it says so", lambda: worker.status.startswith("Joining Flux instance via tcp://"))
    lead = fresh.start("lead")
    eventually("the lead leads", lambda: lead.status.startswith("Running as leader"))
    eventually("the worker joins", lambda: worker.status.startswith("Running as member"))


def test_another_certificate_stays_out_in_silence(fresh: Instance) -> None:
    other = fresh.folder / "other.cert"
    fresh.write_cert(other)
    worker = fresh.start("worker", fresh.config("worker", other))
    eventually("it tries", lambda: worker.status.startswith("Joining Flux instance via tcp://"))
    with pytest.raises(AssertionError, match="not within"):
        eventually("it joins", lambda: worker.status.startswith("Running as member"), limit=2)
    assert fresh.online() == "0"


def test_a_missing_certificate_is_named(fresh: Instance) -> None:
    missing = fresh.folder / "missing.cert"
    said = fails(fresh, fresh.config("worker", missing))
    assert f"Error loading certificate: {missing}: No such file or directory" in said


def test_a_certificate_that_others_can_read_is_refused(fresh: Instance) -> None:
    open_cert = fresh.folder / "open.cert"
    fresh.write_cert(open_cert, 0o644)
    said = fails(fresh, fresh.config("worker", open_cert))
    assert f"Error loading certificate: {open_cert}: readable by group/other" in said


def test_a_garbled_certificate_is_refused(fresh: Instance) -> None:
    garbled = fresh.folder / "garbled.cert"
    garbled.write_text("nothing of use\n")
    garbled.chmod(0o600)
    assert "Invalid argument" in fails(fresh, fresh.config("worker", garbled))


def test_a_hostname_that_is_not_in_hosts_is_named(fresh: Instance) -> None:
    said = fails(fresh, fresh.config("worker"), hostname="worker.example.org")
    assert "Config file error [bootstrap]: worker.example.org not found in hosts" in said


def test_an_unknown_key_in_bootstrap_is_an_error(fresh: Instance) -> None:
    config = fresh.config("worker")
    text = (config / "system.toml").read_text()
    (config / "system.toml").write_text(text.replace("[bootstrap]\n", "[bootstrap]\nfoo = 1\n"))
    said = fails(fresh, config)
    assert "Config file error [bootstrap]: 1 object item(s) left unpacked: foo" in said


def test_a_typing_error_is_an_error_with_its_line(fresh: Instance) -> None:
    config = fresh.config("worker")
    (config / "system.toml").write_text("[bootstrap]\nhosts [\n")
    said = fails(fresh, config)
    assert "Config file error" in said
    assert "system.toml:2" in said


def test_a_resource_table_of_ones_own_ends_a_member_for_good(fresh: Instance) -> None:
    table = (
        '[resource]\nnoverify = true\n[[resource.config]]\nhosts = "lead,worker"\ncores = "0-1"\n'
    )
    worker = fresh.start("worker", fresh.config("worker", extra=table))
    eventually("the broker gives up", lambda: worker.process.poll() is not None)
    assert worker.process.returncode == 42
    assert "error reranking R" in worker.logged()


def test_hosts_in_another_order_are_refused_by_the_lead(fresh: Instance) -> None:
    config = fresh.config("worker")
    system = config / "system.toml"
    swapped = system.read_text().replace('"worker"', '"x"').replace('"spare"', '"worker"')
    system.write_text(swapped.replace('"x"', '"spare"'))
    assert "overlay.hello: Invalid argument" in fails(fresh, config)
    lead = fresh.brokers["lead"]
    wanted = "rejecting connection from worker (rank 2): spare is configured as rank 2: mismatched config?"
    eventually("the lead says so", lambda: wanted in lead.logged(), limit=3)


def shape(value: Any) -> Any:
    """The types of a JSON value, key by key."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return "number" if isinstance(value, (int, float)) else type(value).__name__


R = {
    "version": "number",
    "execution": {
        "R_lite": [{"rank": "str", "children": {"core": "str"}}],
        "starttime": "number",
        "expiration": "number",
        "nodelist": ["str"],
        "properties": {"burst": "str"},
    },
}


def test_resource_status_has_the_shape_that_we_read(pair: Instance) -> None:
    status = pair.ask("resource.status")
    wanted = {key: "str" for key in ("online", "offline", "exclude", "torpid")}
    assert shape(status) == {"R": R, "drain": {}, **wanted}
    assert (status["online"], status["offline"]) == ("0-1", "2")


def test_sched_resource_status_has_the_shape_that_we_read(pair: Instance) -> None:
    status = pair.ask("sched.resource-status")
    assert shape(status["all"]) == R
    assert status["allocated"]["execution"]["R_lite"] == []
    assert status["down"]["execution"]["R_lite"][0]["rank"] == "2"


def test_attributes_tell_who_the_lead_is(pair: Instance) -> None:
    assert pair.ask("attr.get", {"name": "rank"})["value"] == "0"
    assert pair.ask("attr.get", {"name": "size"})["value"] == "3"
    assert pair.ask("attr.get", {"name": "security.owner"})["value"] == str(os.getuid())
    assert pair.ask("attr.get", {"name": "version"})["value"].startswith("0.88.0")
    with pytest.raises(FileNotFoundError):
        pair.ask("attr.get", {"name": "nothing"})


def test_the_lead_tells_when_it_started(pair: Instance) -> None:
    started = float(pair.ask("attr.get", {"name": "broker.starttime"})["value"])
    assert 0 < time.time() - started < 600


def test_a_broker_greets_who_connects_and_minds_no_one_who_leaves(pair: Instance) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        probe.connect(pair.uri("lead").removeprefix("local://"))
        assert probe.recv(1) == b"\0"
    assert pair.online() == "0-1"


def test_a_question_without_what_it_needs_and_one_of_nobody_are_errors(pair: Instance) -> None:
    questions: list[tuple[str, Any]] = [
        ("attr.get", {}),
        ("job-list.list-id", {"id": 1}),
        ("job-manager.queue-status", None),
        ("log.dmesg", None),
        ("kvs.lookup", {"key": "a", "flags": 0}),
    ]
    for topic, payload in questions:
        with pytest.raises(OSError, match=r"\[Errno 71\]"):
            pair.ask(topic, payload)
    with pytest.raises(OSError, match=r"No service matching no\.such is registered"):
        pair.ask("no.such", {})


def test_answers_belong_to_their_questions_in_whatever_order_they_are_read(pair: Instance) -> None:
    assert pair.by_bindings("""
names = ["rank", "size", "version"] * 100
futures = [handle.rpc("attr.get", {"name": name}) for name in names]
values = {}
for name, future in reversed(list(zip(names, futures))):
    future.wait_for(10)
    values.setdefault(name, set()).add(future.get()["value"])
answer = [values["rank"] == {"0"}, values["size"] == {"3"}, len(values["version"])]
""") == [True, True, 1]


def test_waiting_has_an_end_and_may_begin_again(pair: Instance) -> None:
    assert pair.by_bindings("""
future = handle.rpc("resource.journal", {}, flags=2)
texts, numbers = [], []
while not texts or json.loads(texts[-1])["events"]:
    future.wait_for(10)
    texts.append(future.get_str())
    future.reset()
for unused in range(2):
    began = time.monotonic()
    try:
        future.wait_for(0.2)
    except OSError as error:
        numbers.append([error.errno, 0.1 < time.monotonic() - began < 2])
other = flux.Flux(sys.argv[1])
other.rpc("resource.drain", {"targets": "2", "reason": "live"}).get()
other.rpc("resource.undrain", {"targets": "2"}).get()
live = []
for unused in range(2):
    future.wait_for(10)
    live.append([event["name"] for event in future.get()["events"]])
    future.reset()
answer = [numbers, live]
""") == [[[110, True], [110, True]], [["drain"], ["undrain"]]]


def test_the_bindings_tell_their_version_as_the_broker_does(pair: Instance) -> None:
    mine, theirs = pair.by_bindings("""
from flux.core.inner import raw
mine = raw.flux_core_version_string()
mine = mine.decode() if isinstance(mine, bytes) else mine
answer = [mine, handle.rpc("attr.get", {"name": "version"}).get()["value"]]
""")
    assert mine == theirs


def test_a_guest_reads_the_queue_and_the_ranks_but_not_what_is_the_owners(
    pair: Instance, job: dict[str, Any]
) -> None:
    open_to_all: list[tuple[str, Any]] = [
        ("attr.get", {"name": "rank"}),
        ("resource.status", None),
        ("job-list.list", {"max_entries": 0, "attrs": []}),
        ("job-list.job-stats", None),
        ("job-manager.queue-status", {}),
        ("overlay.health", None),
    ]
    for topic, payload in open_to_all:
        assert pair.ask_as_guest(topic, payload)
    memo = {"id": job["id"], "volatile": False, "memo": {"burst": {"name": "x"}}}
    the_owners: list[tuple[str, Any]] = [
        ("resource.drain", {"targets": "2", "reason": "x"}),
        ("resource.undrain", {"targets": "2"}),
        ("resource.journal", {}),
        ("sched.resource-status", None),
        ("log.dmesg", {"follow": False, "nobacklog": False}),
        ("job-manager.events-journal", {}),
        ("job-info.lookup", {"id": job["id"], "keys": ["jobspec"], "flags": 2}),
        ("job-manager.memo", memo),
        ("kvs.lookup", {"key": "burst", "namespace": "primary", "flags": 1}),
        ("kvs.commit", {"namespace": "primary", "flags": 4, "ops": []}),
        ("overlay.disconnect-subtree", {"rank": 1}),
    ]
    for topic, payload in the_owners:
        with pytest.raises(PermissionError):
            pair.ask_as_guest(topic, payload)


def test_the_configuration_is_given_as_it_was_written(pair: Instance) -> None:
    config = pair.ask("config.get")
    assert [entry["host"] for entry in config["bootstrap"]["hosts"]] == ["lead", "worker", "spare"]
    assert config["bootstrap"]["curve_cert"] == str(pair.cert)


def test_a_waiting_job_is_listed_with_its_jobspec(pair: Instance) -> None:
    done = pair.flux("submit", "-N", "3", "--cwd", "/tmp", "--setattr=burstable", "hostname")
    assert done.returncode == 0, done.stderr
    payload = {"max_entries": 0, "attrs": ["all"], "constraint": {"states": ["pending"]}}
    (job,) = pair.ask("job-list.list", payload)["jobs"]
    assert (job["nnodes"], job["name"], job["state"], job["urgency"]) == (3, "hostname", 8, 16)
    question = {"id": job["id"], "keys": ["jobspec"], "flags": 0}
    jobspec = pair.ask("job-info.lookup", question)["jobspec"]
    assert '"burstable":1' in jobspec
    assert '"cwd":"/tmp"' in jobspec
    with pytest.raises(FileNotFoundError):
        pair.ask("job-info.lookup", {**question, "id": 12345})
    assert pair.flux("cancel", done.stdout.strip()).returncode == 0
    eventually("it is gone", lambda: pair.ask("job-list.list", payload)["jobs"] == [])


def test_a_job_runs_on_every_node_that_it_was_given(pair: Instance) -> None:
    done = pair.flux("run", "-N", "2", "hostname")
    assert sorted(done.stdout.split()) == ["lead", "worker"], done.stderr
    eventually(
        "the nodes are free again",
        lambda: pair.ask("sched.resource-status")["allocated"]["execution"]["R_lite"] == [],
    )


def test_a_job_that_can_never_run_is_refused(pair: Instance) -> None:
    done = pair.flux("submit", "-N", "4", "hostname")
    assert done.returncode == 1
    assert (
        "[Errno 75] unsatisfiable request: need 4 exclusive node(s), only 3 eligible" in done.stderr
    )


def test_a_drain_has_a_reason_and_is_taken_away_once(pair: Instance) -> None:
    pair.ask("resource.drain", {"targets": "1", "reason": "end of the burst"})
    (drain,) = pair.ask("resource.status")["drain"].items()
    assert (drain[0], drain[1]["reason"]) == ("1", "end of the burst")
    with pytest.raises(FileExistsError):
        pair.ask("resource.drain", {"targets": "1", "reason": "again"})
    pair.ask("resource.undrain", {"targets": "1"})
    with pytest.raises(FileExistsError):
        pair.ask("resource.undrain", {"targets": "1"})
    assert pair.ask("resource.status")["drain"] == {}


def test_a_drain_is_written_over_where_that_is_asked_for(pair: Instance) -> None:
    pair.ask("resource.drain", {"targets": "1", "reason": "one"})
    with pytest.raises(FileExistsError, match="rank 1 already drained"):
        pair.ask("resource.drain", {"targets": "0-1", "reason": "two"})
    pair.ask("resource.drain", {"targets": "1-2", "reason": "three", "mode": "update"})
    assert {d["reason"] for d in pair.ask("resource.status")["drain"].values()} == {"one", "three"}
    pair.ask("resource.drain", {"targets": "1-2", "reason": "four", "mode": "overwrite"})
    drains = pair.ask("resource.status")["drain"]
    assert {drain["reason"] for drain in drains.values()} == {"four"}
    assert sorted("".join(drains).replace("-", "")) == ["1", "2"]
    with pytest.raises(FileExistsError, match="rank 0 not drained"):
        pair.ask("resource.undrain", {"targets": "0-2"})
    pair.ask("resource.undrain", {"targets": "1-2"})


def test_hosts_that_there_are_not_cannot_be_drained(pair: Instance) -> None:
    with pytest.raises(OSError, match="invalid targets: invalid hosts: nohost"):
        pair.ask("resource.drain", {"targets": "nohost"})
    with pytest.raises(OSError, match="idset is out of range"):
        pair.ask("resource.drain", {"targets": "9"})


def test_a_node_that_is_down_can_be_drained(pair: Instance) -> None:
    pair.ask("resource.drain", {"targets": "2", "reason": "kept out"})
    assert "2" in pair.ask("resource.status")["drain"]
    pair.ask("resource.undrain", {"targets": "2"})


def test_resource_list_shows_who_is_free_and_who_is_down(pair: Instance) -> None:
    rows = [line.split() for line in pair.flux("resource", "list").stdout.splitlines()]
    assert rows[0] == ["STATE", "PROPERTIES", "NNODES", "NCORES", "NGPUS", "NODELIST"]
    assert ["free", "2", "4", "0", "lead,worker"] in rows
    assert ["down", "burst", "1", "2", "0", "spare"] in rows


def submitted(instance: Instance, *words: str) -> dict[str, Any]:
    """Submit a job that waits, and return its entry of job-list."""
    done = instance.flux("submit", "-N", "3", "--cwd", "/tmp", *words, "hostname")
    assert done.returncode == 0, done.stderr
    return listed(instance, {"states": ["pending"]})[-1]


def listed(instance: Instance, constraint: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """Return what job-list lists."""
    payload = {"max_entries": 0, "attrs": ["all"], "constraint": constraint, **more}
    found: list[dict[str, Any]] = instance.ask("job-list.list", payload)["jobs"]
    return found


@pytest.fixture
def job(pair: Instance) -> Iterator[dict[str, Any]]:
    """A job that waits."""
    made = submitted(pair, "--setattr=burstable", "--job-name=named")
    yield made
    pair.flux("cancel", str(made["id"]))
    eventually("it is gone", lambda: listed(pair, {"states": ["pending"]}) == [])


@pytest.mark.parametrize(
    ("constraint", "found"),
    [
        ({"and": [{"states": ["pending"]}, {"name": ["named"]}]}, True),
        ({"and": [{"states": ["pending"]}, {"name": ["other"]}]}, False),
        ({"userid": [0]}, True),
        ({"userid": [7]}, False),
        ({"queue": ["batch"]}, False),
        ({"t_submit": [">=1.0"]}, True),
        ({"and": [{"states": ["pending"]}, {"t_submit": ["<=1.0"]}]}, False),
        ({"and": [{"states": ["pending"]}, {"hostlist": ["lead"]}]}, False),
        ({"and": [{"states": ["pending"]}, {"not": [{"name": ["named"]}]}]}, False),
        ({"or": [{"name": ["other"]}, {"name": ["named"]}]}, True),
        ({"states": ["PENDING"]}, True),
        ({"states": [8]}, True),
        ({"userid": [-1]}, True),
        ({"or": []}, True),
        ({}, True),
        ({"name": []}, False),
        ({"t_inactive": [">1.0"]}, False),
        ({"ranks": ["0-2"]}, False),
    ],
)
def test_job_list_selects_by_constraint(
    pair: Instance, job: dict[str, Any], constraint: dict[str, Any], found: bool
) -> None:
    assert (job["id"] in [row["id"] for row in listed(pair, constraint)]) == found


def test_job_list_refuses_a_state_that_there_is_not(pair: Instance) -> None:
    with pytest.raises(OSError, match="invalid states value 'foo' specified"):
        listed(pair, {"states": ["foo"]})


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        (None, "constraint must be JSON object"),
        ({"name": ["a"], "userid": [0]}, "constraint must only contain 1 element"),
        ({"foo": ["a"]}, "unknown constraint operator: foo"),
        ({"states": "pending"}, "operator states values not an array"),
        ({"userid": ["x"]}, "userid value must be an integer"),
        ({"t_submit": ["1.0"]}, "timestamp comparison operator not specified"),
        ({"t_submit": [">x"]}, "Invalid timestamp value specified"),
        ({"ranks": ["x"]}, "ranks value 'x': error parsing range 'x'"),
    ],
)
def test_job_list_refuses_a_constraint_that_is_none(
    pair: Instance, constraint: Any, said: str
) -> None:
    with pytest.raises(OSError, match=f"constraint object invalid: {said}") as refused:
        listed(pair, constraint)
    assert refused.value.errno == 71


def test_job_list_refuses_attributes_that_there_are_not(
    pair: Instance, job: dict[str, Any]
) -> None:
    with pytest.raises(OSError, match="foo is not a valid attribute"):
        listed(pair, {}, attrs=["foo"])
    with pytest.raises(OSError, match="foo is not a valid attribute"):
        pair.ask("job-list.list-id", {"id": job["id"], "attrs": ["foo"]})


def test_jobs_are_listed_pending_by_priority_then_running_then_ended_newest_first(
    fresh: Instance,
) -> None:
    for name in ("first", "second"):
        run = fresh.flux("run", "-n", "1", "--cwd", "/tmp", f"--job-name={name}", "true")
        assert run.returncode == 0, run.stderr
    fresh.flux("submit", "-n", "1", "--cwd", "/tmp", "--job-name=runs", "sleep", "30")
    eventually("it runs", lambda: len(listed(fresh, {"states": ["running"]})) == 1)
    for name, urgency in (("low", "10"), ("held", "hold"), ("high", "20")):
        submitted(fresh, f"--job-name={name}", f"--urgency={urgency}")
    wanted = ["high", "low", "held", "runs", "second", "first"]
    assert [row["name"] for row in listed(fresh, {})] == wanted
    assert [row["name"] for row in listed(fresh, {}, max_entries=2)] == wanted[:2]
    assert [row["name"] for row in listed(fresh, {"ranks": ["0"]})] == ["runs", "second", "first"]
    assert listed(fresh, {"hostlist": ["worker,spare"]}) == []
    kinds = {row["name"]: row.get("result") for row in listed(fresh, {})}
    assert (kinds["first"], kinds["runs"], kinds["high"]) == (1, None, None)


def test_job_list_gives_the_attributes_that_are_asked_for(
    pair: Instance, job: dict[str, Any]
) -> None:
    question = {"max_entries": 0, "attrs": [], "constraint": {"states": ["pending"]}}
    (row,) = pair.ask("job-list.list", question)["jobs"]
    assert row == {"id": job["id"]}
    question = {"id": job["id"], "attrs": ["state", "name"]}
    assert pair.ask("job-list.list-id", question) == {
        "job": {"id": job["id"], "state": 8, "name": "named"}
    }
    with pytest.raises(FileNotFoundError):
        pair.ask("job-list.list-id", {**question, "id": 77})


def test_jobs_are_counted_by_state(pair: Instance, job: dict[str, Any]) -> None:
    stats = pair.ask("job-list.job-stats")["job_states"]
    assert stats["sched"] == 1
    assert stats["depend"] == stats["priority"] == 0
    assert stats["total"] == sum(count for state, count in stats.items() if state != "total")


def test_a_jobspec_can_be_had_as_text_and_as_an_object_but_not_what_is_not_there(
    pair: Instance, job: dict[str, Any]
) -> None:
    def lookup_of(key: str, flags: int, number: int = job["id"]) -> Any:
        question = {"id": number, "keys": [key], "flags": flags}
        return pair.ask("job-info.lookup", question)[key]

    text, made = lookup_of("jobspec", 2), lookup_of("jobspec", 3)
    assert json.loads(text) == made
    assert made["attributes"]["system"]["burstable"] == 1
    names = [json.loads(line)["name"] for line in lookup_of("eventlog", 0).splitlines()]
    assert names == ["submit", "validate", "depend", "priority"]
    with pytest.raises(FileNotFoundError, match="invalid job id"):
        lookup_of("jobspec", 2, 77)
    with pytest.raises(FileNotFoundError, match="R: key not found"):
        lookup_of("R", 0)
    with pytest.raises(OSError, match="lookup request rejected with invalid flag"):
        lookup_of("jobspec", 8)


def test_ended_jobs_are_listed_since_a_time_with_their_ranks(pair: Instance) -> None:
    assert pair.flux("run", "-N", "2", "hostname").returncode == 0
    eventually("it has ended", lambda: listed(pair, {"states": ["running"]}) == [])
    newest = listed(pair, {"states": ["inactive"]})[0]
    assert newest["ranks"] == "[0-1]"
    assert listed(pair, {"states": ["inactive"]}, since=newest["t_inactive"]) == []


def test_every_active_job_is_in_the_journal_with_its_jobspec_before_the_sentinel(
    pair: Instance, job: dict[str, Any]
) -> None:
    responses, number = pair.follow("job-manager.events-journal", {"allow": {"submit": 1}})
    entry, sentinel = map(json.loads, responses)
    assert (entry["id"], entry["events"][0]["name"]) == (job["id"], "submit")
    assert entry["jobspec"]["attributes"]["system"]["burstable"] == 1
    assert "environment" not in entry["jobspec"]["attributes"]["system"]
    assert sentinel == {"id": -1, "events": []}
    assert len(responses[1]) < 64
    assert number == 110


def test_the_journal_of_jobs_goes_on_with_what_happens_and_leaves_out_what_nobody_wants(
    pair: Instance, job: dict[str, Any]
) -> None:
    def names(payload: dict[str, Any]) -> list[list[str]]:
        entries = map(json.loads, pair.follow("job-manager.events-journal", payload)[0])
        return [[event["name"] for event in entry["events"]] for entry in entries]

    log = ["submit", "validate", "depend", "priority"]
    assert names({}) == [log, []]
    assert names({"deny": {"submit": 1}}) == [log[1:], []]
    assert names({"allow": {"start": 1}}) == [[], []]
    ended = submitted(pair)
    assert pair.flux("cancel", str(ended["id"])).returncode == 0
    eventually("it has ended", lambda: len(listed(pair, {"states": ["pending"]})) == 1)
    assert names({"allow": {"submit": 1}}) == [["submit"], []]
    assert len(names({"full": True, "allow": {"submit": 1}})) > 2
    live = pair.by_bindings(f"""
future = handle.rpc("job-manager.events-journal", {{"allow": {{"memo": 1}}}}, flags=2)
while future.get()["id"] != -1:
    future.reset()
question = {{"id": {job["id"]}, "volatile": False, "memo": {{"tried": 1}}}}
flux.Flux(sys.argv[1]).rpc("job-manager.memo", question).get()
future.reset()
future.wait_for(10)
answer = future.get()
""")
    (event,) = live["events"]
    assert (live["id"], event["name"], event["context"]) == (job["id"], "memo", {"tried": 1})


@pytest.mark.parametrize("topic", ["resource.journal", "log.dmesg", "job-manager.events-journal"])
def test_a_stream_is_refused_to_who_does_not_stream(pair: Instance, topic: str) -> None:
    payload = {"follow": False, "nobacklog": False} if topic == "log.dmesg" else {}
    with pytest.raises(OSError, match=r"\[Errno 71\]"):
        pair.ask(topic, payload)


def test_the_journal_of_resources_tells_what_happened_and_what_happens(pair: Instance) -> None:
    def events() -> list[dict[str, Any]]:
        responses, number = pair.follow("resource.journal")
        assert number == 110
        batches = [json.loads(text)["events"] for text in responses]
        assert batches[-1] == []
        return [event for batch in batches for event in batch]

    first = events()
    assert [event["name"] for event in first][:2] == ["restart", "resource-define"]
    online = [event["context"]["idset"] for event in first if event["name"] == "online"]
    assert online == ["0", "1"]
    pair.ask("resource.drain", {"targets": "1", "reason": "tried"})
    pair.ask("resource.undrain", {"targets": "1"})
    drain, undrain = events()[len(first) :]
    assert (drain["name"], undrain["name"]) == ("drain", "undrain")
    assert drain["context"] == {
        **{"idset": "1", "nodelist": "worker"},
        **{"reason": "tried", "overwrite": 0},
    }
    assert undrain["context"] == {"idset": "1", "nodelist": "worker", "overwrite": 0}
    batches = map(json.loads, pair.follow("resource.journal")[0])
    (define,) = [batch for batch in batches if "R" in batch]
    assert (define["events"][0]["name"], shape(define["R"])) == ("resource-define", R)


def test_the_log_is_read_to_its_end(fresh: Instance) -> None:
    config = fresh.config("worker")
    system = config / "system.toml"
    swapped = system.read_text().replace('"worker"', '"x"').replace('"spare"', '"worker"')
    system.write_text(swapped.replace('"x"', '"spare"'))
    fails(fresh, config)
    lines, number = fresh.follow("log.dmesg", {"follow": False, "nobacklog": False})
    assert number == 61
    (line,) = [line for line in lines if "rejecting connection from worker (rank 2)" in line]
    assert line.startswith("<24>1 ")
    assert " - - " in line


def test_the_log_can_be_followed_and_its_past_left_out(pair: Instance) -> None:
    assert pair.follow("log.dmesg", {"follow": False, "nobacklog": True}) == ([], 61)
    lines, number = pair.follow("log.dmesg", {"follow": True, "nobacklog": False})
    assert number == 110
    assert any("accepting connection from worker (rank 1) status full" in line for line in lines)


def test_the_overlay_tells_of_a_member_that_failed(fresh: Instance) -> None:
    worker = fresh.start("worker")
    eventually("the worker is online", lambda: fresh.online() == "0-1")
    os.killpg(worker.process.pid, signal.SIGKILL)
    eventually("it is offline", lambda: fresh.online() == "0")
    health = fresh.ask("overlay.health")
    child = health["children"][0]
    assert (health["status"], child["status"]) == ("degraded", "lost")
    assert child["error"] == "lost connection"
    lines, _unused = fresh.follow("log.dmesg", {"follow": False, "nobacklog": False})
    assert any(line.startswith("<24>1 ") and "worker (rank 1) failed" in line for line in lines)


def test_a_member_that_is_disconnected_is_lost_and_its_broker_ends(fresh: Instance) -> None:
    worker = fresh.start("worker")
    eventually("the worker is online", lambda: fresh.online() == "0-1")
    fresh.ask("overlay.disconnect-subtree", {"rank": 1})
    eventually("it is offline", lambda: fresh.online() == "0")
    child = fresh.ask("overlay.health")["children"][0]
    assert (child["status"], child["error"]) == ("lost", "administrative disconnect")
    eventually("its broker ends", lambda: worker.process.poll() is not None)
    assert worker.process.returncode == 1
    assert "parent update: overlay disconnect" in worker.logged()
    with pytest.raises(OSError, match="rank 1 is already lost"):
        fresh.ask("overlay.disconnect-subtree", {"rank": 1})
    with pytest.raises(OSError, match="rank 2 is already offline"):
        fresh.ask("overlay.disconnect-subtree", {"rank": 2})
    fresh.start("worker")
    eventually("it joins again", lambda: fresh.online() == "0-1")


def test_the_topology_of_a_rank_that_there_is_not_is_an_error(pair: Instance) -> None:
    assert pair.ask("overlay.topology", {"rank": 1}) == {"rank": 1, "size": 1, "children": []}
    with pytest.raises(FileNotFoundError, match="requested rank is not this broker"):
        pair.ask("overlay.topology", {"rank": 9})


def test_the_overlay_tells_who_is_there_and_why_not(fresh: Instance) -> None:
    worker = fresh.start("worker")
    eventually("the worker is online", lambda: fresh.online() == "0-1")

    def child() -> dict[str, Any]:
        children = fresh.ask("overlay.health")["children"]
        assert children[1] == {**children[1], "rank": 2, "status": "offline"}
        found: dict[str, Any] = children[0]
        return found

    assert (child()["rank"], child()["status"], child().get("error")) == (1, "full", None)
    topology = fresh.ask("overlay.topology", {"rank": 0})
    assert [row["rank"] for row in topology["children"]] == [1, 2]
    worker.stop()
    eventually("it has left", lambda: child()["status"] == "offline")
    assert child()["error"] == "administrative shutdown"


def test_a_peer_that_is_not_there_cannot_be_disconnected(pair: Instance) -> None:
    with pytest.raises(FileNotFoundError):
        pair.ask("overlay.disconnect-subtree", {"rank": 7})


def test_a_memo_is_shown_with_the_job_until_it_is_taken_away(
    pair: Instance, job: dict[str, Any]
) -> None:
    def memo(value: Any, number: int = job["id"]) -> None:
        pair.ask("job-manager.memo", {"id": number, "volatile": False, "memo": {"burst": value}})

    def notes() -> Any:
        row = pair.ask("job-list.list-id", {"id": job["id"], "attrs": ["annotations"]})["job"]
        return row.get("annotations", {}).get("user", {})

    memo({"name": "one"})
    eventually("it is shown", lambda: notes() == {"burst": {"name": "one"}})
    memo({"until": 3.5})
    both = {"burst": {"name": "one", "until": 3.5}}
    eventually("the one is laid over the other", lambda: notes() == both)
    shown = pair.flux("jobs", "-no", "{name} {status} {user.burst.name}|{user.nothing}")
    assert shown.stdout == "named SCHED one|\n"
    memo(None)
    eventually("it is gone", lambda: notes() == {})
    with pytest.raises(FileNotFoundError, match="unknown job id"):
        memo({"name": "one"}, 77)
    with pytest.raises(OSError, match="Invalid argument"):
        pair.ask("job-manager.memo", {"id": job["id"], "volatile": False, "memo": "text"})


def test_flux_jobs_has_titles_and_refuses_a_field_that_there_is_not(
    pair: Instance, job: dict[str, Any]
) -> None:
    shown = pair.flux("jobs", "-o", "{name} {status_abbrev} {username} {user.burst.name}")
    assert shown.stdout == "NAME ST USER USER.BURST.NAME\nnamed S root \n"
    done = pair.flux("jobs", "-o", "{foo}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("Error in user format: Unknown format field: foo\n")


def test_the_queue_is_open(pair: Instance) -> None:
    status = pair.ask("job-manager.queue-status", {})
    assert (status["enable"], status["start"]) == (True, True)
    with pytest.raises(OSError, match="'nope' is not a valid queue"):
        pair.ask("job-manager.queue-status", {"name": "nope"})


def commit(instance: Instance, key: str, text: str | None, flags: int = 32) -> None:
    """Append a text to a key, or remove it."""
    data = None if text is None else base64.b64encode(text.encode()).decode()
    entry = None if data is None else {"ver": 1, "type": "val", "data": data}
    operation = {"key": key, "flags": flags if entry else 0, "dirent": entry}
    instance.ask("kvs.commit", {"namespace": "primary", "flags": 4, "ops": [operation]})


def lookup(instance: Instance, key: str, flags: int = 0) -> Any:
    """Return an entry of the store."""
    question = {"key": key, "namespace": "primary", "flags": flags}
    return instance.ask("kvs.lookup", question)["val"]


def test_what_is_appended_keeps_its_order_and_a_folder_shows_its_keys(pair: Instance) -> None:
    with pytest.raises(FileNotFoundError):
        lookup(pair, "burst.test", 1)
    commit(pair, "burst.test.a", "one")
    commit(pair, "burst.test.b", "x")
    commit(pair, "burst.test.a", "two")
    assert lookup(pair, "burst.test.a") == {"ver": 1, "type": "val", "data": "b25ldHdv"}
    folder = lookup(pair, "burst.test", 1)
    assert {name: entry["type"] for name, entry in folder["data"].items()} == {
        "a": "valref",
        "b": "val",
    }
    with pytest.raises(IsADirectoryError):
        lookup(pair, "burst.test")
    with pytest.raises(NotADirectoryError):
        lookup(pair, "burst.test.a", 1)
    for key in ("a", "b"):
        commit(pair, f"burst.test.{key}", None)
    assert lookup(pair, "burst.test", 1)["data"] == {}


def test_a_longer_value_is_a_reference_from_the_first_on(pair: Instance) -> None:
    commit(pair, "burst.long.a", "x" * 54)
    commit(pair, "burst.long.b", "x" * 55)
    found = lookup(pair, "burst.long", 1)["data"]
    assert {name: entry["type"] for name, entry in found.items()} == {"a": "val", "b": "valref"}
    assert base64.b64decode(lookup(pair, "burst.long.b")["data"]) == b"x" * 55
    assert lookup(pair, "burst", 1)["data"]["long"]["type"] == "dirref"
    commit(pair, "burst.long", None)
    with pytest.raises(FileNotFoundError):
        lookup(pair, "burst.long", 1)


def test_what_is_put_replaces_what_was_appended_and_what_is_not_there_can_be_removed(
    pair: Instance,
) -> None:
    commit(pair, "burst.put.a", "one")
    commit(pair, "burst.put.a", "two")
    commit(pair, "burst.put.a", "three", flags=0)
    assert lookup(pair, "burst.put", 1)["data"]["a"] == {
        "ver": 1,
        "type": "val",
        "data": "dGhyZWU=",
    }
    commit(pair, "burst.put.nothing", None)
    commit(pair, "burst.nothing.nothing", None)
    with pytest.raises(FileNotFoundError):
        lookup(pair, "burst.nothing", 1)
    with pytest.raises(FileNotFoundError):
        lookup(pair, "burst.put.a.b")
    commit(pair, "burst.put", None)


def test_a_transaction_is_done_whole_or_not_at_all(pair: Instance) -> None:
    commit(pair, "burst.whole.a", "x")
    entry = {"ver": 1, "type": "val", "data": "eA=="}
    keys = ("burst.whole.b", "burst.whole")
    operations = [{"key": key, "flags": 32, "dirent": entry} for key in keys]
    with pytest.raises(IsADirectoryError):
        pair.ask("kvs.commit", {"namespace": "primary", "flags": 4, "ops": operations})
    assert list(lookup(pair, "burst.whole", 1)["data"]) == ["a"]
    bad = [{"key": "burst.whole.c", "flags": 0, "dirent": {"ver": 1}}]
    with pytest.raises(OSError, match="Invalid argument"):
        pair.ask("kvs.commit", {"namespace": "primary", "flags": 4, "ops": bad})
    with pytest.raises(OSError, match="Operation not supported"):
        pair.ask("kvs.commit", {"namespace": "nope", "flags": 4, "ops": []})
    with pytest.raises(OSError, match="Operation not supported"):
        pair.ask("kvs.lookup", {"key": "burst", "namespace": "nope", "flags": 1})
    commit(pair, "burst.whole", None)


def test_a_command_has_the_same_input_on_every_rank(pair: Instance) -> None:
    done = pair.flux("exec", "-l", "-r", "0-1", "--", "cat", given="one\ntwo\n")
    assert sorted(done.stdout.splitlines()) == ["0: one", "0: two", "1: one", "1: two"]
    assert pair.flux("exec", "-r", "1", "cat", given="no newline").stdout == "no newline"


def test_a_command_ends_with_the_largest_exit_code_of_its_ranks(pair: Instance) -> None:
    done = pair.flux("exec", "-r", "0-1", "sh", "-c", 'test "$(hostname)" = lead && exit 3; exit 5')
    assert done.returncode == 5
    assert sorted(done.stderr.splitlines()) == ["0: Exit 3", "1: Exit 5"]
    done = pair.flux("exec", "-r", "0-1", "sh", "-c", "exit 4")
    assert (done.returncode, done.stderr) == (4, "[0-1]: Exit 4\n")
    done = pair.flux("exec", "-r", "1", "sh", "-c", "kill -9 $$")
    assert (done.returncode, done.stderr) == (137, "1: Killed\n")


def test_a_command_that_cannot_start_and_a_rank_that_is_not_there_are_told(pair: Instance) -> None:
    done = pair.flux("exec", "-l", "-r", "1", "nosuchcommand")
    said = "rank 1: nosuchcommand: error launching process: No such file or directory"
    assert (done.returncode, done.stderr) == (127, f"flux-exec: Error: {said}\n")
    done = pair.flux("exec", "-l", "-r", "1-2", "hostname")
    said = "rank 2: hostname: No route to host"
    assert (done.returncode, done.stderr) == (68, f"flux-exec: Error: {said}\n")
    assert done.stdout == "1: worker\n"
    done = pair.flux("exec", "-r", "x", "hostname")
    assert (done.returncode, "failed to decode idset 'x'" in done.stderr) == (1, True)


def test_a_command_runs_on_ranks_and_its_lines_carry_the_rank(
    pair: Instance,
) -> None:
    done = pair.flux("exec", "-l", "-r", "0-1", "hostname")
    assert sorted(done.stdout.splitlines()) == ["0: lead", "1: worker"]
    done = pair.flux("exec", "-l", "-r", "1", "--", "sh", "-c", "echo said >&2; exit 3")
    assert done.returncode == 3
    assert done.stderr.splitlines()[0] == "1: said"
    done = pair.flux("exec", "-r", "9", "hostname")
    assert done.returncode != 0
    assert "invalid --ranks specified: 9" in done.stderr


def test_the_version_and_the_paths_are_told(pair: Instance) -> None:
    assert "libflux-security:" in pair.flux("version").stdout
    exec_path = pair.flux("config", "builtin", "exec_path").stdout.strip()
    assert exec_path.endswith("/libexec/flux/cmd")
    assert pair.flux("config", "builtin", "nothing").returncode != 0
