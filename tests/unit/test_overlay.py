# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The array of hosts: the lead's with a burst's parents, and the machines' with the addresses of theirs."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._overlay import (
    declared,
    for_machines,
    names,
    parents,
    toml,
)
from hypothesis import given
from hypothesis import strategies as st

Rows = list[dict[str, Any]]

LEAD = {"host": "lead", "bind": "tcp://eth0:8050", "connect": "tcp://10.77.0.10:8050"}
HOSTS = [f"b-{number}" for number in range(1, 9)]
FLAT: Rows = [LEAD, {"host": "worker"}, {"host": "b-[1-8]"}]
TREE: Rows = [LEAD, {"host": "worker"}, {"host": "b-1"}, {"host": "b-[2-8]", "parent": "b-1"}]
FORMS: list[Rows] = [
    FLAT,
    TREE,
    [LEAD, {"host": "worker,b-[1-8]"}],
    [LEAD, {"host": "worker"}, {"host": "b-[5-8,1-4]"}],
    [LEAD, {"host": "worker"}, {"host": "b-[1-3]", "bind": "tcp://eth0:9"}, {"host": "b-[4-8]"}],
]


@pytest.mark.parametrize("hosts", FORMS)
@pytest.mark.parametrize("gateway", ["", "b-1", "b-3"])
def test_a_lead_that_declares_it_has_the_tree_that_was_asked_for_and_keeps_its_ranks(
    hosts: Rows, gateway: str
) -> None:
    made = declared(hosts, HOSTS, gateway)
    assert names(made) == names(hosts)
    wanted = {host: "" if host == gateway else gateway for host in HOSTS}
    assert parents(made) == {"lead": "", "worker": "", **wanted}
    assert made[0] == LEAD
    assert declared(made, HOSTS, gateway) == made


def test_a_tree_is_folded_again_and_the_way_back_is_the_same() -> None:
    assert declared(FLAT, HOSTS, "b-1") == TREE
    assert parents(declared(TREE, HOSTS, "")) == parents(FLAT)


def test_what_else_an_entry_says_stays_with_its_hosts() -> None:
    made = declared(FORMS[-1], HOSTS, "b-1")
    assert made[2:] == [
        {"host": "b-1", "bind": "tcp://eth0:9"},
        {"host": "b-[2-3]", "bind": "tcp://eth0:9", "parent": "b-1"},
        {"host": "b-[4-8]", "parent": "b-1"},
    ]


def test_a_parent_that_is_the_lead_is_none() -> None:
    assert parents([LEAD, {"host": "b-[1-2]", "parent": "lead"}])["b-2"] == ""


def test_machines_that_the_lead_does_not_have_come_last() -> None:
    assert declared([LEAD], HOSTS, "b-1") == [LEAD, TREE[2], TREE[3]]


@given(st.permutations(HOSTS))
def test_an_order_that_no_hostlist_keeps_is_kept(order: list[str]) -> None:
    assert names(declared([LEAD, {"host": ",".join(order)}], HOSTS, "b-1")) == ["lead", *order]


@pytest.mark.parametrize("hosts", [TREE, declared(FORMS[2], HOSTS, "b-1")])
def test_the_machines_reach_the_gateway_at_its_own_address_and_only_it_needs_the_lead_s(
    hosts: Rows,
) -> None:
    made = for_machines(hosts, ("203.0.113.10", 30093), "b-1", "10.10.0.6", 8051)
    here = "tcp://10.10.0.6:8051"
    assert made[0] == {**LEAD, "connect": "tcp://203.0.113.10:30093"}
    assert made[1:] == [TREE[1], {"host": "b-1", "bind": here, "connect": here}, TREE[3]]
    assert hosts[0] == LEAD, "what was given is not changed"


def test_without_a_gateway_only_the_lead_s_address_differs() -> None:
    made = for_machines(FLAT, ("lead.example.org", 8050))
    assert made == [{**LEAD, "connect": "tcp://lead.example.org:8050"}, *FLAT[1:]]


def test_the_text_to_paste_is_toml() -> None:
    assert tomllib.loads(f"hosts = {toml(TREE)}")["hosts"] == TREE
    assert "\n" not in toml(TREE)
