# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh is told to go through the tunnel, and to accept the machine's own keys alone."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.connection.iap import listens, proxy_command, trust

TOP = Path(__file__).resolve().parents[2]
MACHINE = {
    "ansible_connection": "flux.burst.iap",
    "ansible_user": "burst",
    "ansible_ssh_private_key_file": "/keys/key",
    "iap_project": "my-project",
    "iap_zone": "us-central1-a",
    "iap_instance": "b-001",
    "iap_instance_id": "77",
    "iap_host_keys": {"ssh-ed25519": "AAAA"},
    "burst_name": "b",
    "burst_iap_endpoint": "wss://relay",
    "burst_credentials_file": "/keys/credentials.json",
}
FAKE_SSH = """#!{python}
import json, os, sys, time
with open("{calls}/" + os.urandom(8).hex(), "w") as file:
    json.dump(sys.argv[1:], file)
words = [word for option in sys.argv for word in option.split()]
if os.path.exists("{calls}.swapped"):
    os.close(0)
    time.sleep(0.5)
    sys.stderr.write("The fingerprint for the ED25519 key sent by the remote host is\\n"
                     "SHA256:another.\\nHost key verification failed.\\n")
    sys.exit(255)
if os.path.exists("{calls}.denies") and len(os.listdir("{calls}")) < 3:
    sys.stderr.write("burst@b-001: Permission denied (publickey).\\n")
    sys.exit(255)
if os.path.exists("{calls}.fails"):
    with open(words[words.index("--error-file") + 1], "w") as file:
        file.write("iap: wanted b-001, found the relay's close code 4003\\n")
    sys.exit(255)
"""


def test_only_the_given_host_keys_are_accepted() -> None:
    made = trust(Path("/home/me/known"), "compute.1")
    assert made["StrictHostKeyChecking"] == "yes"
    assert made["UserKnownHostsFile"] == "/home/me/known"
    assert made["GlobalKnownHostsFile"] == "/dev/null"
    assert made["HostKeyAlias"] == "compute.1"


def test_a_percent_sign_is_not_a_token_of_ssh() -> None:
    command = proxy_command(["python", "/x/100% sure/_iap.py"])
    assert command == "python '/x/100%% sure/_iap.py'"


