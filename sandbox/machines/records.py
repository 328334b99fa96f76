# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines as records only: for thousands of instances, and where nothing can be booted."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Mapping

from sandbox.machines import MachineError, MachineSpec

KEY_TYPE = "ssh-ed25519"


def made_up_key(project: str, name: str) -> str:
    """Return the base64 of a well-formed public key that nobody has the private part of."""
    words = (KEY_TYPE.encode(), hashlib.sha256(f"{project}/{name}".encode()).digest())
    return base64.b64encode(
        b"".join(len(word).to_bytes(4, "big") + word for word in words)
    ).decode()


class RecordsBackend:
    """Remembers machines. See sandbox.machines.Backend for what each method promises."""

    def __init__(self) -> None:
        self._machines: dict[tuple[str, str], MachineSpec] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Nothing is shared."""

    def create(self, spec: MachineSpec) -> None:
        """Remember a machine. Raises MachineError where there is one of that name."""
        with self._lock:
            if (spec.project, spec.name) in self._machines:
                raise MachineError(f"machine {spec.project}/{spec.name} is there already")
            self._machines[spec.project, spec.name] = spec

    def delete(self, project: str, name: str) -> None:
        """Forget a machine."""
        with self._lock:
            self._machines.pop((project, name), None)

    def stop(self, project: str, name: str) -> None:
        """Forget a machine: it has no disk to keep."""
        self.delete(project, name)

    def save_image(self, project: str, name: str, image: str) -> int:
        """Keep nothing: an image is a record only, too."""
        return 0

    def delete_image(self, image: str) -> None:
        """Nothing was kept."""

    def set_ssh_keys(self, project: str, name: str, keys: tuple[tuple[str, str], ...]) -> None:
        """Let nobody in: there is nothing to log in to."""

    def serial(self, project: str, name: str) -> str:
        """Say that there is no console."""
        return f"{name} is a record only: backend records boots nothing\n"

    def host_keys(self, project: str, name: str) -> dict[str, str]:
        """Return a made-up key, always the same for a name."""
        if not self.running(project, name):
            return {}
        return {KEY_TYPE: made_up_key(project, name)}

    def running(self, project: str, name: str) -> bool:
        """Return whether the machine is remembered."""
        return (project, name) in self._machines

    def set_nat(self, segment: str, address: str | None) -> None:
        """Nothing is let out, as nothing is in."""

    def set_forwards(self, forwards: Mapping[tuple[str, str, int], tuple[str, int]]) -> None:
        """Nothing is reached."""

    def command(self, project: str, name: str, words: list[str]) -> list[str]:
        """Refuse: nothing runs."""
        raise MachineError(f"{name} is a record only: backend records boots nothing")

    def connect(self, project: str, name: str, port: int) -> socket.socket:
        """Refuse: nothing listens."""
        raise ConnectionRefusedError(f"{project}/{name}:{port}: backend records boots nothing")

    def listen(self, project: str, name: str) -> socket.socket | None:
        """Nobody would ask."""
        return None

    def close(self) -> None:
        """Forget all machines."""
        with self._lock:
            self._machines.clear()
