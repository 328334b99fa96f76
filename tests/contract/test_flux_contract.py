# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection relies on in Flux, asked of the stand-in and of the real Flux, which is the judge."""

from __future__ import annotations

import os
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


def test_a_node_that_is_down_can_be_drained(pair: Instance) -> None:
    pair.ask("resource.drain", {"targets": "2", "reason": "kept out"})
    assert "2" in pair.ask("resource.status")["drain"]
    pair.ask("resource.undrain", {"targets": "2"})


def test_resource_list_shows_who_is_free_and_who_is_down(pair: Instance) -> None:
    rows = [line.split() for line in pair.flux("resource", "list").stdout.splitlines()]
    assert rows[0] == ["STATE", "PROPERTIES", "NNODES", "NCORES", "NGPUS", "NODELIST"]
    assert ["free", "2", "4", "0", "lead,worker"] in rows
    assert ["down", "burst", "1", "2", "0", "spare"] in rows
