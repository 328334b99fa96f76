# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's host keys are pinned once, for its id; another key under that id is refused with both fingerprints."""

from __future__ import annotations

import base64
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._host_keys import (
    alias,
    fingerprint,
    pin,
    pinned,
    presented,
)

ONE, TWO = (base64.b64encode(text).decode() for text in (b"one", b"two"))
WARNING = """\
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
The fingerprint for the ED25519 key sent by the remote host is
SHA256:SL9R21t+OBLZQbyzG+GZlvk/LT9ipErVhZsBloPmZLA.\r
Please contact your system administrator.
Host key verification failed.
"""


def test_a_fingerprint_is_what_ssh_keygen_shows(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    listed = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    public = key.with_suffix(".pub").read_text().split()[1]
    assert fingerprint(public) == listed.stdout.split()[1]


def test_a_machine_that_is_made_again_is_another() -> None:
    assert alias("p", "z", "n-1", "7") == "compute.7"
    assert alias("p", "z", "n-1", "") == "n-1.z.p"


def test_pinned_keys_are_whole_and_their_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    pin(file, "compute.1", {"ssh-rsa": TWO, "ssh-ed25519": ONE}, "n-1")
    pin(file, "compute.2", {"ssh-ed25519": TWO}, "n-2")
    assert file.read_text() == (
        f"compute.1 ssh-ed25519 {ONE}\ncompute.1 ssh-rsa {TWO}\ncompute.2 ssh-ed25519 {TWO}\n"
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert pinned(file, "compute.1") == {"ssh-ed25519": ONE, "ssh-rsa": TWO}


def test_many_pin_at_once_and_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda it: pin(file, f"compute.{it}", {"ssh-rsa": ONE}, "n"), range(64)))
    lines = file.read_text().splitlines()
    assert sorted(lines) == sorted(f"compute.{it} ssh-rsa {ONE}" for it in range(64))


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"ssh-ed25519": TWO}, f"found ssh-ed25519 {fingerprint(TWO)} among its guest attributes"),
        ({"ssh-rsa": TWO}, f"found ssh-rsa {fingerprint(TWO)} among its guest attributes"),
        (
            {"ssh-rsa": TWO, "ssh-ed25519": TWO},
            f"found ssh-ed25519 {fingerprint(TWO)} among its guest attributes",
        ),
    ],
)
def test_other_keys_than_the_pinned_ones_are_refused_with_both_fingerprints(
    tmp_path: Path, keys: dict[str, str], found: str
) -> None:
    file = tmp_path / "known_hosts"
    pin(file, "compute.1", {"ssh-ed25519": ONE}, "n-1")
    with pytest.raises(GceError) as caught:
        pin(file, "compute.1", keys, "n-1")
    said = str(caught.value)
    assert f"wanted n-1 with the SSH host key ssh-ed25519 {fingerprint(ONE)}" in said
    assert found in said
    assert said.endswith(f"ssh-keygen -R compute.1 -f {file}")
    assert pinned(file, "compute.1") == {"ssh-ed25519": ONE}


def test_a_key_of_another_type_that_comes_later_is_not_taken(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    pin(file, "compute.1", {"ssh-ed25519": ONE}, "n-1")
    pin(file, "compute.1", {"ssh-ed25519": ONE, "ssh-rsa": TWO}, "n-1")
    assert pinned(file, "compute.1") == {"ssh-ed25519": ONE}


def test_the_key_that_a_machine_presents_is_read_from_what_ssh_says() -> None:
    assert presented(WARNING) == (
        "SHA256:SL9R21t+OBLZQbyzG+GZlvk/LT9ipErVhZsBloPmZLA presented by its sshd"
    )
    unknown = "No RSA host key is known for compute.1 and you have requested strict checking."
    assert presented(unknown) == "another one presented by its sshd"
