# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is set in a fresh Debian root to make it a machine that boots in a fraction of a second."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MUNGE_ID = 402
"""User and group id of munge, the same in every image, so that its key can be written before boot."""
GUEST = ("fluxuser", 2001)
HOST_KEYS = "var/lib/sandbox-host-keys"
"""Where a machine leaves its public host keys once its sshd answers."""

# What a machine in a container has no use for, or what would keep the boot waiting.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "kmod-static-nodes.service",
    "modprobe@.service",
    "networkd-dispatcher.service",
    "remote-fs.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-initctl.socket",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-network-generator.service",
    "systemd-networkd-wait-online.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "tmp.mount",
    "ssh.socket",
)

FILES = {
    "etc/ssh/sshd_config.d/sandbox.conf": """\
# As on a Compute Engine image: keys only. One key type, made at boot, keeps the boot short.
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
PermitRootLogin no
UseDNS no
""",
    "etc/systemd/system/sandbox-host-keys.service": """\
[Unit]
Description=Make the host keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -C "" -f /etc/ssh/ssh_host_ed25519_key
""",
    # The guest agent publishes the keys. Here that waits for sshd, so who sees them can connect.
    "etc/systemd/system/sandbox-publish-host-keys.service": f"""\
[Unit]
Description=Publish the host keys
After=ssh.service
Requires=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/bin/install -D -m 0644 -t /{HOST_KEYS} /etc/ssh/ssh_host_ed25519_key.pub
""",
    "etc/systemd/system/ssh.service.d/sandbox.conf": """\
[Unit]
Wants=sandbox-host-keys.service
After=sandbox-host-keys.service
""",
    "etc/systemd/journald.conf.d/sandbox.conf": """\
[Journal]
ForwardToConsole=yes
MaxLevelConsole=info
Storage=volatile
RuntimeMaxUse=16M
""",
    "etc/systemd/system.conf.d/sandbox.conf": """\
[Manager]
DefaultTimeoutStopSec=10s
ShowStatus=no
""",
    "etc/sudoers.d/sandbox": "Defaults !fqdn\n",
    "etc/apt/apt.conf.d/90sandbox": 'APT::Periodic::Enable "0";\n',
}


def apply(root: Path) -> None:
    """Set a root up."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o440 if "sudoers" in name else 0o644)
    for unit in MASKED:
        _link(root / "etc/systemd/system" / unit, "/dev/null")
    wants = root / "etc/systemd/system/multi-user.target.wants"
    _link(
        wants / "sandbox-publish-host-keys.service",
        "/etc/systemd/system/sandbox-publish-host-keys.service",
    )
    _link(root / "etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")
    _forget_secrets(root)
    _pin_munge(root)
    add_account(root, *GUEST, home=f"/home/{GUEST[0]}")
    for name in ("etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
    # An image of Compute Engine carries no package lists either; with them it would be half as big again.
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _forget_secrets(root: Path) -> None:
    """Remove what the packages made at installation and what must be each machine's own."""
    for pattern in ("etc/ssh/ssh_host_*", "etc/munge/munge.key", "var/lib/munge/*"):
        for path in root.glob(pattern):
            path.unlink()
    for path in root.glob("etc/systemd/system/*.wants/munge.service"):
        path.unlink()
    (root / "etc/machine-id").write_text("")


def _pin_munge(root: Path) -> None:
    """Give munge the user and group id that files written before boot are owned by."""
    old = _ids(root / "etc/passwd", "munge")
    for name in ("etc/passwd", "etc/group"):
        path = root / name
        path.write_text(
            "".join(
                _renumbered(line, len(old) if name.endswith("passwd") else 1)
                if line.startswith("munge:")
                else line
                for line in path.read_text().splitlines(keepends=True)
            )
        )
    for top in ("etc/munge", "var/lib/munge", "var/log/munge", "run/munge"):
        for path in [root / top, *(root / top).rglob("*")]:
            if path.exists() and (path.stat().st_uid, path.stat().st_gid) == old:
                os.chown(path, MUNGE_ID, MUNGE_ID)


def _ids(passwd: Path, user: str) -> tuple[int, int]:
    for line in passwd.read_text().splitlines():
        words = line.split(":")
        if words[0] == user:
            return int(words[2]), int(words[3])
    raise KeyError(user)


def _renumbered(line: str, count: int) -> str:
    words = line.split(":")
    words[2 : 2 + count] = [str(MUNGE_ID)] * count
    return ":".join(words)


def add_account(root: Path, user: str, uid: int, *, home: str, shell: str = "/bin/bash") -> None:
    """Add a user without a password, its group of the same id, and its home, to a root's files."""
    lines = {
        "etc/passwd": f"{user}:x:{uid}:{uid}::{home}:{shell}\n",
        "etc/group": f"{user}:x:{uid}:\n",
        "etc/shadow": f"{user}:*:19000:0:99999:7:::\n",
        "etc/gshadow": f"{user}:!::\n",
    }
    for name, line in lines.items():
        with (root / name).open("a") as file:
            file.write(line)
    directory = root / home.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    os.chown(directory, uid, uid)
