# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole burst as a user has it, step by step in one sandbox: the tests of this module run in their order.

Check mode -> burst -> again -> mend what was changed by hand -> teardown -> again, with the real Flux and with the
stand-in.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from burst_sandbox import LEAD, PREPARED, TOP, Run, Sandbox, one_flux

from sandbox.machines import processes
from sandbox.machines.cloudnet import machine_namespace
from sandbox.server.validate import check_log

pytestmark = pytest.mark.machines
# The way there and back is gone with the stand-in, too; all else does not depend on which Flux it is.
WITH_ONE_FLUX = pytest.mark.parametrize("sandbox", [one_flux()], indirect=True, scope="module")

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
EVERYONE = {*HOSTS, LEAD, "localhost"}
NOTHING = {
    "instances": [],
    "networks": [],
    "subnetworks": [],
    "routers": [],
    "firewalls": [],
    "addresses": [],
}
JOB = ["flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname"]


def succeeded(done: Run) -> Run:
    """Return the run, or fail with all that it printed."""
    assert done.code == 0, done.output
    return done


def burst_holdings(sandbox: Sandbox) -> dict[str, list[object]]:
    """What the burst's project holds in Compute Engine."""
    found: dict[str, list[object]] = sandbox.status()["projects"].get("sandbox-project", NOTHING)
    return found


def nodes(listed: str, state: str) -> str:
    """The nodes in a state, from the output of `flux resource list`, which has a row for each set of properties."""
    rows = [line.split() for line in listed.splitlines()]
    return ",".join(row[-1] for row in rows if row[0] == state and not row[-1].isdigit())


def secrets(sandbox: Sandbox) -> dict[str, bytes]:
    """The lead's munge key and the parts of its certificate, in every form in which they could be seen."""
    key = base64.b64decode(
        succeeded(sandbox.execute(LEAD, "base64", "-w0", "/etc/munge/munge.key")).output
    )
    cert = succeeded(sandbox.execute(LEAD, "cat", "/etc/flux/system/curve.cert")).output.encode()
    secret = next(line for line in cert.splitlines() if b"secret-key" in line).split(b'"')[1]
    return {
        "munge key": key,
        "munge key in base64": base64.b64encode(key)[:60],
        "munge key in hex": key.hex().encode()[:60],
        "certificate's secret key": secret,
        # Its beginning is the same in every certificate; the secret key is at its end.
        "certificate in base64": base64.b64encode(cert)[-48:],
    }


def controller_files(sandbox: Sandbox) -> list[Path]:
    """Every regular file that a run could have written on the controller; the machines' own disks are left out."""
    home = Path.home()
    tops = [
        sandbox.state,
        home / ".ansible",
        home / ".ssh",
        Path("/tmp"),
        TOP / ".cache",
        Path("/dev/shm"),
    ]
    found = []
    for top in tops:
        for folder, names, files in os.walk(top):
            if Path(folder) == sandbox.state:
                names[:] = [name for name in names if name != "machines"]
            paths = (Path(folder) / name for name in files)
            found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return found


def test_a_fresh_sandbox_has_a_lead_and_a_worker_and_nothing_in_the_project(
    sandbox: Sandbox,
) -> None:
    assert burst_holdings(sandbox) == NOTHING
    listed = succeeded(sandbox.on_lead("flux", "resource", "list")).output
    assert nodes(listed, "down") == "gffw-compute-a-[001-003]"


def test_a_queue_without_burstable_jobs_is_a_success_that_says_so(sandbox: Sandbox) -> None:
    done = succeeded(sandbox.playbook("burst"))
    assert "nothing to burst" in done.output
    assert done.changed == {}
    assert burst_holdings(sandbox) == NOTHING


@WITH_ONE_FLUX
@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("burst_hostlist", "gffw-compute-a-[001-", "hostlist"),
        ("burst_lead_port", "http", "int"),
        ("burst_name", "My_Burst", "lower case"),
        ("burst_machine_type", "n2-standard-2", "burst_machine_types"),
    ],
)
def test_bad_input_is_one_clear_error_and_creates_nothing(
    sandbox: Sandbox, variable: str, value: str, wanted: str
) -> None:
    done = sandbox.playbook("burst", "-e", f"{variable}={value}")
    assert done.code != 0
    assert variable in done.output
    assert wanted in done.output
    assert "Traceback" not in done.output
    assert burst_holdings(sandbox) == NOTHING


