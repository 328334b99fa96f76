# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines in systemd-nspawn: systemd as PID 1, their own hostname, namespaces and address.

A machine's root is an overlay over the shared root and the layers of the image that it boots from,
mounted in a mount namespace of its own, so it is gone when the machine's processes are. Its upper
layer is in memory.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sandbox.inside import ROOT, command
from sandbox.machines import MachineError, MachineSpec, cgroups, cloudnet, processes
from sandbox.machines.cloudnet import CloudNet, machine_namespace
from sandbox.machines.images import Chain, Images
from sandbox.machines.layer import write_layer
from sandbox.rootfs import remove_tree
from sandbox.rootfs_settings import HOST_KEYS

PROPAGATE = Path("/run/systemd/nspawn/propagate")
STOP_SECONDS = 30.0
"""How long a shutdown may take before the machine is killed."""
# $0 is the machine's directory, $1 what its root lies on, the rest is nspawn's command.
START = """\
lower=$1; shift
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$0/upper,workdir=$0/work" "$0/merged" &&
exec "$@"
"""

# In the machine: who is $1 has the keys of standard input, and none without any.
LET_IN = """\
set -e
keys=$(cat)
if ! id -u "$1" >/dev/null 2>&1; then
  test -n "$keys" || exit 0
  useradd --create-home --shell /bin/bash "$1"
fi
home=$(getent passwd "$1" | cut -d: -f6)
install -d -m 700 -o "$1" -g "$1" "$home/.ssh"
printf '%s\\n' "$keys" > "$home/.ssh/.new"
chown "$1:" "$home/.ssh/.new"
chmod 600 "$home/.ssh/.new"
mv "$home/.ssh/.new" "$home/.ssh/authorized_keys"
printf '%s ALL=(ALL) NOPASSWD:ALL\\n' "$1" > "/etc/sudoers.d/$1"
chmod 440 "/etc/sudoers.d/$1"
"""


