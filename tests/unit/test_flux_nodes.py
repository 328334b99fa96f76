# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that are missing only because their parent in the overlay is are told with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_nodes, _flux_resource
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand

HOSTS = ["lead", "worker", "b-1", "b-2", "b-3"]
TREE = [
    {"host": "lead"},
    {"host": "worker", "parent": "lead"},
    {"host": "b-1"},
    {"host": "b-[2-3]", "parent": "b-1"},
]
LEAD, WORKER, GATEWAY = 0, 1, 2


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> _flux_nodes.Tree:
    """The tree of a lead, without Flux's own reader of hostlists."""

    def hosts(texts: Iterable[str]) -> list[str]:
        return [name for text in texts for name in expand(text)]

    monkeypatch.setattr(_flux, "hosts", hosts)
    return _flux_nodes.Tree({"hosts": TREE})


def ranks(*hosts: str) -> list[_flux_resource.Rank]:
    return [_flux_resource.Rank(HOSTS.index(host), host, "down", 2, 0) for host in hosts]


def test_a_parent_that_is_the_lead_is_none(tree: _flux_nodes.Tree) -> None:
    assert tree.parents == {"b-2": "b-1", "b-3": "b-1"}
    assert tree.ranks == {host: rank for rank, host in enumerate(HOSTS)}


@pytest.mark.parametrize(
    ("online", "reports", "below"),
    [
        ({LEAD, WORKER}, {}, {"b-1": ["b-2", "b-3"]}),
        ({LEAD, WORKER, GATEWAY}, {}, {}),
        ({LEAD, WORKER}, {"b-2": {"status": "Joining"}}, {"b-1": ["b-2", "b-3"]}),
        ({LEAD, WORKER}, {"b-2": {"failure": "stage base: a: b"}}, {"b-1": ["b-3"]}),
    ],
)
def test_who_is_missing_for_no_reason_of_its_own_is_below_its_parent(
    tree: _flux_nodes.Tree, online: set[int], reports: dict[str, Any], below: dict[str, list[str]]
) -> None:
    assert tree.below(ranks("b-2", "b-3"), online, reports) == below
    assert not tree.lost("b-1", online)
    assert tree.lost("b-2", online) == (GATEWAY not in online)


def test_a_lead_without_hosts_has_no_tree() -> None:
    assert not _flux_nodes.Tree({}).lost("b-2", set())
