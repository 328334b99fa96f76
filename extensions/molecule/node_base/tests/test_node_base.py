# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine after the role node_base."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testinfra.host import Host


@pytest.fixture
def host(machine: Callable[[str], Host]) -> Host:
    return machine("gffw-compute-a-003")


def test_the_owner_has_the_lead_s_numbers(host: Host, lead: Host) -> None:
    user, wanted = host.user("flux"), lead.user("flux")
    assert (user.uid, user.gid) == (wanted.uid, wanted.gid)


@pytest.mark.parametrize("name", ["security/conf.d/security.toml", "imp/conf.d/imp.toml"])
def test_what_the_setuid_imp_reads_is_root_s_alone(host: Host, name: str) -> None:
    file = host.file(f"/etc/flux/{name}")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)
    folder = host.file(f"/etc/flux/{name.rpartition('/')[0]}")
    assert (folder.user, folder.mode & 0o022) == ("root", 0)


def test_the_imp_takes_its_configuration(host: Host) -> None:
    assert host.run("runuser -u flux -- /usr/libexec/flux/flux-imp version").rc == 0


def test_no_secret_and_no_broker_is_on_it_yet(host: Host) -> None:
    assert not host.file("/etc/flux/system/curve.cert").exists
    assert not host.service("flux").is_running