class NspawnBackend:
    """Boots machines. See sandbox.machines.Backend for what each method promises."""

    def __init__(self, name: str, state: Path, root: Path, fixed_port: bool = True) -> None:
        self.name = name
        self.top = state / "machines"
        self.root = root
        self.net = CloudNet(name, fixed_port)
        # No project has such a name.
        self.images = Images(self.top / ".images", root)
        self._machines: dict[tuple[str, str], MachineSpec] = {}
        self._chains: dict[tuple[str, str], Chain] = {}
        self._processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the network and the memory that the machines' disks are in."""
        self.top.mkdir(parents=True, exist_ok=True)
        self.top.chmod(0o700)
        if not os.path.ismount(self.top):
            # What a machine writes, secrets too, must not come to this machine's disk.
            options = ["-o", "mode=0700", f"fbs-{self.name}", str(self.top)]
            done = subprocess.run(
                ["mount", "-t", "tmpfs", *options], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise MachineError(f"mounting a tmpfs at {self.top} failed: {done.stderr.strip()}")
        self.net.open()

    def directory(self, project: str, name: str) -> Path:
        """Return the directory of a machine."""
        return self.top / project / name

    def create(self, spec: MachineSpec) -> None:
        """Boot a machine."""
        key = (spec.project, spec.name)
        with self._lock:
            if key in self._machines:
                raise MachineError(f"machine {spec.project}/{spec.name} is there already")
            self._machines[key] = spec
        try:
            with self._lock:
                self._chains[key] = self.images.chain(spec.image)
            self._boot(spec)
        except (MachineError, OSError) as error:
            self.delete(spec.project, spec.name)
            raise MachineError(
                f"machine {spec.project}/{spec.name} did not start: {error}"
            ) from error

    def _boot(self, spec: MachineSpec) -> None:
        directory = self.directory(spec.project, spec.name)
        for part in ("upper", "work", "merged"):
            (directory / part).mkdir(parents=True)
        (directory / "upper").chmod(0o755)
        write_layer(self.images.view(spec.image), directory / "upper", spec)
        namespace = self.net.attach(spec)
        groups = cgroups.make(self.name, namespace)
        lower = self.images.lower(self._chains[spec.project, spec.name])
        command = [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", START, str(directory), ":".join(map(str, lower))),
            *self._nspawn(namespace, spec.name, directory),
        ]
        with (directory / "console.log").open("wb") as console:
            process = subprocess.Popen(
                cgroups.entering(groups, command),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd="/",
                env={"PATH": os.defpath + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        with self._lock:
            self._processes[spec.project, spec.name] = process
        (directory / "pid").write_text(f"{process.pid}\n")

    @staticmethod
    def _nspawn(namespace: str, hostname: str, directory: Path) -> list[str]:
        return [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            f"--machine={namespace}",
            f"--hostname={hostname}",
            f"--network-namespace-path=/run/netns/{namespace}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--console=read-only",
            "--kill-signal=SIGRTMIN+4",
            f"--directory={directory}/merged",
        ]

    def stop(self, project: str, name: str) -> None:
        """Shut a machine down; what it wrote stays."""
        namespace = machine_namespace(self.name, project, name)
        processes.shut_down(namespace, STOP_SECONDS)
        self._end(project, name, namespace)

    def delete(self, project: str, name: str) -> None:
        """Kill a machine and remove what it had."""
        namespace = machine_namespace(self.name, project, name)
        self._end(project, name, namespace)
        remove_tree(self.directory(project, name))
        with self._lock:
            self._machines.pop((project, name), None)
            self._chains.pop((project, name), None)
            self.images.prune(self._chains.values())

    def _end(self, project: str, name: str, namespace: str) -> None:
        processes.kill_machine(namespace)
        with self._lock:
            process = self._processes.pop((project, name), None)
        if process:
            process.wait()
        _tidy(namespace)
        self.net.detach(project, name)
        cgroups.remove(self.name, namespace)

    def save_image(self, project: str, name: str, image: str) -> int:
        """Copy the upper layer of a stopped machine."""
        if self.running(project, name):
            raise MachineError(f"machine {project}/{name} runs: stop it first")
        with self._lock:
            if (project, name) not in self._machines:
                raise MachineError(f"there is no machine {project}/{name}")
            upper = self.directory(project, name) / "upper"
            return self.images.save(image, upper, self._chains[project, name])

    def delete_image(self, image: str) -> None:
        """Drop an image's layer, or leave it to the machines that lie on it."""
        with self._lock:
            self.images.forget(image, self._chains.values())

    def set_ssh_keys(self, project: str, name: str, keys: tuple[tuple[str, str], ...]) -> None:
        """Write the files that sshd and sudo read."""
        leader = processes.leader(machine_namespace(self.name, project, name))
        with self._lock:
            spec = self._machines.get((project, name))
            if leader is None or spec is None:
                return
            self._machines[project, name] = replace(spec, ssh_keys=keys)
        for user in sorted({user for user, _unused in (*spec.ssh_keys, *keys)}):
            words = ["sh", "-c", LET_IN, "sh", user]
            lines = "\n".join(key for whose, key in keys if whose == user)
            cloudnet.run(command(leader, ROOT, words, "dumb"), lines)

    def serial(self, project: str, name: str) -> str:
        """Return the console's output."""
        path = self.directory(project, name) / "console.log"
        try:
            return path.read_bytes().decode(errors="replace").replace("\r", "")
        except OSError:
            return ""

    def host_keys(self, project: str, name: str) -> dict[str, str]:
        """Return the keys that the machine published, which it does when its sshd answers."""
        keys = {}
        for path in (self.directory(project, name) / "upper" / HOST_KEYS).glob("*.pub"):
            text = path.read_text()
            words = text.split()
            if text.endswith("\n") and len(words) >= 2:
                keys[words[0]] = words[1]
        return keys

    def running(self, project: str, name: str) -> bool:
        """Return whether the machine's init lives."""
        return processes.leader(machine_namespace(self.name, project, name)) is not None

    def set_nat(self, segment: str, address: str | None) -> None:
        """Let a segment out, or shut it in."""
        self.net.set_nat(segment, address)

    def set_forwards(self, forwards: Mapping[tuple[str, str, int], tuple[str, int]]) -> None:
        """Lead segments to the site's ports."""
        self.net.set_forwards(forwards)

    def command(self, project: str, name: str, words: list[str]) -> list[str]:
        """Return a command that enters the machine."""
        leader = processes.leader(machine_namespace(self.name, project, name))
        if leader is None:
            raise MachineError(f"wanted {name} running, found it dead: see logs {name}")
        return command(leader, ROOT, words, "xterm")

    def connect(self, project: str, name: str, port: int) -> socket.socket:
        """Connect from the relay's address."""
        spec = self._machines.get((project, name))
        if spec is None:
            raise ConnectionRefusedError(f"there is no machine {project}/{name}")
        return self.net.connect(spec.segment, spec.address, port)

    def listen(self, project: str, name: str) -> socket.socket | None:
        """Listen in the machine's own namespace, so that there is no doubt who asks."""
        return self.net.listen(machine_namespace(self.name, project, name))

    def close(self) -> None:
        """Take everything of this sandbox's machines away, of this process or of one before."""
        sweep(self.name, self.top)
        with self._lock:
            started, self._processes = self._processes, {}
            self._machines.clear()
            self._chains.clear()
        for process in started.values():
            process.wait()
        self.net.close()


def sweep(sandbox: str, top: Path) -> None:
    """Remove all machines of a sandbox, whoever started them, and their network. Idempotent.

    top is the directory that the machines' directories are in.
    """
    processes.kill_sandbox(sandbox)
    for name in cloudnet.namespaces(sandbox):
        _tidy(name)
    cloudnet.delete_namespaces(sandbox)
    cgroups.remove_all(sandbox)
    if top.exists():
        remove_tree(top)


def _tidy(machine: str) -> None:
    """Remove what an nspawn that was killed itself had no time to remove."""
    with contextlib.suppress(OSError):
        (PROPAGATE / machine).rmdir()
