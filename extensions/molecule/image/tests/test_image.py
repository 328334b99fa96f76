# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine that boots from the image which the role image made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def host(machine: Callable[[str], Host]) -> Host:
    return machine("molecule-booted")


def test_the_build_machine_and_its_network_are_gone(holdings: dict[str, Any]) -> None:
    assert "molecule-image" not in {it["name"] for it in holdings["instances"]}
    assert "molecule-image-net" not in holdings["networks"]


def test_what_every_bursted_machine_has_is_on_it(host: Host) -> None:
    assert host.file("/etc/flux/security/conf.d/security.toml").mode == 0o644
    assert (host.user("baker").uid, host.user("baker").gid) == (1705, 1705)


def test_the_image_is_what_its_options_say(compute: Callable[[str], dict[str, Any]]) -> None:
    image = compute("global/images/molecule-1")
    assert (image["family"], image["storageLocations"]) == ("molecule", ["us-central1"])
    assert image["labels"] == {"team": "hpc", "flux-burst-image": "flux-burst"}
    assert {"type": "GVNIC"} in image["guestOsFeatures"]


def test_it_is_a_machine_of_its_own(host: Host) -> None:
    assert host.check_output("hostname") == "molecule-booted"
    assert len(host.file("/etc/machine-id").content_string.strip()) == 32


@pytest.mark.parametrize("path", ["/etc/munge/munge.key", "/etc/flux/system/curve.cert"])
def test_no_secret_was_baked(host: Host, path: str) -> None:
    assert not host.file(path).exists
