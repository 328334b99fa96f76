# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exec by kubectl and by the Python client: streams, exit codes, a terminal, and clients that leave."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from here_pod import POD, serving_here
from kube_cluster import KUBECTL, Kubectl, until
from kubernetes import client
from kubernetes.stream import stream


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A kubectl whose cluster has one pod."""
    with serving_here(tmp_path_factory.mktemp("here")) as made:
        yield made


def test_both_streams_and_the_exit_code_come_back(kubectl: Kubectl) -> None:
    done = kubectl.run("exec", POD, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.stdout == "out\n"
    assert done.stderr.splitlines() == ["err", "command terminated with exit code 7"]
    assert done.returncode == 7


def test_standard_input_reaches_the_command_whole_and_ends(kubectl: Kubectl) -> None:
    # More than a pipe and a message hold.
    data = "".join(f"line {number}\n" for number in range(60000))
    assert kubectl.done("exec", "-i", POD, "--", "cat", stdin=data) == data


def test_without_a_standard_input_the_command_reads_nothing(kubectl: Kubectl) -> None:
    assert kubectl.done("exec", POD, "--", "sh", "-c", "cat; echo end", stdin="lost") == "end\n"


def test_a_terminal_is_one(kubectl: Kubectl) -> None:
    # kubectl wants a terminal itself: script gives it one.
    words = f"{KUBECTL} exec -it {POD} -- sh -c 'test -t 0 && echo a terminal'"
    done = subprocess.run(
        ["script", "-qec", words, "/dev/null"],
        env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
    assert "a terminal" in done.stdout


def test_a_command_that_is_not_there_is_told(kubectl: Kubectl) -> None:
    done = kubectl.run("exec", POD, "--", "/no/such/command")
    assert done.returncode != 0
    assert "/no/such/command" in done.stderr


def test_a_command_ends_when_its_client_leaves(kubectl: Kubectl, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with subprocess.Popen(
        [KUBECTL, "exec", POD, "--", "sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"],
        env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)},
        stdin=subprocess.DEVNULL,
    ) as process:
        until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the command runs")
        pid = int(pid_file.read_text())
        process.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), "the command is gone")


def test_a_file_is_copied_into_a_pod(kubectl: Kubectl, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(300000))
    kubectl.done("cp", str(source), f"{POD}:{target}")
    assert target.read_bytes() == source.read_bytes()


def test_the_python_client_runs_commands(kubectl: Kubectl) -> None:
    core = client.CoreV1Api(kubectl.api())
    session = stream(
        core.connect_get_namespaced_pod_exec,
        POD,
        "default",
        command=["sh", "-c", "read line; echo got $line; exit 3"],
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    session.write_stdin("this\n")
    end = time.monotonic() + 10
    while session.is_open() and time.monotonic() < end:
        session.update(timeout=1)
    assert session.read_stdout() == "got this\n"
    assert session.returncode == 3


def test_a_pods_log_is_read(kubectl: Kubectl) -> None:
    assert kubectl.done("logs", POD) == "a line\n"
