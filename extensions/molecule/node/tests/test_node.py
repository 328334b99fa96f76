# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine after the role node, and the lead that it joined."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testinfra.host import Host

HOST = "gffw-compute-a-002"
FLUX = "runuser -u flux -- flux"


@pytest.fixture
def host(machine: Callable[[str], Host]) -> Host:
    return machine(HOST)


@pytest.mark.parametrize(
    ("path", "user", "mode"),
    [
        ("/etc/munge/munge.key", "munge", 0o400),
        ("/etc/flux/system/curve.cert", "flux", 0o600),
        ("/etc/flux/system/molecule.d/system.toml", "root", 0o644),
        ("/etc/systemd/system/flux.service", "root", 0o644),
    ],
)
def test_each_file_is_its_owner_s(host: Host, path: str, user: str, mode: int) -> None:
    file = host.file(path)
    assert (file.user, file.group, file.mode) == (user, user, mode)


@pytest.mark.parametrize("path", ["/etc/munge/munge.key", "/etc/flux/system/curve.cert"])
def test_the_secrets_are_the_lead_s(host: Host, lead: Host, path: str) -> None:
    assert host.file(path).sha256sum == lead.file(path).sha256sum


@pytest.mark.parametrize("unit", ["flux", "munge"])
def test_it_runs_and_starts_at_boot(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_the_job_that_waited_for_one_more_node_ran_on_it(lead: Host) -> None:
    job = lead.check_output(f"{FLUX} jobs -ano '{{id.f58plain}}' --name molecule")
    assert HOST in lead.check_output(f"timeout 30 {FLUX} job attach %s", job).split()


def test_a_guest_s_job_runs_on_it(lead: Host) -> None:
    run = f"timeout 30 runuser -u fluxuser -- flux run --cwd /tmp --requires=host:{HOST} id -un"
    assert lead.check_output(run) == "fluxuser"
