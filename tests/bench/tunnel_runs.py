# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our tunnel beside gcloud's and beside none: one relay, one sshd, the same machine, by turns."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import figure, say, spread
from real_sshd import Sshd, serving_ssh
from tunnel_program import command, environment

RUNS = 5
RUNS_AT_ONCE = 3
MIB = 1 << 20
GCLOUD = shutil.which("gcloud")
ENDS = Path(__file__).with_name("tunnel_ends.py")
SIZES = {"ours": (128, 128), "gcloud": (128, 16), "direct": (512, 512)}
"""MiB down and up: gcloud without NumPy masks byte by byte."""


@dataclass(frozen=True)
class Site:
    """A relay and what lies behind it; its machines are `ssh-0`, `sink-0` and `source-0`."""

    endpoint: str
    state: Path
    sshd: Sshd
    ports: Mapping[str, int]

    @property
    def environment(self) -> dict[str, str]:
        """What both tunnels find: a token that is there already, and the same Python, without NumPy."""
        token = self.state / "access_token"
        given = environment(
            token.read_text(),
            CLOUDSDK_AUTH_ACCESS_TOKEN_FILE=str(token),
            CLOUDSDK_CONFIG=str(self.state / "gcloud"),
            CLOUDSDK_CORE_PROJECT="sandbox-site",
            CLOUDSDK_CORE_DISABLE_PROMPTS="1",
            CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK="1",
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )
        # Either, whatever its value, lets gcloud look for NumPy in site-packages.
        apart = ("VIRTUAL_ENV", "CLOUDSDK_PYTHON_SITEPACKAGES")
        return {name: value for name, value in given.items() if name not in apart}

    def tunnel(self, name: str, machine: str) -> list[str]:
        """Return the command line of one of the tunnels to a machine."""
        if name == "ours":
            given = {"project": "sandbox-site", "zone": "us-central1-a", "instance": machine}
            where = {"endpoint": self.endpoint, "ca-file": str(self.state / "ca.pem")}
            return command({**given, **where})
        return [
            str(GCLOUD),
            *("compute", "start-iap-tunnel", machine, "22", "--listen-on-stdin"),
            *("--project=sandbox-site", "--zone=us-central1-a", "--verbosity=error"),
            f"--iap-tunnel-url-override={self.endpoint}/v4",
            "--iap-tunnel-insecure-disable-websocket-cert-check",
        ]


@contextmanager
def site() -> Iterator[Site]:
    """Run a relay, an sshd, a sink and a source."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flux-burst-bench-")))
        (folder / "state").mkdir()
        server = stack.enter_context(serving_ssh(folder))
        sink, source = stack.enter_context(_playing("ends")).split()
        ports = {"ssh-0": server.port, "sink-0": int(sink), "source-0": int(source)}
        pairs = [f"{name}={port}" for name, port in ports.items()]
        endpoint = stack.enter_context(_playing("relay", str(folder / "state"), *pairs))
        yield Site(endpoint, folder / "state", server, ports)


@contextmanager
def _playing(*words: str) -> Iterator[str]:
    """Run a role of tunnel_ends.py; yield the line that it prints."""
    process = subprocess.Popen(
        [sys.executable, ENDS, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


class Line:
    """A way to a machine: a tunnel's process, or a connection without one."""

    def __init__(self, there: Site, name: str, machine: str) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        if name == "direct":
            self.socket = socket.create_connection(("127.0.0.1", there.ports[machine]))
            self.read: Callable[[int], bytes] = self.socket.recv
            self.write: Callable[[bytes], object] = self.socket.sendall
            return
        self.process = subprocess.Popen(
            there.tunnel(name, machine),
            env=there.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout
        output = self.process.stdout.fileno()
        self.read, self.write = lambda most: os.read(output, most), self.process.stdin.write

    def memory(self) -> float:
        """Return the most memory that a process of it has had, in MiB."""
        assert self.process
        return max(_peak(pid) for pid in _family(self.process.pid))

    def end(self) -> None:
        """Take it down, as ssh does."""
        if self.process is None:
            self.socket.close()
            return
        os.killpg(self.process.pid, 15)
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(it for child in children for it in _family(int(child)))]


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def first_byte(there: Site, name: str) -> tuple[float, float]:
    """Return seconds until sshd's first byte, and the MiB of the tunnel then."""
    began = time.perf_counter()
    line = Line(there, name, "ssh-0")
    try:
        if not line.read(1):
            raise SystemExit(f"bench tunnel: wanted a byte of sshd through {name}, found the end.")
        took = time.perf_counter() - began
        return took, line.memory() if line.process else 0.0
    finally:
        line.end()


