# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines with their base become members: by our play, by ordinary tasks, by ClusterShell with the same files.

The machines run on this computer, so that their own work is in every wall time; CPU is the controller's alone. Each run
begins with machines that have none of the files. It makes its connections itself, so that tunnels and ssh are counted.
A second round has them open, as a burst has that did anything there before. A third leaves out the post-quantum key
exchange, as ssh does before OpenSSH 9.0: of 9.0 to 9.8 it takes as much CPU as all else that ssh does for a connection.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ClusterShell.NodeSet import NodeSet
from compute_runs import Cost, run
from figures import TOP, figure, say, spread

sys.path.insert(0, str(TOP / "tests/integration"))

from burst_sandbox import LEAD, Run, Sandbox, sandbox_name

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
SIZES = {4: 3, 16: 3, 32: 1}
"""How often each number of machines is configured in each way."""
JUDGED = 16
PLAY = "Configure the machines and join them to the lead"
MOST = max(SIZES)
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
# So long after a run the last of its ssh masters is gone, or not, in seconds.
PERSIST, OPEN = 10, 3600
CLASSIC = " -o KexAlgorithms=curve25519-sha256"
PLACED = (
    "/etc/flux/system/conf.d/system.toml",
    "/etc/systemd/system/flux.service",
    "/etc/munge/munge.key",
    "/etc/flux/system/curve.cert",
    "/etc/flux/security/conf.d/security.toml",
    "/etc/flux/imp/conf.d/imp.toml",
)
OWN = PLACED[:4]
EXECUTION = re.compile(r"^<([\w-]+)> SSH: EXEC (.*)$", re.MULTILINE)
JOINED = "Running as member"
START = (
    "tar -xzp -C / && systemctl enable -q munge flux && systemctl restart munge flux && "
    f"until systemctl show flux -p StatusText | grep -q '{JOINED}'; do sleep 0.1; done"
)
RESET = (
    "systemctl disable -q --now flux munge; rm -f {files}; rm -rf /run/flux-burst; "
    "systemctl daemon-reload; systemctl reset-failed"
)


@contextmanager
def inotify(least: int) -> Iterator[None]:
    """Let root's containers have so many inotify instances, of which each of them needs some, and put it back."""
    before = INOTIFY.read_text()
    INOTIFY.write_text(str(max(least, int(before))))
    try:
        yield
    finally:
        INOTIFY.write_text(before)


def succeeded(done: Run) -> str:
    """Return what a command printed that has to succeed."""
    if done.code:
        raise SystemExit(f"bench configure: wanted success, found\n{done.output[-3000:]}")
    return done.output