@WITH_ONE_FLUX
def test_a_run_that_ends_before_anything_is_made_keeps_no_other_controller_waiting(
    sandbox: Sandbox,
) -> None:
    done = sandbox.playbook("burst", "-e", "burst_hostlist=elsewhere-[1-3]")
    assert done.code != 0 and "elsewhere-" in done.output[done.output.rindex("fatal: ") :]
    assert "Traceback" not in done.output
    locks = sandbox.on_lead("sh", "-c", "flux kvs ls -1 burst.locks 2>/dev/null || true")
    assert locks.output.strip() == ""
    assert burst_holdings(sandbox) == NOTHING


@WITH_ONE_FLUX
def test_a_lead_without_a_broker_is_named(sandbox: Sandbox) -> None:
    done = sandbox.playbook("burst", "-e", "lead_uri=local:///run/flux/nowhere")
    assert done.code != 0
    assert "local:///run/flux/nowhere" in done.output
    assert "Traceback" not in done.output
    assert burst_holdings(sandbox) == NOTHING


@pytest.fixture(scope="module")
def waiting(sandbox: Sandbox) -> str:
    """The id of a job that waits for three machines."""
    return succeeded(sandbox.on_lead(*JOB)).output.strip()


@WITH_ONE_FLUX
def test_a_lead_that_cannot_be_reached_is_named(sandbox: Sandbox) -> None:
    done = sandbox.playbook("burst", "-e", "ansible_port=1")
    assert done.code != 0
    end = " ".join(done.output[done.output.rindex("fatal: ") :].split())
    assert f"[{LEAD}]" in end and "stage lead: wanted the lock on the burst, found that" in end
    assert "Traceback" not in done.output
    assert burst_holdings(sandbox) == NOTHING


@WITH_ONE_FLUX
@pytest.mark.usefixtures("waiting")
def test_check_mode_lists_what_would_be_created_and_creates_nothing(sandbox: Sandbox) -> None:
    done = succeeded(sandbox.playbook("burst", "--check", "--diff"))
    for name in [*HOSTS, "flux-burst-net", "flux-burst-router", "flux-burst-allow-iap-ssh"]:
        assert name in done.output
    assert done.changed == {"localhost": 3, LEAD: 1}
    assert burst_holdings(sandbox) == NOTHING


def test_a_burst_runs_the_waiting_job_on_the_new_machines(sandbox: Sandbox, waiting: str) -> None:
    known = secrets(sandbox)
    done = succeeded(sandbox.playbook("burst", "-vvv", "--diff"))
    assert set(done.changed) == {*HOSTS, "localhost", LEAD}
    output = succeeded(
        sandbox.on_lead("timeout", "-k", "5", "60", "flux", "job", "attach", waiting)
    )
    assert set(HOSTS) <= set(output.output.split())
    assert "flux-sample-1" in output.output
    listed = succeeded(sandbox.on_lead("flux", "resource", "list")).output
    assert nodes(listed, "free") == "flux-sample-1,gffw-compute-a-[001-003]"
    found = [name for name, text in known.items() if text in done.output.encode()]
    assert found == [], "secrets in the output of ansible-playbook -vvv"
    found = []
    for path in controller_files(sandbox):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            # It was another Ansible's, which is done.
            continue
        found += [f"{name} in {path}" for name, text in known.items() if text in content]
    assert found == [], "secrets in files of the controller, or in the request log"
    assert (sandbox.state / "requests.jsonl").stat().st_size > 10_000


def last_job(sandbox: Sandbox) -> str:
    """The id of the job that was submitted last."""
    return succeeded(sandbox.on_lead("flux", "job", "last")).output.strip()


@WITH_ONE_FLUX
def test_every_request_and_response_agrees_with_google_s_discovery_document(
    sandbox: Sandbox,
) -> None:
    assert check_log(sandbox.state / "requests.jsonl") == []


@WITH_ONE_FLUX
def test_a_second_burst_changes_nothing_and_a_new_job_runs_at_once(sandbox: Sandbox) -> None:
    succeeded(sandbox.on_lead(*JOB))
    output = succeeded(
        sandbox.on_lead("timeout", "-k", "5", "30", "flux", "job", "attach", last_job(sandbox))
    )
    assert set(HOSTS) <= set(output.output.split())
    done = succeeded(sandbox.playbook("burst"))
    assert done.changed == {}
    assert set(done.recap) == EVERYONE
    assert all(done.recap[host]["ok"] >= 5 for host in HOSTS), "the plays stopped early"


@WITH_ONE_FLUX
def test_check_mode_on_a_standing_burst_changes_nothing(sandbox: Sandbox) -> None:
    assert succeeded(sandbox.playbook("burst", "--check", "--diff")).changed == {}


