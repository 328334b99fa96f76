# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh is told to go through the tunnel, and to accept the machine's own keys alone."""

from __future__ import annotations

import stat
from pathlib import Path

from ansible_collections.flux.burst.plugins.connection.iap import ssh_options, write_known_hosts


def test_only_the_given_host_keys_are_accepted() -> None:
    words = ssh_options(["python", "/x/_iap.py"], Path("/home/me/known"), "iap-1")
    assert "StrictHostKeyChecking=yes" in words
    assert "UserKnownHostsFile=/home/me/known" in words
    assert "GlobalKnownHostsFile=/dev/null" in words
    assert "HostKeyAlias=iap-1" in words


def test_a_percent_sign_is_not_a_token_of_ssh() -> None:
    words = ssh_options(["python", "/x/100% sure/_iap.py"], Path("/k"), "a")
    assert "ProxyCommand=python '/x/100%% sure/_iap.py'" in words


def test_host_keys_are_written_whole_and_for_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "made" / "key"
    write_known_hosts(path, "iap-1", {"ssh-rsa": "BBBB", "ssh-ed25519": "AAAA"})
    assert path.read_text() == "iap-1 ssh-ed25519 AAAA\niap-1 ssh-rsa BBBB\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    write_known_hosts(path, "iap-1", {"ssh-ed25519": "CCCC"})
    assert path.read_text() == "iap-1 ssh-ed25519 CCCC\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]