@dataclass
class Site:
    """A lead that declares as many machines as there will be, and how to reach them."""

    sandbox: Sandbox
    folder: Path
    known: Path
    tar: str = ""
    persist: int = PERSIST
    options: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What Ansible's commands and ssh need."""
        return {
            **os.environ,
            **self.sandbox.env,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_ARGS": f"-C -o ControlMaster=auto -o ControlPersist={self.persist}s{self.options}",
        }

    def command(self, playbook: Path, hosts: Sequence[str], *words: str, **given: Any) -> list[str]:
        """Return the command that plays a playbook for some of the machines, as a burst into the sandbox."""
        variables = {
            "burst_image_prepared": True,
            "burst_hostlist": declared(MOST),
            "burst_subnet_cidr": "10.10.0.0/24",
            "burst_ssh_private_key_file": str(self.sandbox.state / "ssh_key"),
            "secrets": str(self.folder),
            "role": str(TOP / "roles/node"),
            **given,
        }
        inventories = ["-i", str(TOP / "inventory/sandbox")]
        if self.known.exists():
            inventories += ["-i", str(self.known)]
        limit = ["--limit", ",".join([*hosts, "localhost", LEAD])] if hosts else []
        return [
            str(BIN / "ansible-playbook"),
            str(playbook),
            *inventories,
            *limit,
            "-e",
            json.dumps(variables),
            *words,
        ]

    def untimed(self, playbook: Path, hosts: Sequence[str], *words: str, **given: Any) -> str:
        """Play a playbook and return what it printed."""
        command = self.command(playbook, hosts, *words, **given)
        done = subprocess.run(
            command, env=self.environment, cwd=HERE, capture_output=True, text=True, check=False
        )
        return succeeded(Run(done.returncode, done.stdout + done.stderr))

    def timed(self, playbook: Path, hosts: Sequence[str]) -> Cost:
        """Play a playbook from machines that have nothing."""
        self.begin(hosts)
        return run(self.command(playbook, hosts), self.environment)

    def begin(self, hosts: Sequence[str]) -> None:
        """Take from the machines what was placed there, and renew what is good for five minutes."""
        command = RESET.format(files=" ".join(OWN))
        for host in hosts:
            succeeded(self.sandbox.execute(host, "sh", "-c", command))
        written = json.loads(self.known.read_text())
        credential = succeeded(self.sandbox.execute(LEAD, "munge", "-n"))
        written["all"]["hosts"][LEAD]["__lead_munge_credential"]["stdout"] = credential.strip()
        self.known.write_text(json.dumps(written))

    def check_joined(self, hosts: Sequence[str]) -> None:
        """See that the lead has these machines and no others; the last of them may still be at it."""
        deadline = time.monotonic() + 60
        while True:
            words = ("flux", "resource", "list", "-s", "up", "-n", "-o", "{nodelist}")
            up = {*NodeSet(",".join(succeeded(self.sandbox.on_lead(*words)).split()))}
            if set(hosts) <= up:
                return
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(set(hosts) - up))
                raise SystemExit(f"bench configure: wanted all online, found without {missing}")
            time.sleep(0.2)


def declared(count: int) -> str:
    """Return a hostlist of so many machines."""
    return f"gffw-compute-a-[001-{count:03}]"


def machines(count: int) -> list[str]:
    """Return their names."""
    return [f"gffw-compute-a-{number:03}" for number in range(1, count + 1)]


@contextmanager
def site() -> Iterator[Site]:
    """Run a sandbox whose lead declares the most machines, all of which run and have their base."""
    sandbox = Sandbox(sandbox_name("conf"), "auto")
    sandbox.command("down")
    with (
        inotify(2048),
        tempfile.TemporaryDirectory(prefix="flux-burst-bench-") as folder,
    ):
        try:
            succeeded(sandbox.up())
            declare(sandbox)
            made = Site(sandbox, Path(folder), Path(folder) / "known.json")
            names = machines(MOST)
            made.untimed(HERE / "nodes_machines.yml", [], machines=names)
            made.untimed(HERE / "nodes_lead.yml", [], known=str(made.known))
            write_secrets(made)
            yield made
        finally:
            sandbox.command("down")


def declare(sandbox: Sandbox) -> None:
    """Let lead and worker declare more machines than the sandbox's own three."""
    change = (
        f"sed -i 's/{re.escape(declared(3))}/{declared(MOST)}/' /etc/flux/system/conf.d/system.toml; "
        "systemctl restart flux"
    )
    for name in (LEAD, "flux-sample-1"):
        succeeded(sandbox.execute(name, "sh", "-c", change))


def write_secrets(site: Site) -> None:
    """Write the files that the ordinary tasks copy."""
    hosts = json.loads(site.known.read_text())["all"]["hosts"][LEAD]
    for name, key in (("munge.key", "__lead_munge_key"), ("curve.cert", "__lead_curve_cert")):
        (site.folder / name).write_bytes(base64.b64decode(hosts[key]["content"]))
    for name in ("security", "imp"):
        path = f"/etc/flux/{name}/conf.d/{name}.toml"
        text = succeeded(site.sandbox.execute(machines(1)[0], "cat", path))
        (site.folder / f"{name}.toml").write_text(text)


def our_play(folder: Path) -> Path:
    """Return a playbook of the burst's play that configures machines, and nothing else."""
    files = (TOP / "playbooks").glob("*.yml")
    plays = [play for file in files for play in yaml.safe_load(file.read_text())]
    ours = [play for play in plays if play.get("name") == PLAY]
    if len(ours) != 1:
        raise SystemExit(f"bench configure: wanted one play '{PLAY}', found {len(ours)}")
    path = folder / "ours.yml"
    path.write_text(yaml.safe_dump(ours, sort_keys=False))
    return path