@WITH_ONE_FLUX
def test_the_inventory_shows_the_machines_and_ansible_reaches_them(sandbox: Sandbox) -> None:
    graph = succeeded(sandbox.run("ansible-inventory", "-i", "inventory/sandbox", "--graph"))
    after = graph.output[graph.output.index("@burst_nodes") :]
    assert all(f"--{host}" in after for host in HOSTS)
    ping = succeeded(sandbox.run("ansible", "burst_nodes", "-m", "ping"))
    assert ping.output.count("pong") == len(HOSTS)


# The unit starts when all is placed and the module still runs, with every process that led to it.
TRAP = """
mkdir -p /etc/systemd/system/flux.service.d
printf '[Service]\\nExecStartPre=+/bin/sh /run/trap\\n' > /etc/systemd/system/flux.service.d/trap.conf
echo 'touch /run/here; for n in $(seq 600); do test -e /run/go && break; sleep 0.1; done' > /run/trap
systemctl daemon-reload
rm /etc/flux/system/curve.cert
head -c 64 /dev/zero > /etc/munge/munge.key
"""
UNTRAP = (
    "rm /etc/systemd/system/flux.service.d/trap.conf /run/trap /run/here /run/go; "
    "systemctl daemon-reload"
)
# Where a module or what carries it could leave something, seen from the machine's root.
PLACES = ("tmp", "var/tmp", "run", "root", "home", "dev/shm", "etc", "var/log", "var/lib")


@WITH_ONE_FLUX
def test_while_a_machine_is_configured_no_process_and_no_file_but_its_own_shows_a_secret(
    sandbox: Sandbox,
) -> None:
    known = secrets(sandbox)
    root = machine_root(sandbox, HOSTS[0])
    succeeded(sandbox.execute(HOSTS[0], "sh", "-c", TRAP))
    try:
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(sandbox.playbook, "burst", *PREPARED)
            while not (root / "run/here").exists() and not run.done():
                time.sleep(0.05)
            words, files = process_words(), texts(root)
            (root / "run/go").touch()
            done = succeeded(run.result())
    finally:
        sandbox.execute(HOSTS[0], "sh", "-c", UNTRAP)
    assert done.changed == {HOSTS[0]: 1}
    assert any(b"ssh" in word and HOSTS[0].encode() in word for word in words), "no process seen"
    found = {name for name, text in known.items() for word in words if text in word}
    assert found == set(), "secrets in arguments or environments, here or in the machines"
    seen = {(name, path) for name, text in known.items() for path in files if text in files[path]}
    assert seen == {
        ("munge key", "etc/munge/munge.key"),
        ("certificate's secret key", "etc/flux/system/curve.cert"),
    }


def machine_root(sandbox: Sandbox, host: str) -> Path:
    """A machine's root as its own processes see it, with what is mounted there."""
    leader = processes.leader(machine_namespace(sandbox.name, "sandbox-project", host))
    assert leader is not None
    return Path(f"/proc/{leader}/root")


def process_words() -> list[bytes]:
    """The arguments and the environment of every process, those of the machines too."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        # It may have ended.
        with suppress(OSError):
            found += [(path / "cmdline").read_bytes(), (path / "environ").read_bytes()]
    return found


def texts(root: Path) -> dict[str, bytes]:
    """The regular files of a machine by path, in every place where a run could leave some."""
    found = {}
    for place in PLACES:
        for folder, _names, files in os.walk(root / place):
            for path in (Path(folder) / name for name in files):
                if path.is_file() and not path.is_symlink():
                    found[str(path.relative_to(root))] = path.read_bytes()
    return found


def compute_names(sandbox: Sandbox) -> list[str]:
    """The machines as google-cloud-compute's client lists them."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import compute_v1

    client = compute_v1.InstancesClient(
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": sandbox.env["FLUX_BURST_COMPUTE_ENDPOINT"]},
    )
    listed = client.list(project=sandbox.env["GOOGLE_CLOUD_PROJECT"], zone="us-central1-a")
    return sorted(instance.name for instance in listed)


@WITH_ONE_FLUX
def test_google_s_python_client_lists_the_machines(sandbox: Sandbox) -> None:
    assert compute_names(sandbox) == HOSTS


@WITH_ONE_FLUX
@pytest.mark.skipif(not shutil.which("gcloud"), reason="no gcloud on this machine")
def test_gcloud_lists_the_same_machines(sandbox: Sandbox) -> None:
    words = ("gcloud", "compute", "instances", "list", "--format=value(name)")
    before = len(sandbox.requests)
    listed = succeeded(sandbox.run(*words)).output.split()
    # gcloud sends returnPartialSuccess, which the discovery document does not have.
    sandbox.foreign.update(range(before, len(sandbox.requests)))
    assert sorted(listed) == compute_names(sandbox)


