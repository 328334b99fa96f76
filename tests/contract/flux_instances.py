# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small Flux instance on this machine's loopback, of either kind, for the contract that both must keep."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.site import curve_certificate
from sandbox.standin.install import install

HOSTS = ("lead", "worker", "spare")
LIMIT = 20.0
PATIENCE = 3.0
"""For a minute a broker takes leave of a parent that it has lost."""
LEAD_TABLES = """
[access]
allow-guest-user = true
allow-root-owner = true
[resource]
noverify = true
[[resource.config]]
hosts = "%s"
cores = "0-1"
[[resource.config]]
hosts = "%s"
properties = ["burst"]
[ingest.validator]
plugins = ["jobspec", "feasibility"]
"""
ASK = """
import json, sys
sys.path[:0] = sys.argv[4].split(":")
import flux
try:
    answer = flux.Flux(sys.argv[1]).rpc(sys.argv[2], json.loads(sys.argv[3])).get()
    print(json.dumps({"errno": 0, "text": "", "answer": answer}))
except OSError as error:
    print(json.dumps({"errno": error.errno, "text": error.strerror, "answer": None}))
"""
FOLLOW = """
import json, sys
sys.path[:0] = sys.argv[4].split(":")
import flux
future = flux.Flux(sys.argv[1]).rpc(sys.argv[2], json.loads(sys.argv[3]), flags=2)
found = []
try:
    while True:
        future.wait_for(0.5)
        found.append(future.get_str())
        future.reset()
except OSError as error:
    print(json.dumps({"errno": 0, "text": "", "answer": [found, error.errno]}))
"""

# Nobody has no way to the directories of a test: the guest goes into the broker's while it is still root.
GUEST = """
import json, os, sys
sys.path[:0] = sys.argv[4].split(":")
import flux
os.chdir(os.path.dirname(sys.argv[1].removeprefix("local://")))
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
flags = 2 if sys.argv[2] in ("log.dmesg", "resource.journal", "job-manager.events-journal") else 0
try:
    future = flux.Flux("local://local").rpc(sys.argv[2], json.loads(sys.argv[3]), flags=flags)
    future.wait_for(10)
    print(json.dumps({"errno": 0, "text": "", "answer": future.get()}))
except OSError as error:
    print(json.dumps({"errno": error.errno, "text": error.strerror, "answer": None}))
"""


def real_flux() -> str | None:
    """Return the real flux command, None where there is none."""
    return shutil.which("flux", path="/usr/bin")


def eventually(what: str, good: Callable[[], bool], limit: float = LIMIT) -> None:
    """Fail with what was waited for unless it becomes true within `limit` seconds."""
    deadline = time.monotonic() + limit
    while not good():
        assert time.monotonic() < deadline, f"not within {limit} s: {what}"
        time.sleep(0.05)


