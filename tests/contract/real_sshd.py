# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real sshd on a port of this machine, for the user who runs this, without a limit of connections."""

from __future__ import annotations

import getpass
import os
import pwd
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from compute_server import free_ports

from tools.peers import sshd

ALIAS = "flux-burst-test"
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
MaxStartups 1000
Subsystem sftp internal-sftp
"""
# As root, sshd wants a user of its own and a directory in /run: it sees them, and nobody else.
AS_ROOT = """
mount -t tmpfs none /run && mkdir -m 0755 /run/sshd &&
mount --bind {folder}/passwd /etc/passwd && exec {command}
"""


@dataclass(frozen=True)
class Sshd:
    """A running sshd: its port, and the directory with the user's key and the known host."""

    port: int
    folder: Path

    def ssh(self, *options: str) -> list[str]:
        """Return ssh's command line to it, without what it shall do; options go first."""
        fixed = {
            "IdentityFile": self.folder / "key",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": ALIAS,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in fixed.items() for word in ("-o", f"{name}={value}")]
        where = ["-p", str(self.port), f"{getpass.getuser()}@127.0.0.1"]
        return ["ssh", "-F", "/dev/null", *options, *words, *where]


@contextmanager
def serving_ssh(folder: Path) -> Iterator[Sshd]:
    """Run sshd with its files in a directory. Raises PeersError where there is none."""
    program, libraries = sshd()
    for name in ("key", "host_key"):
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(generate, check=True)
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"{ALIAS} {key}")
    [port] = free_ports(1)
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
    command = [str(program), "-D", "-e", "-f", str(folder / "sshd_config")]
    if os.geteuid() == 0 and not _is_user("sshd"):
        passwd = Path("/etc/passwd").read_text()
        (folder / "passwd").write_text(f"{passwd}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
        script = AS_ROOT.format(folder=folder, command=shlex.join(command))
        command = ["unshare", "--mount", "sh", "-c", script]
    environment = {**os.environ, **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})}
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_for(port, process, folder / "sshd.log")
        yield Sshd(port, folder)
    finally:
        process.terminate()
        process.wait(10)


def _is_user(name: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as made:
            if made.recv(3) == b"SSH":
                return
        time.sleep(0.02)
    raise AssertionError(log.read_text())