@WITH_ONE_FLUX
def test_what_was_changed_by_hand_is_put_right_and_is_the_only_change(sandbox: Sandbox) -> None:
    config = "/etc/flux/system/conf.d/system.toml"
    succeeded(sandbox.execute(HOSTS[0], "sh", "-c", f"echo '# by hand' >> {config}"))
    succeeded(sandbox.execute(HOSTS[1], "systemctl", "stop", "flux"))
    firewall = "flux-burst-allow-internal"
    widen_firewall(sandbox, firewall)
    done = succeeded(sandbox.playbook("burst", "--diff", *PREPARED))
    assert done.changed == {HOSTS[0]: 1, HOSTS[1]: 1, "localhost": 1}
    assert "by hand" in done.output
    assert firewall in done.output
    assert "by hand" not in succeeded(sandbox.execute(HOSTS[0], "cat", config)).output
    state = succeeded(sandbox.execute(HOSTS[1], "systemctl", "is-active", "flux"))
    assert state.output.strip() == "active"


def widen_firewall(sandbox: Sandbox, name: str) -> None:
    """Open a firewall to the world, as somebody might by hand."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import compute_v1

    client = compute_v1.FirewallsClient(
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": sandbox.env["FLUX_BURST_COMPUTE_ENDPOINT"]},
    )
    client.patch_unary(
        project="sandbox-project",
        firewall=name,
        firewall_resource=compute_v1.Firewall(name=name, source_ranges=["0.0.0.0/0"]),
    )


@WITH_ONE_FLUX
def test_a_shared_home_that_would_lock_ansible_out_is_refused_on_the_machines(
    sandbox: Sandbox,
) -> None:
    home = {"": "export", "_server": "10.10.0.100", "_path": "/home"}
    given = [f"-eburst_shared_home{key}={value}" for key, value in home.items()]
    done = sandbox.playbook("burst", "--check", *PREPARED, *given)
    assert done.code != 0
    assert "does not hide /home/burst" in " ".join(done.output.split())
    assert sandbox.execute(HOSTS[0], "test", "-e", "/etc/systemd/system/home.automount").code != 0


@WITH_ONE_FLUX
def test_status_shows_machines_and_ranks(sandbox: Sandbox) -> None:
    done = succeeded(sandbox.playbook("status"))
    assert all(host in done.output for host in HOSTS)
    assert done.changed == {}


@WITH_ONE_FLUX
def test_a_teardown_in_check_mode_shows_all_that_goes_and_takes_nothing_away(
    sandbox: Sandbox,
) -> None:
    before = burst_holdings(sandbox)
    done = succeeded(sandbox.playbook("teardown", "--check", "--diff"))
    for name in (*HOSTS, "flux-burst-router", "flux-burst-net"):
        assert f"{name}" in done.output[done.output.index(": Delete the machines]") :]
    assert burst_holdings(sandbox) == before
    assert "gffw" not in succeeded(sandbox.on_lead("flux", "resource", "drain")).output


def test_teardown_leaves_nothing(sandbox: Sandbox) -> None:
    done = succeeded(sandbox.playbook("teardown"))
    assert set(done.changed) == EVERYONE
    assert burst_holdings(sandbox) == NOTHING
    listed = succeeded(sandbox.on_lead("flux", "resource", "list")).output
    assert nodes(listed, "down") == "gffw-compute-a-[001-003]"
    drained = succeeded(sandbox.on_lead("flux", "resource", "drain")).output
    assert "gffw" not in drained
    assert list((sandbox.state / "bursts").iterdir()) == [], "keys on the controller"


@WITH_ONE_FLUX
def test_a_second_teardown_changes_nothing(sandbox: Sandbox) -> None:
    assert succeeded(sandbox.playbook("teardown")).changed == {}


@WITH_ONE_FLUX
def test_every_request_of_the_whole_path_agrees_with_the_discovery_document(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    ours = tmp_path / "requests.jsonl"
    lines = [line for number, line in enumerate(sandbox.requests) if number not in sandbox.foreign]
    ours.write_text("\n".join(lines))
    assert any("DELETE" in line for line in lines)
    assert check_log(ours) == []


@WITH_ONE_FLUX
def test_the_inventory_is_empty_again(sandbox: Sandbox) -> None:
    graph = succeeded(sandbox.run("ansible-inventory", "-i", "inventory/sandbox", "--graph"))
    assert "gffw" not in graph.output
    assert (
        yaml.safe_load((TOP / "inventory/sandbox/gce.yml").read_text())["plugin"]
        == "flux.burst.gce"
    )