@dataclass
class Broker:
    """A broker's process, what it logs, and what it tells systemd."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    notices: socket.socket
    told: list[str] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Its last STATUS line, as systemd shows it."""
        while True:
            try:
                self.told.append(self.notices.recv(65536).decode())
            except BlockingIOError:
                break
        lines = [line for text in self.told for line in text.splitlines()]
        return next((line[7:] for line in reversed(lines) if line.startswith("STATUS=")), "")

    def logged(self) -> str:
        """Return all that it logged."""
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it as systemd does and return its exit code."""
        self.process.terminate()
        return self.process.wait(LIMIT)


class Instance:
    """Brokers that share a configuration; started one by one, all ended by close()."""

    def __init__(self, kind: str, folder: Path, hosts: Sequence[str] = HOSTS) -> None:
        """The first of the hosts leads, the second is a worker, the others are a burst's."""
        self.kind, self.folder, self.hosts = kind, folder, tuple(hosts)
        self.brokers: dict[str, Broker] = {}
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        if kind == "real":
            self.command = ["/usr/bin/flux"]
        else:
            install(folder / "root")
            self.command = [sys.executable, str(folder / "root/usr/bin/flux")]
        self.cert = folder / "curve.cert"
        self.write_cert(self.cert)

    @staticmethod
    def write_cert(path: Path, mode: int = 0o600) -> None:
        """Write a new certificate."""
        path.write_bytes(curve_certificate("contract"))
        path.chmod(mode)

    def config(self, name: str, cert: Path | None = None, extra: str = "") -> Path:
        """Write a member's configuration directory."""
        address = f"tcp://127.0.0.1:{self.port}"
        resource = ""
        if name == "lead":
            resource = LEAD_TABLES % (",".join(self.hosts), ",".join(self.hosts[2:]))
        made = self.folder / f"{name}.d"
        made.mkdir(exist_ok=True)
        (made / "system.toml").write_text(
            f'[bootstrap]\ncurve_cert = "{cert or self.cert}"\nhosts = [\n'
            f'  {{ host = "lead", bind = "{address}", connect = "{address}" }},\n'
            + "".join(f'  {{ host = "{host}" }},\n' for host in self.hosts[1:])
            + f"]\n{resource}{extra}"
        )
        return made

    def uri(self, name: str) -> str:
        """Return where a member's local socket is."""
        return f"local://{self.folder}/{name}.run/local"

    def start(self, name: str, config: Path | None = None, hostname: str = "") -> Broker:
        """Start a broker."""
        folder = config or self.config(name)
        rundir = self.folder / f"{name}.run"
        rundir.mkdir(exist_ok=True)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.setblocking(False)
        (rundir / "notify").unlink(missing_ok=True)
        notices.bind(str(rundir / "notify"))
        log = self.folder / f"{name}.log"
        options = {
            "rundir": str(rundir),
            "local-uri": self.uri(name),
            "log-stderr-level": "6",
            "log-stderr-mode": "local",
            "broker.quorum": "1",
            "broker.exit-norestart": "42",
            "broker.sd-notify": "1",
        }
        if name == "lead":
            statedir = self.folder / "state"
            statedir.mkdir(exist_ok=True)
            options["statedir"] = str(statedir)
        words = [f"-S{key}={value}" for key, value in options.items()]
        with log.open("wb") as output:
            # A real broker compares the kernel's hostname, so each one has its own.
            rename = f'hostname {hostname or name} && exec "$@"'
            process = subprocess.Popen(
                [
                    *("unshare", "--uts", "sh", "-c", rename, "sh"),
                    *(*self.command, "broker", f"--config-path={folder}"),
                    *(*words, "-Sbroker.rc2_none"),
                ],
                env={**self.environment(), "NOTIFY_SOCKET": str(rundir / "notify")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.brokers[name] = Broker(name, process, log, notices)
        return self.brokers[name]

    def environment(self) -> dict[str, str]:
        """Return the environment in which `flux` is this kind's, and the real one finds the system's Python."""
        paths = "/usr/sbin:/usr/bin:/sbin:/bin"
        if self.kind != "real":
            paths = f"{self.folder}/root/usr/bin:{paths}"
        return {**os.environ, "PATH": paths}

    def flux(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a flux command on the lead, with a standard input."""
        return subprocess.run(
            [*self.command, *words],
            env={**self.environment(), "FLUX_URI": self.uri("lead")},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, topic: str, payload: dict[str, Any] | None = None) -> Any:
        """Return the answer to an RPC by the bindings. Raises OSError as they do."""
        return self._script(ASK, topic, payload)

    def follow(self, topic: str, payload: dict[str, Any] | None = None) -> tuple[list[str], int]:
        """Return the responses to a streaming RPC, and the errno that ends it: 110 when none came for half a second."""
        responses, number = self._script(FOLLOW, topic, payload)
        return responses, number

    def ask_as_guest(self, topic: str, payload: dict[str, Any] | None = None) -> Any:
        """Return the answer, or a stream's first, to a user who owns nothing here. Raises OSError."""
        return self._script(GUEST, topic, payload)

    def by_bindings(self, lines: str) -> Any:
        """Return `answer` after these lines of Python, which have flux, json, time and `handle`."""
        head = "import json, sys, time\nsys.path[:0] = sys.argv[4].split(':')\nimport flux\n"
        tail = "print(json.dumps({'errno': 0, 'text': '', 'answer': answer}))\n"
        return self._script(f"{head}handle = flux.Flux(sys.argv[1])\n{lines}\n{tail}", "", None)

    def _script(self, script: str, topic: str, payload: dict[str, Any] | None) -> Any:
        python = "/usr/bin/python3" if self.kind == "real" else sys.executable
        path = self.flux("env", "printenv", "PYTHONPATH").stdout.strip()
        done = subprocess.run(
            [python, "-c", script, self.uri("lead"), topic, json.dumps(payload), path],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        if found["errno"]:
            raise OSError(found["errno"], found["text"])
        return found["answer"]

    def online(self) -> str:
        """Return the idset of ranks that are online."""
        return str(self.ask("resource.status")["online"])

    def close(self) -> None:
        """End every broker, members first."""
        for broker in reversed(self.brokers.values()):
            if broker.process.poll() is None:
                broker.process.terminate()
                try:
                    broker.process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    os.killpg(broker.process.pid, 9)
                    broker.process.wait(LIMIT)
            broker.notices.close()
