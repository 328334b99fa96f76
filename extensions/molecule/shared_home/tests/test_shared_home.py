# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server and a client of a shared home, after the role shared_home."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testinfra.host import Host

PATH = "/shared/flux-home"
UNIT = r"shared-flux\x2dhome"


@pytest.fixture
def server(machine: Callable[[str], Host]) -> Host:
    return machine("gffw-compute-a-003")


@pytest.fixture
def client(machine: Callable[[str], Host]) -> Host:
    return machine("gffw-compute-a-002")


def show(host: Host, unit: str, key: str) -> str:
    return host.check_output("systemctl show --property=%s --value -- %s", key, unit)


def test_the_server_exports_the_directory_to_the_clients_and_nobody_else(server: Host) -> None:
    exports = server.check_output("exportfs -v").split()
    assert exports[0] == "/srv/flux-home"
    assert [word.partition("(")[0] for word in exports[1:]] == ["10.12.0.0/24"]
    options = exports[1].partition("(")[2].rstrip(")").split(",")
    assert {"rw", "sync", "root_squash", "no_subtree_check", "anonuid=2001"} <= set(options)


def test_the_server_runs_now_and_after_a_reboot(server: Host) -> None:
    assert server.service("nfs-server").is_running
    assert server.service("nfs-server").is_enabled
    assert server.check_output("nfsconf --get nfsd threads") == "8"


def test_the_client_mounts_when_the_path_is_used_and_reads_what_the_server_has(
    server: Host, client: Host
) -> None:
    server.check_output("echo of the server > /srv/flux-home/file")
    client.check_output("systemctl stop -- %s", f"{UNIT}.mount")
    assert show(client, f"{UNIT}.automount", "SubState") == "waiting"
    assert client.check_output("cat %s/file", PATH) == "of the server"
    assert show(client, f"{UNIT}.mount", "SubState") == "mounted"


def test_the_mount_has_the_options_that_were_asked_for(client: Host) -> None:
    what, where, flag, options = client.file("/run/mount.nfs.said").content_string.split()
    assert what.endswith(":/srv/flux-home")
    assert (where, flag) == (PATH, "-o")
    assert {"vers=4.2", "soft", "timeo=50", "nconnect=2"} <= set(options.split(","))


def test_the_client_watches_the_path_after_a_reboot(client: Host) -> None:
    assert show(client, f"{UNIT}.automount", "UnitFileState") == "enabled"
    assert show(client, f"{UNIT}.automount", "TimeoutIdleUSec") == "10min"
    assert show(client, f"{UNIT}.mount", "TimeoutUSec") == "20s"