def speed(there: Site, name: str, *, up: bool) -> float:
    """Return MiB a second in one direction, without the start."""
    size = SIZES[name][up] * MIB
    line = Line(there, name, "sink-0" if up else "source-0")
    try:
        line.write(struct.pack(">Q", size))
        got = len(line.read(1))
        began = time.perf_counter()
        if up:
            _write(line, size)
            got = size * (line.read(1) == b"d")
        while not up and got < size and (data := line.read(MIB)):
            got += len(data)
        took = time.perf_counter() - began
    finally:
        line.end()
    if got != size:
        raise SystemExit(f"bench tunnel: wanted {size} bytes through {name}, found {got}.")
    return size / MIB / took


def _write(line: Line, size: int) -> None:
    data = bytes(MIB // 4)
    for _unused in range(size // len(data)):
        rest = memoryview(data)
        while rest:
            rest = rest[line.write(rest) or len(rest) :]  # type: ignore[arg-type, call-overload]


def names() -> list[str]:
    """Return the ways that are compared."""
    if not GCLOUD:
        say("# no gcloud on this machine: its figures and ratios are left out")
    return ["ours", *(["gcloud"] if GCLOUD else []), "direct"]


def tunnel() -> bool:
    """Measure one tunnel: until its first byte, its memory, and its throughput."""
    first: dict[str, list[tuple[float, float]]] = {}
    down: dict[str, list[float]] = {}
    up: dict[str, list[float]] = {}
    ways = names()
    with site() as there:
        for name in ways:
            first_byte(there, name)  # reads the files that are read for the first time
        for _unused in range(RUNS):
            for name in ways:
                first.setdefault(name, []).append(first_byte(there, name))
                down.setdefault(name, []).append(speed(there, name, up=False))
                up.setdefault(name, []).append(speed(there, name, up=True))
    for name in ways:
        say(f"# tunnel {name}: first byte {spread([took for took, _memory in first[name]])} s")
        if name != "direct":
            say(f"# tunnel {name}: memory {spread([memory for _took, memory in first[name]])} MiB")
        say(f"# tunnel {name}: down {spread(down[name])} MiB/s, up {spread(up[name])} MiB/s")
    if not GCLOUD:
        return True
    sooner = _ratios(*([took for took, _memory in first[it]] for it in ("gcloud", "ours")))
    smaller = _ratios(*([memory for _took, memory in first[it]] for it in ("ours", "gcloud")))
    told = "gcloud's by ours"
    good = figure("tunnel_first_byte", sooner, "times", ">= 3", told)
    good &= figure("tunnel_memory", smaller, "share", "<= 0.5", "ours in gcloud's")
    faster = _ratios(up["ours"], up["gcloud"])
    return figure("tunnel_upload", faster, "times", ">= 20", "ours by gcloud's") and good


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return what was measured in the same round, one by the other."""
    return [one / other for one, other in zip(above, below, strict=True)]


def all_at_once(there: Site, name: str, count: int) -> float:
    """Return how many seconds that many `ssh true` take which start together."""
    way = []
    if name != "direct":
        way = ["-o", f"ProxyCommand={shlex.join(there.tunnel(name, 'ssh-0'))}"]
    words, given = [*there.sshd.ssh(*way), "true"], there.environment
    codes: list[int] = []

    def one() -> None:
        codes.append(subprocess.call(words, env=given, stdin=subprocess.DEVNULL))

    threads = [threading.Thread(target=one) for _unused in range(count)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if codes != [0] * count:
        failed = count - codes.count(0)
        raise SystemExit(
            f"bench at_once: wanted {count} ssh through {name}, found {failed} failed."
        )
    return took


def at_once() -> bool:
    """Measure many tunnels that start together."""
    good, ways = True, names()
    with site() as there:
        for count in (1, 16, 64):
            took: dict[str, list[float]] = {name: [] for name in ways}
            for _unused in range(RUNS_AT_ONCE):
                for name in ways:
                    took[name].append(all_at_once(there, name, count))
            for name in ways:
                say(f"# at_once {count} ssh, {name}: {spread(took[name])} s")
        if GCLOUD:
            ratios = _ratios(took["gcloud"], took["ours"])
            good = figure(f"at_once_{count}_ssh", ratios, "times", ">= 2.5", "gcloud's by ours")
        ratios = _ratios(took["ours"], took["direct"])
        told = f"ours by direct ssh's, which takes {statistics.median(took['direct']):.1f} s"
        return (
            figure(f"at_once_{count}_ssh_against_direct", ratios, "times", "<= 1.7", told) and good
        )
