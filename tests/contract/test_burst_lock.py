# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One controller at a time is at work on a burst, against a lead that runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.action.flux_burst_lock import is_dead, owner
from flux_instances import Instance
from flux_modules import module, result, start
from test_flux_modules import KINDS, begun

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="brokers need hostnames of their own: root"
)
ONE, TWO = "root@login1:4711", "root@login2:815"


@pytest.fixture(scope="module", params=KINDS)
def lead(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """A lead."""
    made = begun(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.close()


def lock(lead: Instance, who: str, **options: Any) -> dict[str, Any]:
    """What the module returns to a controller."""
    given = {"burst": "mine", "owner": who, **options}
    return module(lead, "flux_burst_lock", **given)


@pytest.fixture(autouse=True)
def _free(lead: Instance) -> Iterator[None]:
    yield
    for who in (ONE, TWO):
        lock(lead, who, state="free")


def test_a_second_controller_is_told_who_is_at_work_until_that_is_done(lead: Instance) -> None:
    assert lock(lead, ONE)["owner"] == ONE
    refused = lock(lead, TWO)
    assert refused["failed"] and refused["owner"] == ONE
    assert f"found {ONE}, until " in refused["msg"]
    assert f"set burst_take_over to {ONE}." in refused["msg"]
    assert lock(lead, ONE, duration=60)["owner"] == ONE, "its own is renewed"
    assert lock(lead, TWO, state="free")["owner"] == ONE, "another's is not freed"
    assert lock(lead, TWO, burst="other")["owner"] == TWO
    assert lock(lead, TWO, burst="other", state="free")["owner"] == ""
    assert lock(lead, ONE, state="free")["owner"] == ""
    assert lock(lead, TWO)["owner"] == TWO


def test_a_lock_is_taken_over_by_name_or_when_its_time_is_over(lead: Instance) -> None:
    lock(lead, ONE)
    assert "failed" in lock(lead, TWO, take_over="root@login3:1")
    assert lock(lead, TWO, take_over=ONE)["owner"] == TWO
    assert "failed" in lock(lead, ONE, take_over=ONE)
    lock(lead, TWO, duration=0)
    assert lock(lead, ONE)["owner"] == ONE


def test_in_check_mode_it_says_who_and_takes_nothing(lead: Instance) -> None:
    assert module(lead, "flux_burst_lock", check=True, burst="mine", owner=ONE)["owner"] == ""
    lock(lead, TWO)
    assert module(lead, "flux_burst_lock", check=True, burst="mine", owner=ONE)["owner"] == TWO


def test_of_controllers_that_begin_at_once_one_is_at_work(lead: Instance) -> None:
    owners = [f"root@login1:{number}" for number in range(4)]
    starts = [start(lead, "flux_burst_lock", burst="race", owner=who) for who in owners]
    found = [result(each) for each in starts]
    (won,) = [each["owner"] for each in found if "failed" not in each]
    assert {each["owner"] for each in found} == {won}
    assert lock(lead, won, burst="race", state="free")["owner"] == ""


def test_a_process_of_this_computer_is_known_to_be_dead() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 5
    while not is_dead(owner(child)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert is_dead(owner(child))
    assert not is_dead(owner(os.getpid()))
    assert not is_dead(f"root@not-{socket.gethostname()}:{child}")
    assert not is_dead("somebody")
