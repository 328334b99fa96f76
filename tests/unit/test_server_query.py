# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list parameters of the emulated Compute Engine: filter, orderBy, pages, fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.server.errors import ApiError
from sandbox.server.query import compile_filter, order, page, parse_fields, select

INSTANCE: dict[str, Any] = {
    "name": "gffw-compute-a-001",
    "id": "1234",
    "status": "RUNNING",
    "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a",
    "labels": {"flux-burst": "one", "team": "hpc"},
    "canIpForward": False,
    "creationTimestamp": "2026-11-24T10:00:00.000+00:00",
    "networkInterfaces": [{"networkIP": "10.10.0.2"}],
    "guestCpus": 8,
}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "labels.flux-burst=one",
        "labels.flux-burst = one AND status=RUNNING",
        "(labels.flux-burst = one) (status = RUNNING)",
        "labels.flux-burst:*",
        "NOT labels.other:*",
        "-labels.other:*",
        "name=gffw-*",
        "name:compute",
        'name="gffw-compute-a-001"',
        "status != TERMINATED",
        "status=STOPPING OR status=RUNNING",
        "name eq gffw-.*",
        r'name eq ".*\bcompute\b.*"',
        r'(name eq "gffw\-compute\-a\-001") (status eq RUNNING)',
        "name ne other",
        "zone eq .*us-central1-a",
        "zone:us-central1-a",
        "canIpForward=false",
        "guestCpus>=8 AND guestCpus<9",
        "networkInterfaces.networkIP=10.10.0.2",
        "creationTimestamp>2026-01-01T00:00:00Z",
    ],
)
def test_a_filter_that_fits_takes_the_instance(text: str) -> None:
    assert compile_filter(text)(INSTANCE)


@pytest.mark.parametrize(
    "text",
    [
        "labels.flux-burst=on",
        "labels.flux-burst=one AND status=STOPPING",
        "labels.other:*",
        "NOT name=gffw-*",
        "name eq compute",
        "name ne gffw-.*",
        "status=STOPPING OR status=TERMINATED",
        "guestCpus>8",
        "name=a.*",
    ],
)
def test_a_filter_that_does_not_fit_leaves_it_out(text: str) -> None:
    assert not compile_filter(text)(INSTANCE)


@pytest.mark.parametrize(
    "text", ["name", "name=", "(name=a", "name=a)", "=a", "name eq *", "a b c"]
)
def test_a_filter_that_does_not_parse_is_googles_error(text: str) -> None:
    with pytest.raises(ApiError, match="Invalid list filter expression") as caught:
        compile_filter(text)
    assert (caught.value.code, caught.value.reason) == (400, "invalid")


@given(st.integers(0, 60), st.integers(1, 20))
def test_pages_put_together_are_what_the_filter_leaves(count: int, size: int) -> None:
    items, found, token = list(range(count)), [], ""
    while True:
        query = {"maxResults": str(size), "pageToken": token}
        part, token = page(items, query, lambda item: item % 3 > 0)
        assert len(part) <= size
        found += part
        if not token:
            break
    assert found == [item for item in items if item % 3]


@pytest.mark.parametrize("query", [{"maxResults": "501"}, {"maxResults": "x"}, {"pageToken": "?"}])
def test_a_bad_page_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ApiError):
        page([1], query, bool)


def test_orders_are_by_name_or_newest_first() -> None:
    old = {"name": "b", "creationTimestamp": "2026-01-01"}
    new = {"name": "c", "creationTimestamp": "2026-02-01"}
    assert order([new, old], "", lambda it: it) == [old, new]
    assert order([old, new], "creationTimestamp desc", lambda it: it) == [new, old]
    with pytest.raises(ApiError):
        order([old], "status", lambda it: it)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("name", {"name": "gffw-compute-a-001"}),
        ("name,status", {"name": "gffw-compute-a-001", "status": "RUNNING"}),
        ("labels/team", {"labels": {"team": "hpc"}}),
        ("labels(team),id", {"labels": {"team": "hpc"}, "id": "1234"}),
        ("networkInterfaces(networkIP)", {"networkInterfaces": [{"networkIP": "10.10.0.2"}]}),
        ("nothing", {}),
        ("labels/*", {"labels": {"flux-burst": "one", "team": "hpc"}}),
    ],
)
def test_fields_select_a_part(fields: str, expected: Any) -> None:
    assert select(INSTANCE, parse_fields(fields)) == expected


def test_fields_reach_through_aggregated_scopes() -> None:
    answer = {"items": {"zones/a": {"instances": [INSTANCE]}}, "kind": "k"}
    mask = parse_fields("items/*/instances(name),nextPageToken")
    expected = {"items": {"zones/a": {"instances": [{"name": "gffw-compute-a-001"}]}}}
    assert select(answer, mask) == expected


@pytest.mark.parametrize("fields", ["a(b", "a)", "a/", "(a)"])
def test_fields_that_do_not_parse_are_refused(fields: str) -> None:
    with pytest.raises(ApiError, match="Invalid field selection"):
        parse_fields(fields)
