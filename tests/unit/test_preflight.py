# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would keep a burst from joining is told before anything is made, each with both values."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._overlay import parents
from ansible_collections.flux.burst.plugins.module_utils._preflight import differences, toml

HOSTS = ["b-1", "b-2"]
NOW = 1_795_000_000.0
TYPES = [{"name": "n2-standard-4", "vcpus": 4, "cores": 2, "memory_mb": 16384, "gpus": 0}]


def identity(**changed: Any) -> dict[str, Any]:
    return {
        "version": "0.88.0",
        "security_version": "0.15.0",
        "munge": "",
        "uid": 1004,
        "time": NOW,
        "hosts": ["lead", "worker", "b-1", "b-2"],
        "bootstrap": {"hosts": [{"host": "lead", "bind": "tcp://eth0:8050"}]},
        **changed,
    }


def ranks(**changed: Any) -> list[dict[str, Any]]:
    names = ["lead", "worker", "b-1", "b-2"]
    return [
        {"rank": number, "host": host, "cores": 2, "gpus": 0, **changed}
        for number, host in enumerate(names)
    ]


def test_a_good_setup_has_no_difference() -> None:
    assert differences(HOSTS, identity(), ranks(), TYPES, NOW + 30) == []
    assert differences(HOSTS, identity(), ranks(cores=64), [], NOW) == []


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"version": "0.79.0"}, "version: wanted Flux 0.82 or newer on the lead, found 0.79.0"),
        ({"security_version": ""}, "flux-security: wanted it on the lead, found Flux built"),
        ({"munge": "unmunge: Error: x"}, "munge: .*found 'unmunge: Error: x'"),
        ({"uid": 0}, "owner: .*found root"),
        ({"time": NOW - 600}, "clock: .*found it 600 s behind it"),
        ({"time": NOW + 300}, "clock: .*found it 300 s ahead of it"),
        ({"bootstrap": {"hosts": [{"host": "lead"}]}}, "bind: .*found neither"),
        (
            {"hosts": ["lead", "worker", "b-1"]},
            "hosts: wanted b-2 in .*found it not there: declare",
        ),
        (
            {"hosts": ["lead", "worker", "B-1", "b-2.example.org"]},
            r"hosts: wanted b-\[1-2\] .*it has B-1,b-2.example.org: names must be exactly the same",
        ),
        ({"hosts": ["lead", "b-1", "worker", "b-2"]}, "rank: wanted b-1 to have rank 1, .*rank 2"),
    ],
)
def test_a_difference_of_the_lead_is_one_line(changed: dict[str, Any], wanted: str) -> None:
    found = differences(HOSTS, identity(**changed), ranks(), TYPES, NOW)
    assert len(found) == 1
    assert re.match(wanted, found[0]), found[0]


def test_a_host_that_r_does_not_have_is_named() -> None:
    (found,) = differences(HOSTS, identity(), ranks()[:3], TYPES, NOW)
    assert found.startswith("R: wanted b-2 in the lead's R, found it in [bootstrap] hosts only")


def test_a_machine_with_fewer_cores_than_r_is_refused_and_threads_are_explained() -> None:
    (found,) = differences(HOSTS, identity(), ranks(cores=4), TYPES, NOW)
    assert found.startswith(
        "machine type: wanted 4 cores and 0 GPUs, which the lead's R declares for b-[1-2], found "
        "n2-standard-4 with 2 cores (4 vCPUs): "
    )


def test_one_machine_type_of_several_that_is_large_enough_suffices() -> None:
    larger = {"name": "n2-standard-8", "vcpus": 8, "cores": 4, "memory_mb": 32768, "gpus": 0}
    assert differences(HOSTS, identity(), ranks(cores=4), [*TYPES, larger], NOW) == []


FLAT = [{"host": "lead", "bind": "tcp://eth0:8050"}, {"host": "worker"}, {"host": "b-[1-2]"}]
TREE = [*FLAT[:2], {"host": "b-1"}, {"host": "b-2", "parent": "b-1"}]


@pytest.mark.parametrize(
    ("hosts", "gateway", "found", "needed"),
    [
        (FLAT, "b-1", "wanted parent b-1 for b-2 .* gateway.*, found none", TREE),
        (TREE, "", "wanted no parent but the lead for b-2 .* flat.*, found b-1", FLAT),
        (TREE, "b-2", r"wanted parent b-2 for b-\[1-2\] .*found b-1, none: ", None),
    ],
)
def test_a_lead_with_another_tree_is_one_line_with_the_array_that_it_needs(
    hosts: list[dict[str, Any]], gateway: str, found: str, needed: list[dict[str, Any]] | None
) -> None:
    has = identity(bootstrap={"hosts": hosts})
    told = differences(HOSTS, has, ranks(), TYPES, NOW, gateway)
    (line,) = [line for line in told if "flat" in line]
    assert re.match(f"topology: {found}", line), line
    array = re.search(r"restart the lead with (hosts = \[.*\]) \(playbooks/lead.yml ", line)
    assert array
    pasted = tomllib.loads(array[1])["hosts"]
    assert needed is None or parents(pasted) == parents(needed)
    good = identity(bootstrap={"hosts": pasted})
    assert differences(HOSTS, good, ranks(), TYPES, NOW, gateway) == []


def test_a_gateway_that_is_drained_is_told_before_others_are_booted_below_it() -> None:
    has = identity(bootstrap={"hosts": TREE})
    drained = ranks(drain_reason="bad memory")
    (line,) = differences(HOSTS, has, drained, TYPES, NOW, "b-1")
    assert line.startswith("gateway: wanted b-1, ") and "'bad memory'" in line
    ours = ranks(drain_reason="flux.burst preempted", state="down")
    assert differences(HOSTS, has, ours, TYPES, NOW, "b-1") == []


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = differences(HOSTS, identity(munge="x", uid=0), ranks(cores=4), TYPES, NOW)
    assert [line.partition(":")[0] for line in found] == ["munge", "owner", "machine type"]


def test_what_the_lead_lacks_is_told_as_toml_with_the_cores_of_the_smallest_machine_type() -> None:
    config = {
        "bootstrap": {"hosts": [{"host": "lead,worker"}]},
        "resource": {"config": [{"hosts": "lead,worker", "cores": "0-1"}]},
    }
    larger = {"name": "n2-standard-8", "vcpus": 8, "cores": 4, "memory_mb": 32768, "gpus": 0}
    given = identity(hosts=["lead", "worker"], config=config)
    said = toml(HOSTS, given, ranks()[:2], [larger, *TYPES])
    assert '{ host = "b-[1-2]" },\n' in said
    assert said.endswith(
        '[[resource.config]]\nhosts = "b-[1-2]"\ncores = "0-1"\nproperties = ["burst"]'
    )
    assert toml(HOSTS, identity(), ranks(), TYPES) == ""
    assert toml(HOSTS, given, ranks()[:2], []) == ""


def test_why_there_is_no_toml_to_add_is_told() -> None:
    config = {"bootstrap": {"hosts": [{"host": "lead"}]}, "resource": {"path": "/etc/R"}}
    said = toml(HOSTS, identity(hosts=["lead"], config=config), ranks()[:1], TYPES)
    assert said.startswith("# wanted b-[1-2] in /etc/R, which is the lead's R")
