# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine's price follows from its name as Google publishes it, and what is not known is not made up."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._prices import (
    FAMILIES,
    LIST_REGIONS,
    REGIONS,
    Price,
    configured_prices,
    price,
)

HOME = "us-central1"
# Prices of whole machines, as the same public copies of Google's list have them.
PUBLISHED = {
    "a2-highgpu-1g": 3.673385,
    "a2-megagpu-16g": 55.739504,
    "a2-ultragpu-8g": 40.5504,
    "c2-standard-60": 3.1321,
    "c2d-highcpu-112": 4.1979,
    "c2d-standard-32": 1.4528,
    "c3-highcpu-88": 3.7928,
    "c3-standard-176": 9.19072,
    "e2-medium": 0.03351,
    "e2-standard-4": 0.13402,
    "g2-standard-4": 0.7068,
    "h3-standard-88": 4.9236,
    "n1-highcpu-32": 1.13358,
    "n2-highmem-128": 7.7069,
    "n2-standard-4": 0.194236,
    "n2d-standard-224": 9.4632,
    "t2d-standard-60": 2.5348,
}


@pytest.mark.parametrize(("machine_type", "published"), PUBLISHED.items())
def test_a_machine_costs_what_google_publishes(machine_type: str, published: float) -> None:
    found = price(machine_type, HOME)
    assert found is not None
    assert found.per_hour == pytest.approx(published, rel=5e-4)
    assert found.basis == "list"


@pytest.mark.parametrize(
    ("machine_type", "region", "spot", "published"),
    [
        ("n2-standard-16", "us-west1", True, 0.24195),
        ("e2-standard-32", "us-east1", True, 0.49504),
        ("n1-highcpu-32", HOME, True, 0.34974),
        ("n2-standard-16", "europe-west3", False, 1.00099),
        ("e2-standard-32", "asia-east1", False, 1.24147),
        ("n1-highcpu-16", "us-west2", False, 0.6808),
    ],
)
def test_other_regions_and_spot_are_estimated_within_a_percent(
    machine_type: str, region: str, spot: bool, published: float
) -> None:
    found = price(machine_type, region, spot=spot)
    assert found is not None
    assert found.per_hour == pytest.approx(published, rel=0.01)
    assert found.basis == "estimate"


@pytest.mark.parametrize(
    ("machine_type", "region"),
    [("c3-standard-4", HOME), ("n2-standard-4", "europe-west4"), ("a2-highgpu-1g", HOME)],
)
def test_a_spot_price_that_is_not_known_is_bounded_by_the_price_on_demand(
    machine_type: str, region: str
) -> None:
    whole, spot = price(machine_type, region), price(machine_type, region, spot=True)
    assert whole is not None
    assert spot == Price(whole.per_hour, "upper bound")


def test_gpus_that_were_added_are_paid_for() -> None:
    bare = price("n1-standard-8", HOME)
    found = price("n1-standard-8", HOME, accelerators={"nvidia-tesla-t4": 2})
    assert bare is not None
    assert found == Price(round(bare.per_hour + 0.7, 6), "list")
    assert price("n1-standard-8", HOME, accelerators={"nvidia-new": 1}) is None


def test_a_custom_machine_costs_about_five_percent_more() -> None:
    whole, custom = price("n2-standard-8", HOME), price("n2-custom-8-32768", HOME)
    assert whole is not None
    assert custom is not None
    assert custom.per_hour == pytest.approx(whole.per_hour * 1.05, rel=1e-3)
    assert custom.basis == "estimate"
    assert price("custom-4-15360", HOME) is not None


@pytest.mark.parametrize(
    ("machine_type", "region"),
    [
        ("m1-ultramem-40", HOME),
        ("n2-standard", HOME),
        ("n2-odd-4", HOME),
        ("n2-standard-4", "moon1"),
    ],
)
def test_what_is_not_in_the_list_has_no_price(machine_type: str, region: str) -> None:
    assert price(machine_type, region) is None


def test_a_configured_price_wins() -> None:
    assert price("n2-standard-4", HOME, configured={"n2-standard-4": 1.0}) == Price(
        1.0, "configured"
    )
    assert price("own-type", "moon1", configured={"own-type": 2.5}) == Price(2.5, "configured")


@pytest.mark.parametrize("given", [{"a": "cheap"}, {"a": None}, {"a": -1}])
def test_a_configured_price_that_is_none_is_told(given: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"^prices: wanted the price of an hour by machine type"):
        configured_prices(given)


def test_configured_prices_may_come_as_text() -> None:
    assert configured_prices({"a": "0.5", "b": 1}) == {"a": 0.5, "b": 1.0}
    assert configured_prices({}) == {}


def test_the_numbers_are_plausible() -> None:
    assert all(0 < it.gib < it.vcpu < 1 and 0 < (it.spot or 0.5) < 1 for it in FAMILIES.values())
    assert all(1 <= factor < 2 for factor in REGIONS.values())
    assert {REGIONS[region] for region in LIST_REGIONS} == {1.0}
