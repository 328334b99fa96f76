# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine costs for an hour, by Google's list prices in US dollars, without discounts, disks and traffic.

Google's own list is https://cloud.google.com/compute/vm-instance-pricing. A script fills its tables in, so the numbers
were taken on DATE from public copies of it, which agree where both have a type:

- per vCPU, GiB and GPU: kubernetes/autoscaler, cluster-autoscaler/cloudprovider/gce/gce_price_info.go at 0411d1c8;
  h3 from a later list of the same origin;
- regions and spot prices: skypilot-org/skypilot-catalog, catalogs/v8/gcp/vms.csv at 8427bbff, which comes from Google's
  billing catalogue; the GPUs of a2 and g2 are what a machine's price leaves after vCPUs and memory.

Exact in LIST_REGIONS. Elsewhere one factor a region stands for all families (within 1 % for a2, e2, n1 and n2).
Spot prices change as often as every month; where none is known, the price on demand is the upper bound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError

DATE = "2026-11-25"
LIST_REGIONS = ("us-central1", "us-east1", "us-west1")


@dataclass(frozen=True)
class Family:
    """Price of an hour of a vCPU and of a GiB of memory, and the share of it that a spot machine costs."""

    vcpu: float
    gib: float
    spot: float | None = None


FAMILIES = {
    "a2": Family(0.031611, 0.004237, 0.5),
    "c2": Family(0.03398, 0.00455),
    "c2d": Family(0.029563, 0.003959),
    "c3": Family(0.03398, 0.00456),
    "c3d": Family(0.02956, 0.003956),
    "e2": Family(0.02181159, 0.00292353, 0.4617),
    "g2": Family(0.024988, 0.002927),
    "h3": Family(0.04411, 0.00296),
    "h4d": Family(0.03224, 0.00231),
    "n1": Family(0.031611, 0.004237, 0.3085),
    "n2": Family(0.031611, 0.004237, 0.3114),
    "n2d": Family(0.027502, 0.003686),
    "t2d": Family(0.027502, 0.003686),
}
SHARED = {"e2-micro": 0.25, "e2-small": 0.5, "e2-medium": 1.0}
"""Machine types that pay for a part of their vCPUs: how much of one."""
GPUS = {
    "nvidia-a100-80gb": 3.969178,
    "nvidia-l4": 0.56004,
    "nvidia-tesla-a100": 2.933908,
    "nvidia-tesla-p100": 1.46,
    "nvidia-tesla-p4": 0.60,
    "nvidia-tesla-t4": 0.35,
    "nvidia-tesla-v100": 2.48,
}
# GiB a vCPU by the class in a machine type's name, and where a family differs.
MEMORY: Mapping[str, float] = {"standard": 4, "highmem": 8, "highcpu": 1}
OTHER_MEMORY: Mapping[str, Mapping[str, float]] = {
    "c2d": {"highcpu": 2},
    "c3": {"highcpu": 2},
    "c3d": {"highcpu": 2},
    "h4d": {"standard": 3.75, "highmem": 7.75},
    "n1": {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9},
}
WHOLE_MEMORY = {"n2-highmem-128": 864, "e2-micro": 1, "e2-small": 2, "e2-medium": 4}
"""GiB of the types that follow no rule."""
A2 = {
    "highgpu": (12, 85, "nvidia-tesla-a100"),
    "megagpu": (6, 85, "nvidia-tesla-a100"),
    "ultragpu": (12, 170, "nvidia-a100-80gb"),
}
"""vCPUs and GiB beside each GPU, and the GPU."""
L4S = {4: 1, 8: 1, 12: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}
CUSTOM = 1.0494
"""What a custom machine costs more than a predefined one of its size."""

