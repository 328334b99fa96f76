# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that the role burst made for the job that waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

HOST = "gffw-compute-a-001"


@pytest.fixture
def host(machine: Callable[[str], Host]) -> Host:
    return machine(HOST)


def test_it_is_one_machine_in_the_first_zone_and_in_the_burst_s_own_network(
    holdings: dict[str, Any],
) -> None:
    made = {it["name"]: it for it in holdings["instances"]}
    assert made[HOST]["zone"] == "us-central1-a"
    assert set(made) == {HOST, "gffw-compute-a-002", "gffw-compute-a-003"}
    assert "flux-burst-net" in holdings["networks"]


def test_it_is_what_the_specification_says(compute: Callable[[str], dict[str, Any]]) -> None:
    found = compute(f"zones/us-central1-a/instances/{HOST}")
    assert found["machineType"].endswith("/n1-standard-4")
    assert found["scheduling"]["provisioningModel"] == "SPOT"
    assert found["minCpuPlatform"] == "Intel Skylake"
    assert found["shieldedInstanceConfig"]["enableSecureBoot"]
    assert found["reservationAffinity"]["consumeReservationType"] == "NO_RESERVATION"
    assert found["guestAccelerators"][0]["acceleratorType"].endswith("/nvidia-tesla-t4")
    [account] = found["serviceAccounts"]
    assert account["email"].startswith("nodes@")
    assert account["scopes"] == ["https://www.googleapis.com/auth/devstorage.read_only"]
    assert len(found["resourcePolicies"]) == 1, "its placement"
    disk = compute(f"zones/us-central1-a/disks/{HOST}")
    assert (disk["sizeGb"], disk["type"].rpartition("/")[2]) == ("30", "pd-ssd")


def test_it_boots_under_the_name_that_the_lead_declares(host: Host) -> None:
    assert host.check_output("hostname") == HOST


def test_the_user_of_the_specification_is_in_with_sudo(host: Host) -> None:
    assert host.user("burst").exists
    assert host.check_output("runuser -u burst -- sudo -n id -u") == "0"


def test_it_carries_no_secret_yet(host: Host) -> None:
    assert not host.file("/etc/munge/munge.key").exists
    assert not host.file("/etc/flux/system/curve.cert").exists
