# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine has of its own before it boots, written into the upper layer of its root."""

from __future__ import annotations

import configparser
import os
import shutil
import stat
import uuid
from pathlib import Path, PurePosixPath

from sandbox.machines import FileSpec, MachineError, MachineSpec
from sandbox.rootfs_settings import add_account

FIRST_UID = 3000
"""Accounts for SSH begin here, out of the way of the ids that Flux and its users have."""
UNIT_DIRECTORIES = ("etc/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")
ACCOUNT_FILES = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")


class Layer:
    """Writes into an overlay's upper directory over a read-only root."""

    def __init__(self, root: Path, upper: Path) -> None:
        self.root = root
        self.upper = upper

    def path(self, name: str) -> Path:
        """Return where an absolute path of the machine is in the upper layer; make its parents.

        A directory that the root has too keeps the root's owner and mode, as the upper one hides it.
        """
        parts = list(PurePosixPath(name).parts[1:])
        done = PurePosixPath()
        while len(parts) > 1:
            part = parts.pop(0)
            below = self.root / done / part
            if below.is_symlink():
                target = PurePosixPath(os.readlink(below))
                parts[:0] = target.parts[1:] if target.is_absolute() else target.parts
                done = PurePosixPath() if target.is_absolute() else done
                continue
            done = done / part
            self._directory(self.upper / done, below)
        return self.upper / done / parts[0]

    @staticmethod
    def _directory(made: Path, below: Path) -> None:
        if made.is_dir():
            return
        made.mkdir()
        if below.is_dir():
            info = below.stat()
            os.chown(made, info.st_uid, info.st_gid)
            made.chmod(stat.S_IMODE(info.st_mode))
        else:
            made.chmod(0o755)

    def write(self, name: str, file: FileSpec) -> None:
        """Write a file; its owner and mode are right before its content is there."""
        path = self.path(name)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            os.fchown(handle, file.uid, file.gid)
            os.fchmod(handle, file.mode)
            stream.write(file.content)

    def copy_up(self, name: str) -> None:
        """Copy a file of the root into the upper layer, to be changed there."""
        target = self.path(f"/{name}")
        if target.exists():
            return
        shutil.copy2(self.root / name, target)
        info = (self.root / name).stat()
        os.chown(target, info.st_uid, info.st_gid)

    def directory(self, name: str, uid: int, mode: int) -> None:
        """Make a directory with its owner and mode."""
        path = self.path(name)
        path.mkdir(exist_ok=True)
        os.chown(path, uid, uid)
        path.chmod(mode)

    def find_unit(self, unit: str) -> Path:
        """Return a unit's file in either layer. Raises MachineError where there is none."""
        for top in (self.upper, self.root):
            for directory in UNIT_DIRECTORIES:
                path = top / directory / unit
                if path.is_file():
                    return path
        raise MachineError(f"wanted the systemd unit {unit} in the machine's root, found none")

    def enable(self, unit: str) -> None:
        """Do what `systemctl enable` does. Raises MachineError."""
        found = self.find_unit(unit)
        parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        text = found.read_text().replace("\\\n", " ")
        section = text[text.find("[Install]") :] if "[Install]" in text else ""
        parser.read_string(section)
        targets = parser.get("Install", "WantedBy", fallback="").split() if section else []
        for target in targets:
            link = self.path(f"/etc/systemd/system/{target}.wants/{unit}")
            if not link.is_symlink():
                top = self.upper if found.is_relative_to(self.upper) else self.root
                link.symlink_to(f"/{found.relative_to(top)}")


def write_layer(root: Path, upper: Path, spec: MachineSpec) -> None:
    """Write a machine's own files. Raises MachineError, OSError."""
    layer = Layer(root, upper)
    text = {
        "/etc/hostname": f"{spec.name}\n",
        "/etc/machine-id": f"{uuid.uuid4().hex}\n",
        # As Compute Engine's agent writes it.
        "/etc/hosts": f"127.0.0.1 localhost\n{spec.address} {spec.name} # Added by Google\n",
    }
    for name, content in text.items():
        layer.write(name, FileSpec(content.encode()))
    _accounts(layer, spec)
    for name, file in spec.files.items():
        layer.write(name, file)
    for unit in spec.enable:
        layer.enable(unit)


def _account(layer: Layer, user: str, uid: int, home: str) -> int:
    """Make an account, or leave the one that the image has; return its uid. Another's uid is not taken."""
    rows = [line.split(":") for line in (layer.upper / "etc/passwd").read_text().splitlines()]
    uids = {row[0]: int(row[2]) for row in rows}
    while user not in uids and uid in uids.values():
        uid += 1
    uid = uids.get(user, uid)
    layer.directory(home, uid, 0o755)
    if user not in uids:
        add_account(layer.upper, user, uid, home=home)
    return uid


def _accounts(layer: Layer, spec: MachineSpec) -> None:
    if spec.ssh_keys or spec.accounts:
        for name in ACCOUNT_FILES:
            layer.copy_up(name)
    for account in spec.accounts:
        _account(layer, account.user, account.uid, account.home)
    keys: dict[str, list[str]] = {}
    for user, key in spec.ssh_keys:
        keys.setdefault(user, []).append(key)
    for user, lines in keys.items():
        home = f"/home/{user}"
        uid = _account(layer, user, FIRST_UID, home)
        layer.directory(f"{home}/.ssh", uid, 0o700)
        content = "".join(f"{line}\n" for line in lines).encode()
        layer.write(f"{home}/.ssh/authorized_keys", FileSpec(content, 0o600, uid, uid))
        sudo = FileSpec(f"{user} ALL=(ALL) NOPASSWD:ALL\n".encode(), 0o440)
        layer.write(f"/etc/sudoers.d/{user}", sudo)
