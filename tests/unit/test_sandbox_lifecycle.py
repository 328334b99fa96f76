# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starting and stopping a sandbox, with a stand-in for its server that boots nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import cleanup, cli, lifecycle, paths, preflight

SERVER = """
import http.server, json, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if options["--latency"] == "none":
    sys.exit("wanted a cloud, found rain")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        names = {"name": options["--name"], "backend": options["--backend"]}
        self.wfile.write(json.dumps({**names, "latency": "real", "projects": {}, "site": []}).encode())
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("127.0.0.1", int(options["--compute-port"])), Handler)
print("ready", flush=True)
server.serve_forever()
"""
NAME = "t-life"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point the sandboxes at a directory of the test's own, and at ports that nobody has."""
    monkeypatch.setattr(paths, "STATE", tmp_path / "run")
    monkeypatch.setattr(lifecycle, "COMPUTE_PORT", free_port() // 10 * 10)
    monkeypatch.setattr(lifecycle, "RELAY_PORT", lifecycle.COMPUTE_PORT + 1)
    monkeypatch.setattr(lifecycle, "PROXY_PORT", lifecycle.COMPUTE_PORT + 2)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    original = lifecycle._server_command

    def command(sandbox: lifecycle.Sandbox) -> list[str]:
        words = original(sandbox)
        return [words[0], "-c", SERVER, *words[words.index("-m") :]]

    monkeypatch.setattr(lifecycle, "_server_command", command)
    yield tmp_path / "run"
    for name in (NAME, "t-life2"):
        cleanup.remove(name)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
    return min(port, 60000)


def up(name: str = NAME, **wish: str) -> tuple[lifecycle.Sandbox, list[str]]:
    said: list[str] = []
    wish = {"backend": "records", **wish}
    return lifecycle.up(lifecycle.Wish(name, **wish), said.append), said


def test_up_twice_is_one_sandbox() -> None:
    first, _unused = up()
    second, said = up()
    assert second == first
    assert said == [f"sandbox {NAME} is up"]
    assert cleanup.servers(NAME) == [first.server_pid]


def test_up_at_the_same_time_is_one_sandbox() -> None:
    found: list[lifecycle.Sandbox] = []
    threads = [threading.Thread(target=lambda: found.append(up()[0])) for _unused in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == found[2]


def test_up_with_another_backend_is_refused_and_changes_nothing() -> None:
    first, _unused = up()
    with pytest.raises(lifecycle.SandboxError, match="found it running with records"):
        up(backend="nspawn")
    assert up()[0] == first


def test_up_cleans_what_a_killed_server_left_and_says_so() -> None:
    first, _unused = up()
    os.kill(first.server_pid, signal.SIGKILL)
    wait_until_gone(first.server_pid)
    second, said = up()
    assert "half-dead" in said[0]
    assert second.server_pid != first.server_pid


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while pid in cleanup.servers(NAME):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_sandboxes_have_ports_of_their_own_and_down_takes_one() -> None:
    one, _unused = up()
    two, _unused = up("t-life2")
    assert len({*lifecycle.ports_of(one.slot), *lifecycle.ports_of(two.slot)}) == 6
    lifecycle.down(NAME, print)
    assert not one.state.exists()
    assert lifecycle.status(two)


def test_down_removes_every_file_and_process_and_can_be_repeated(place: Path) -> None:
    sandbox, _unused = up()
    for _unused in range(2):
        said: list[str] = []
        lifecycle.down(NAME, said.append)
        assert said[-1] == f"sandbox {NAME} is down"
    assert cleanup.servers(NAME) == []
    assert not place.exists()
    assert preflight.port_free(sandbox.compute_port)


def test_down_finds_a_server_whose_sandbox_file_is_lost() -> None:
    sandbox, _unused = up()
    (sandbox.state / "sandbox.json").unlink()
    lifecycle.down(NAME, print)
    assert cleanup.servers(NAME) == []


def test_a_server_that_does_not_start_is_reported_by_its_last_line_and_leaves_nothing() -> None:
    with pytest.raises(lifecycle.SandboxError, match="wanted a cloud, found rain"):
        up(latency="none")
    assert not cleanup.leftovers(NAME)


def test_keys_and_directory_are_for_the_owner_only() -> None:
    sandbox, _unused = up()
    assert sandbox.state.stat().st_mode & 0o777 == 0o700
    assert (sandbox.state / "ssh_key").stat().st_mode & 0o777 == 0o600
    public = (sandbox.state / "ssh_key.pub").read_text().split()
    made = subprocess.run(
        ["ssh-keygen", "-y", "-f", sandbox.state / "ssh_key"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.split()[:2] == public[:2] == ["ssh-ed25519", public[1]]


def test_a_busy_port_is_named_and_nothing_is_changed(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", lifecycle.COMPUTE_PORT))
        taken.listen()
        with pytest.raises(
            preflight.PreflightError, match=f"found {lifecycle.COMPUTE_PORT} in use"
        ):
            up("default")
    assert not (place / "default").exists()


def test_status_says_up_broken_and_down(capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> dict[str, object]:
        assert cli.main(["status", "--json", "--name", NAME]) == 0
        answer: dict[str, object] = json.loads(capsys.readouterr().out)
        return answer

    assert state() == {"name": NAME, "state": "down"}
    sandbox, _unused = up()
    assert state()["backend"] == "records"
    os.kill(sandbox.server_pid, signal.SIGKILL)
    wait_until_gone(sandbox.server_pid)
    assert state() == {"name": NAME, "state": "broken"}


def test_env_is_shell_that_points_at_this_sandbox(capsys: pytest.CaptureFixture[str]) -> None:
    sandbox, _unused = up()
    assert cli.main(["env", "--name", NAME]) == 0
    script = capsys.readouterr().out + 'echo "$FLUX_BURST_SANDBOX $FLUX_BURST_COMPUTE_ENDPOINT"'
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [NAME, f"http://127.0.0.1:{sandbox.compute_port}"]


def test_env_leads_clients_with_a_fixed_endpoint_through_the_proxy_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sandbox = up()[0]
    assert cli.main(["env", "--name", NAME]) == 0
    assert "PROXY" not in capsys.readouterr().out
    assert cli.main(["env", "--proxy", "--name", NAME]) == 0
    printed = capsys.readouterr().out
    assert f"export HTTPS_PROXY=http://127.0.0.1:{sandbox.proxy_port}\n" in printed
    assert f"export REQUESTS_CA_BUNDLE={sandbox.state}/ca-bundle.pem\n" in printed
    assert "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE" not in printed


def test_env_of_a_sandbox_that_is_down_says_how_to_start_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["env", "--name", NAME]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert f"sandbox up --name {NAME}" in answer.err


@pytest.mark.parametrize("name", ["Upper", "1st", "a b", "../x", "x" * 17, ""])
def test_a_name_that_could_not_be_told_apart_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["up", "--name", name])
    assert "wanted a letter" in capsys.readouterr().err


def test_the_module_starts_as_a_command() -> None:
    top = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "--help"],
        cwd=top,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "up" in done.stdout and "exec" in done.stdout