REGIONS = {
    **dict.fromkeys(LIST_REGIONS, 1.0),
    "africa-south1": 1.1,
    "asia-east1": 1.158,
    "asia-east2": 1.399,
    "asia-northeast1": 1.283,
    "asia-northeast2": 1.284,
    "asia-northeast3": 1.284,
    "asia-south1": 1.201,
    "asia-south2": 1.201,
    "asia-southeast1": 1.234,
    "asia-southeast2": 1.345,
    "australia-southeast1": 1.419,
    "australia-southeast2": 1.206,
    "europe-central2": 1.21,
    "europe-north1": 1.101,
    "europe-north2": 1.05,
    "europe-southwest1": 1.18,
    "europe-west1": 1.1,
    "europe-west10": 1.288,
    "europe-west12": 1.29,
    "europe-west2": 1.288,
    "europe-west3": 1.288,
    "europe-west4": 1.101,
    "europe-west6": 1.31,
    "europe-west8": 1.16,
    "europe-west9": 1.16,
    "me-central1": 1.215,
    "me-central2": 1.6,
    "me-west1": 1.1,
    "northamerica-northeast1": 1.101,
    "northamerica-northeast2": 1.101,
    "northamerica-south1": 1.09,
    "southamerica-east1": 1.587,
    "southamerica-west1": 1.43,
    "us-east4": 1.126,
    "us-east5": 1.0,
    "us-south1": 1.18,
    "us-west2": 1.201,
    "us-west3": 1.201,
    "us-west4": 1.126,
}
"""What a region costs, by us-central1's prices."""


@dataclass(frozen=True)
class Shape:
    """What of a machine type is paid for. gpus are counts by model."""

    vcpus: float
    gib: float
    gpus: Mapping[str, int]
    factor: float = 1.0


@dataclass(frozen=True)
class Price:
    """Price of an hour. basis: configured, list (exact), estimate, or upper bound (the spot price is lower)."""

    per_hour: float
    basis: str


def configured_prices(given: Mapping[str, Any]) -> dict[str, float]:
    """Return prices by machine type as numbers. Raises SpecError."""
    try:
        prices = {name: float(each) for name, each in given.items()}
    except (TypeError, ValueError):
        prices = {"": -1.0}
    if min(prices.values(), default=0.0) < 0:
        raise SpecError(
            f"prices: wanted the price of an hour by machine type, found {dict(given)}."
        )
    return prices


def shape(machine_type: str) -> Shape | None:
    """Return what is paid for, from the name alone; None for a type that is not in this file."""
    family, _unused, rest = machine_type.partition("-")
    if machine_type in SHARED:
        return Shape(SHARED[machine_type], WHOLE_MEMORY[machine_type], {})
    custom = re.fullmatch(r"(?:\w+-)?custom-(\d+)-(\d+)", machine_type)
    if custom:
        return Shape(int(custom[1]), int(custom[2]) / 1024, {}, CUSTOM)
    words = re.fullmatch(r"(\w+)-(\d+)(g?)", rest)
    if not words:
        return None
    kind, count = words[1], int(words[2])
    if family == "a2" and kind in A2:
        vcpus, gib, gpu = A2[kind]
        return Shape(vcpus * count, gib * count, {gpu: count})
    each = {**MEMORY, **OTHER_MEMORY.get(family, {})}.get(kind)
    if each is None:
        return None
    gpus = {"nvidia-l4": L4S.get(count, 0)} if family == "g2" else {}
    return Shape(count, WHOLE_MEMORY.get(machine_type, each * count), gpus)


def price(
    machine_type: str,
    region: str,
    *,
    spot: bool = False,
    accelerators: Mapping[str, int] | None = None,
    configured: Mapping[str, float] | None = None,
) -> Price | None:
    """Return what an hour of a machine costs, None where that is not known.

    accelerators are counts of GPUs that were added to it, by model; configured are prices by machine type, which win.
    """
    if configured and machine_type in configured:
        return Price(configured[machine_type], "configured")
    family = FAMILIES.get(machine_type.partition("-")[0].replace("custom", "n1"))
    size, factor = shape(machine_type), REGIONS.get(region)
    gpus = {**(size.gpus if size else {}), **(accelerators or {})}
    if family is None or size is None or factor is None or not gpus.keys() <= GPUS.keys():
        return None
    whole = (size.vcpus * family.vcpu + size.gib * family.gib) * size.factor
    whole = (whole + sum(GPUS[model] * count for model, count in gpus.items())) * factor
    exact = region in LIST_REGIONS and size.factor == 1.0
    if not spot:
        return Price(round(whole, 6), "list" if exact else "estimate")
    if family.spot is None or region not in LIST_REGIONS or gpus:
        return Price(round(whole, 6), "upper bound")
    return Price(round(whole * family.spot, 6), "estimate")
