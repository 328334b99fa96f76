# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst's network is made in order, mended where it was changed, and left alone where it is not ours."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_network
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

STAGES = _gce_network.desired("my-project", "b", "10.10.0.0/24")
API = "https://www.googleapis.com/compute/v1/"


def existing() -> dict[_gce_network.Key, dict[str, Any]]:
    """The network as Compute Engine returns it: full URLs, and fields that we did not set."""
    found = {key: copy.deepcopy(body) for stage in STAGES for key, body in stage.items()}
    for body in found.values():
        body["id"] = "1"
        if "network" in body:
            body["network"] = API + body["network"]
    for nat in found["router", "b-router"]["nats"]:
        nat["enableEndpointIndependentMapping"] = False
    for name in ("b-allow-iap-ssh", "b-allow-internal"):
        del found["firewall", name]["disabled"]
    return found


def planned(actual: dict[_gce_network.Key, dict[str, Any]]) -> list[list[tuple[str, str]]]:
    return [
        [(c.action, c.name) for c in stage] for stage in _gce_network.plan_present(STAGES, actual)
    ]


def test_everything_is_created_after_the_network() -> None:
    assert planned({}) == [
        [("create", "b-net")],
        [
            ("create", "b-subnet"),
            ("create", "b-router"),
            ("create", "b-allow-iap-ssh"),
            ("create", "b-allow-internal"),
        ],
    ]


def test_what_is_there_is_left_alone() -> None:
    assert planned(existing()) == [[], []]


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        (("firewall", "b-allow-iap-ssh"), {"sourceRanges": ["0.0.0.0/0"]}),
        (("firewall", "b-allow-iap-ssh"), {"disabled": True}),
        (("firewall", "b-allow-internal"), {"allowed": [{"IPProtocol": "tcp"}]}),
        (("firewall", "b-allow-internal"), {"priority": 65000}),
        (("router", "b-router"), {"nats": []}),
    ],
)
def test_what_was_changed_by_hand_is_the_only_change(
    key: _gce_network.Key, changed: dict[str, Any]
) -> None:
    actual = existing()
    actual[key].update(changed)
    assert planned(actual) == [[], [("update", key[1])]]


def test_a_missing_part_alone_is_created() -> None:
    actual = existing()
    del actual["router", "b-router"]
    assert planned(actual) == [[], [("create", "b-router")]]


def test_what_somebody_else_made_is_an_error_by_name() -> None:
    actual = existing()
    actual["network", "b-net"]["description"] = "mine"
    with pytest.raises(GceError, match=r"network b-net: wanted none or one of this burst"):
        planned(actual)


def test_another_range_cannot_be_changed_in_place() -> None:
    actual = existing()
    actual["subnetwork", "b-subnet"]["ipCidrRange"] = "10.99.0.0/24"
    with pytest.raises(
        GceError, match=r"subnetwork b-subnet: wanted ipCidrRange 10.10.0.0/24, found 10.99"
    ):
        planned(actual)


def test_deletion_goes_from_what_uses_to_what_is_used() -> None:
    stages = _gce_network.plan_absent("b", existing())
    names = [sorted(change.name for change in stage) for stage in stages]
    assert names == [["b-allow-iap-ssh", "b-allow-internal", "b-router"], ["b-subnet"], ["b-net"]]


def test_what_somebody_else_made_is_not_deleted() -> None:
    actual = existing()
    actual["network", "b-net"]["description"] = "mine"
    stages = _gce_network.plan_absent("b", actual)
    assert stages[2] == []


def test_ssh_is_open_to_the_proxy_s_range_alone() -> None:
    ssh = STAGES[1]["firewall", "b-allow-iap-ssh"]
    assert ssh["sourceRanges"] == ["35.235.240.0/20"]
    assert ssh["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
