# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host keys of a burst's machines, pinned when they are first read: a known_hosts file with a line for each key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.flux.burst.plugins.module_utils import _burst_directory
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

# What ssh says of a key that it does not accept.
REFUSED = "Host key verification failed"
SENT = re.compile(r"key sent by the remote host is\s+(SHA256:[A-Za-z0-9+/]+)")


def fingerprint(key: str) -> str:
    """Return the fingerprint of a public key in base64, as `ssh-keygen -lf` shows it."""
    try:
        digest = hashlib.sha256(base64.b64decode(key, validate=True)).digest()
    except (binascii.Error, ValueError):
        return f"no key ({key[:20]})"
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def alias(project: str, zone: str, instance: str, instance_id: str) -> str:
    """Return the name of a machine in a known_hosts file: by its id, one made again under a name is another."""
    return f"compute.{instance_id}" if instance_id else f"{instance}.{zone}.{project}"


def pinned(path: Path, name: str) -> dict[str, str]:
    """Return the keys that a known_hosts file has for a machine, by type."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    words = [line.split() for line in lines]
    return {row[1]: row[2] for row in words if len(row) == 3 and row[0] == name}


def pin(path: Path, name: str, keys: Mapping[str, str], machine: str) -> None:
    """Pin a machine's keys, or see that they are those that are pinned. machine is its name in the message.

    Many may do it at the same time, each for another machine. Raises GceError.
    """
    with _burst_directory.locked(path.with_name(f"{path.name}.lock")):
        before = pinned(path, name)
        if not before:
            rest = path.read_text() if path.exists() else ""
            lines = [f"{name} {kind} {key}\n" for kind, key in sorted(keys.items())]
            _burst_directory.replace(path, rest + "".join(lines))
            return
    # A type that was published later is not pinned: ssh takes the pinned ones alone.
    differing = [kind for kind in before if keys.get(kind, before[kind]) != before[kind]]
    if differing:
        found = f"{shown(keys, differing)} among its guest attributes"
    elif not set(before) & set(keys):
        found = f"{shown(keys)} among its guest attributes"
    else:
        return
    raise GceError(refusal(path, name, before, machine, found), stage="host_key")


def refusal(path: Path, name: str, before: Mapping[str, str], machine: str, found: str) -> str:
    """Return what is said of a machine that is not the one whose keys were pinned."""
    return (
        f"stage host_key: wanted {machine} with the SSH host key {shown(before)} that is pinned in {path}, found "
        f"{found}: nothing was sent to it. Unless somebody changed its keys on purpose, it is not that machine: delete "
        f"it and run the burst again. If they did: ssh-keygen -R {name} -f {path}"
    )


def shown(keys: Mapping[str, str], kinds: list[str] | None = None) -> str:
    """Return keys with their types and fingerprints."""
    rows = [f"{kind} {fingerprint(keys[kind])}" for kind in kinds or sorted(keys)]
    return ", ".join(rows)


def presented(said: str) -> str:
    """Return what ssh's own words tell of the key that it was offered."""
    sent = SENT.search(said)
    return f"{sent[1]} presented by its sshd" if sent else "another one presented by its sshd"