def ssh_config(site: Site, seen: str) -> Path:
    """Write ssh's configuration for the machines, from the commands that Ansible ran (with -vvv)."""
    blocks = []
    for host, command in dict(EXECUTION.findall(seen)).items():
        words = shlex.split(command)
        options = [words[at + 1] for at, word in enumerate(words) if word == "-o"]
        rows = (option.partition("=") for option in options)
        lines = [f"  {key} {value}" for key, _unused, value in rows]
        blocks.append("\n".join([f"Host {host}", *lines]))
    path = site.folder / "ssh_config"
    path.write_text("\n".join(blocks) + "\n")
    return path


def push(site: Site, config: Path, hosts: Sequence[str]) -> Cost:
    """Put the same files onto the machines by ClusterShell, and start the units."""
    site.begin(hosts)
    command = [
        sys.executable,
        HERE / "clush_push.py",
        config,
        ",".join(hosts),
        f"sudo sh -c {shlex.quote(START)}",
    ]
    return run(command, site.environment, site.tar)


def configure() -> bool:
    """Compare the three ways at each size."""
    good = True
    with site() as made:
        ours = our_play(made.folder)
        made.begin(machines(MOST))
        seen = made.untimed(ours, machines(MOST), "-vvv")
        made.check_joined(machines(MOST))
        counted = Counter(host for host, _command in EXECUTION.findall(seen))
        most = [float(counted[host]) for host in machines(MOST)]
        good &= figure("configure_executions_per_host", most, "executions", "<= 1")
        made.tar = base64.b64encode(packed(made)).decode()
        config = ssh_config(made, seen)
        for kind in ("", "_curve25519", "_open"):
            made.options = CLASSIC if kind == "_curve25519" else ""
            made.persist = OPEN if kind == "_open" else PERSIST
            if kind:
                config = ssh_config(made, made.untimed(ours, machines(MOST), "-vvv"))
            for count, runs in SIZES.items() if not kind else [(JUDGED, SIZES[JUDGED])]:
                rounds = [compared(made, ours, config, count, kind) for _unused in range(runs)]
                good &= told(f"configure{kind}_{count}", count, rounds)
    return good


def compared(site: Site, ours: Path, config: Path, count: int, kind: str) -> dict[str, Cost]:
    """Configure so many machines in each way, and see each time that all of them have joined."""
    hosts, costs = machines(count), {}
    for name in ("ours", "clustershell", "ordinary"):
        if name == "clustershell":
            costs[name] = push(site, config, hosts)
        else:
            play = ours if name == "ours" else HERE / "nodes_ordinary.yml"
            costs[name] = site.timed(play, hosts)
        site.check_joined(hosts)
        say(
            f"# configure{kind}_{count} {name}: {costs[name].wall:.1f} s, "
            f"controller CPU {costs[name].cpu / count:.3f} s a host"
        )
    return costs


def told(what: str, count: int, rounds: Sequence[Mapping[str, Cost]]) -> bool:
    """Tell the figures of one size; those of 16 machines have targets, the others show how it grows."""
    cpu = [each["ordinary"].cpu / each["ours"].cpu for each in rounds]
    wall = [each["ours"].wall / each["clustershell"].wall for each in rounds]
    names = (f"{what}_cpu_against_ordinary", f"{what}_wall_of_clustershell")
    if count != JUDGED:
        for name, values in zip(names, (cpu, wall), strict=True):
            say(f"# {name}: {spread(values)} times")
        return True
    good = figure(names[0], cpu, "times", ">= 7")
    return figure(names[1], wall, "times", "<= 3") and good


def packed(site: Site) -> bytes:
    """Return what a machine was given, as one archive."""
    words = ("exec", "--name", site.sandbox.name, machines(1)[0], "--", "tar", "-czp", "-C", "/")
    paths = [path.lstrip("/") for path in PLACED]
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", *words, *paths], cwd=TOP, capture_output=True, check=True
    )
    return done.stdout
