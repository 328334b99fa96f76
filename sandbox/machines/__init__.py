# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backend of machines is: the server creates instances, a backend makes machines of them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

IAP_ADDRESS = "35.235.240.1"
"""Where connections through the IAP relay come from, as a machine sees them."""
METADATA_ADDRESS = "169.254.169.254"
"""Where a machine finds its metadata server, at port 80."""


@dataclass(frozen=True)
class FileSpec:
    """A file that is in a machine before it boots."""

    content: bytes = field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Account:
    """A user that is in a machine before it boots: its group has the same id, its home is its own."""

    user: str
    uid: int
    home: str


@dataclass(frozen=True)
class MachineSpec:
    """A machine to boot.

    project and name identify it, and name is its hostname. segment is the L2 segment of its only
    interface, eth0: "site" or "PROJECT/SUBNETWORK"; address and gateway are IPv4, prefix its length
    in bits. Each (user, public key) of ssh_keys becomes an account with passwordless sudo. files are
    by absolute path; enable names systemd units to start at boot; accounts are made before files.
    image is the id of the saved image that it boots from, "" the root that all machines share.
    """

    project: str
    name: str
    segment: str
    address: str
    prefix: int
    gateway: str
    ssh_keys: tuple[tuple[str, str], ...] = ()
    files: Mapping[str, FileSpec] = field(default_factory=dict)
    enable: tuple[str, ...] = ()
    accounts: tuple[Account, ...] = ()
    image: str = ""


class MachineError(Exception):
    """A machine or its network could not be made; the message is one line."""


class Backend(Protocol):
    """Makes machines. Each method may be called from several threads at once."""

    def open(self) -> None:
        """Make what all machines share. Idempotent."""

    def create(self, spec: MachineSpec) -> None:
        """Boot a machine; return when it runs, not when its sshd answers. Raises MachineError."""

    def delete(self, project: str, name: str) -> None:
        """Take a machine away at once, as a power cut does. Idempotent."""

    def stop(self, project: str, name: str) -> None:
        """Shut a machine down in order; its disk is there until it is deleted. Idempotent."""

    def save_image(self, project: str, name: str, image: str) -> int:
        """Keep a stopped machine's disk as an image by this id; return its size in bytes. Raises MachineError."""

    def delete_image(self, image: str) -> None:
        """Drop a saved image; machines that were booted from it go on. Idempotent."""

    def set_ssh_keys(self, project: str, name: str, keys: tuple[tuple[str, str], ...]) -> None:
        """Let these (user, public key) in and no others, as a guest agent does. Raises MachineError."""

    def serial(self, project: str, name: str) -> str:
        """Return what the machine has written to its console so far; "" where there is none."""

    def host_keys(self, project: str, name: str) -> dict[str, str]:
        """Return the public host keys, type -> base64; {} until the boot has made them."""

    def running(self, project: str, name: str) -> bool:
        """Return whether the machine's init process lives."""

    def set_nat(self, segment: str, address: str | None) -> None:
        """Let a segment's machines out with this source address; None shuts them in again."""

    def set_forwards(self, forwards: Mapping[tuple[str, str, int], tuple[str, int]]) -> None:
        """Let (segment, address, port), as the segment's machines reach it, lead to (address, port) of the site's."""

    def command(self, project: str, name: str, words: list[str]) -> list[str]:
        """Return the command that runs another in a machine as root. Raises MachineError."""

    def connect(self, project: str, name: str, port: int) -> socket.socket:
        """Return a blocking TCP connection to the machine, from IAP_ADDRESS. Raises OSError."""

    def listen(self, project: str, name: str) -> socket.socket | None:
        """Return a socket that listens for the machine alone, at METADATA_ADDRESS; None where nothing runs."""

    def close(self) -> None:
        """Take all machines and what they share away. Idempotent."""