def test_a_socket_that_nobody_listens_on_is_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert not listens(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert listens(path)
    assert path.exists(), "as after a kill"
    assert not listens(path)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fake_ssh(tmp_path: Path) -> Run:
    """Run a playbook, or a command, on machines with the given variables, over an ssh that only notes its arguments."""
    calls = tmp_path / "calls"
    calls.mkdir()
    program = tmp_path / "ssh"
    program.write_text(FAKE_SSH.format(python=sys.executable, calls=calls))
    program.chmod(0o755)

    def run(
        playbook: list[dict[str, Any]] | None = None,
        settings: Mapping[str, str] | None = None,
        /,
        **machines: dict[str, Any],
    ) -> subprocess.CompletedProcess[str]:
        hosts = {
            name: {key: value for key, value in {**MACHINE, **changes}.items() if value is not None}
            for name, changes in machines.items()
        }
        (tmp_path / "ansible.cfg").touch()
        inventory = tmp_path / "hosts.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".cache" / "collections"),
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_SSH_EXECUTABLE": str(program),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path / "cp"),
            "FLUX_BURST_DIRECTORY": str(tmp_path / "bursts"),
            **(settings or {}),
        }
        (tmp_path / "play.yml").write_text(json.dumps(playbook))
        command = ["ansible", "all", "-m", "ansible.builtin.raw", "-a", "true"]
        if playbook:
            command = ["ansible-playbook", "play.yml"]
        return subprocess.run(
            [Path(sys.executable).with_name(command[0]), *command[1:], "-i", inventory],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def options(words: list[str]) -> dict[str, str]:
    """Return the options that ssh was given with -o, by name; the first of a name counts, as in ssh."""
    given = [word for before, word in itertools.pairwise(words) if before == "-o"]
    return {name: value for name, _sep, value in (it.partition("=") for it in reversed(given))}


def calls(tmp_path: Path) -> list[dict[str, str]]:
    """Return the options of every call of ssh."""
    return [options(json.loads(file.read_text())) for file in (tmp_path / "calls").iterdir()]


def test_ssh_gets_the_tunnel_and_keeps_what_the_user_gave_it(fake_ssh: Run, tmp_path: Path) -> None:
    done = fake_ssh(one={"ansible_ssh_common_args": "-o ServerAliveInterval=7"})
    assert done.returncode == 0, done.stdout + done.stderr
    [call] = calls(tmp_path)
    assert (call["ControlMaster"], call["ControlPersist"]) == ("auto", "60s")
    assert call["StrictHostKeyChecking"] == "yes"
    assert call["ServerAliveInterval"] == "7"
    assert call["IdentityFile"] == '"/keys/key"'
    python, isolated, *_words = call["ProxyCommand"].split()
    assert (Path(python).parent, isolated) == (Path(sys.executable).parent, "-P")
    assert "--credentials-file /keys/credentials.json" in call["ProxyCommand"]
    known_hosts = tmp_path / "bursts" / "b" / "known_hosts"
    assert call["UserKnownHostsFile"] == str(known_hosts)
    assert call["HostKeyAlias"] == "compute.77"
    assert known_hosts.read_text() == "compute.77 ssh-ed25519 AAAA\n"


def test_a_connection_serves_one_machine_and_one_user_only(fake_ssh: Run, tmp_path: Path) -> None:
    """A machine that is made again has another id; the same name is found in other zones and projects."""
    machines: dict[str, dict[str, Any]] = {
        "same": {},
        "again": {},
        "remade": {"iap_instance_id": "78"},
        "elsewhere": {"iap_zone": "us-central1-b"},
        "project": {"iap_project": "another-project"},
        "relay": {"burst_iap_endpoint": "wss://another"},
        "user": {"ansible_user": "root"},
        "port": {"ansible_port": 2222},
    }
    assert fake_ssh(**machines).returncode == 0
    found = calls(tmp_path)
    assert len(found) == len(machines)
    assert len({call["ControlPath"] for call in found}) == len(machines) - 1
    assert {call["HostKeyAlias"] for call in found} == {"compute.77", "compute.78"}


def test_a_delegated_task_goes_to_the_machine_that_it_names(fake_ssh: Run, tmp_path: Path) -> None:
    """The names in the inventory are those in Compute Engine: iap_instance need not be given."""
    nameless = {"iap_instance": None}
    task = {"ansible.builtin.raw": "true", "delegate_to": "two"}
    play = {"hosts": "one", "gather_facts": False, "tasks": [task]}
    done = fake_ssh([play], one=nameless, two={**nameless, "iap_zone": "us-central1-b"})
    assert done.returncode == 0, done.stdout + done.stderr
    [call] = calls(tmp_path)
    assert "--zone us-central1-b --instance two" in call["ProxyCommand"]


def test_what_the_tunnel_said_is_the_error(fake_ssh: Run, tmp_path: Path) -> None:
    (tmp_path / "calls.fails").touch()
    done = fake_ssh(one={})
    assert done.returncode != 0
    assert "found the relay's close code 4003" in done.stdout + done.stderr


def test_host_keys_that_cannot_be_read_are_told(fake_ssh: Run, tmp_path: Path) -> None:
    done = fake_ssh(one={"iap_host_keys": {}, "burst_credentials_file": "/nonexistent.json"})
    assert "wanted Google credentials in /nonexistent.json" in done.stdout + done.stderr
    assert calls(tmp_path) == []


def test_no_setting_switches_the_check_of_host_keys_off(fake_ssh: Run, tmp_path: Path) -> None:
    settings = {
        "ANSIBLE_HOST_KEY_CHECKING": "False",
        "ANSIBLE_SSH_ARGS": "-o StrictHostKeyChecking=no -o ControlMaster=auto -o ControlPersist=9s",
    }
    assert fake_ssh(None, settings, one={}).returncode == 0
    [call] = calls(tmp_path)
    assert call["StrictHostKeyChecking"] == "yes"
    assert call["ControlPersist"] == "9s"


def test_a_machine_that_has_other_keys_than_were_pinned_is_not_connected_to(
    fake_ssh: Run, tmp_path: Path
) -> None:
    assert fake_ssh(one={}).returncode == 0
    done = fake_ssh(one={"iap_host_keys": {"ssh-ed25519": "BBBB"}})
    assert done.returncode != 0
    assert len(calls(tmp_path)) == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert "stage host_key: wanted b-001 with the SSH host key ssh-ed25519 SHA256:" in said
    assert "ssh-keygen -R compute.77 -f" in said


def test_a_key_that_ssh_refuses_is_told_with_both_fingerprints(
    fake_ssh: Run, tmp_path: Path
) -> None:
    (tmp_path / "calls.swapped").touch()
    # Not even where ssh's input breaks before it has said so.
    large = {"name": "More than a pipe holds", "ansible.builtin.command": "true " + "x" * 100_000}
    play: dict[str, Any] = {"hosts": "all", "gather_facts": False, "tasks": [large]}
    machine = {"ansible_pipelining": True, "ansible_python_interpreter": sys.executable}
    said = " ".join(fake_ssh([play], one=machine).stdout.split())
    assert "stage host_key: wanted b-001 with the SSH host key ssh-ed25519 SHA256:" in said
    assert "found SHA256:another presented by its sshd: nothing was sent to it" in said


@pytest.mark.parametrize(
    ("via", "address"), [("internal", "10.10.0.7"), ("external", "203.0.113.7")]
)
def test_plain_ssh_goes_to_the_machines_address_with_its_host_keys(
    fake_ssh: Run, tmp_path: Path, via: str, address: str
) -> None:
    known = {"gce_internal_ip": "10.10.0.7", "gce_external_ip": "203.0.113.7"}
    assert fake_ssh(one={"iap_via": via, **known}).returncode == 0
    [call] = calls(tmp_path)
    assert call["HostName"] == address
    assert call["HostKeyAlias"] == "compute.77"
    assert call["StrictHostKeyChecking"] == "yes"
    assert "ProxyCommand" not in call


def test_a_machine_without_a_public_address_is_told(fake_ssh: Run, tmp_path: Path) -> None:
    done = fake_ssh(one={"iap_via": "external", "gce_external_ip": ""})
    assert "wanted the external address of b-001, found none" in " ".join(done.stdout.split())
    assert calls(tmp_path) == []


def test_a_key_that_is_not_let_in_yet_is_tried_again_for_a_while(
    fake_ssh: Run, tmp_path: Path
) -> None:
    (tmp_path / "calls.denies").touch()
    assert fake_ssh(one={"iap_key_timeout": 60}).returncode == 0
    assert len(calls(tmp_path)) == 3


def test_a_key_that_is_refused_is_told(fake_ssh: Run, tmp_path: Path) -> None:
    (tmp_path / "calls.denies").touch()
    done = fake_ssh(one={"iap_key_timeout": 0})
    assert "Permission denied (publickey)" in done.stdout
    assert len(calls(tmp_path)) == 1
