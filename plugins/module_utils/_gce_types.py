# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machine types in the terms of Flux. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._prices import price

FIELDS = "name,guestCpus,memoryMb,accelerators(guestAcceleratorType,guestAcceleratorCount)"
# Families of which a vCPU is a whole core, see cloud.google.com/compute/docs/cpu-platforms.
WHOLE_CORES = ("t2d", "t2a", "c4a", "n4a", "h3", "h4d")
# Families with Arm's processors, see the same page.
ARM = ("t2a", "c4a", "n4a")


def architecture(name: str) -> str:
    """Return the architecture of a machine type, as an image tells its own."""
    return "ARM64" if name.partition("-")[0] in ARM else "X86_64"


def machine_type(
    found: Mapping[str, Any], prices: Mapping[str, float], in_region: str
) -> dict[str, Any]:
    """Return a machine type as our modules do, from its REST resource."""
    name, vcpus = found["name"], found["guestCpus"]
    whole = name.partition("-")[0] in WHOLE_CORES
    cost = price(name, in_region, configured=prices)
    return {
        "name": name,
        "vcpus": vcpus,
        "cores": vcpus if whole else max(vcpus // 2, 1),
        "memory_mb": found["memoryMb"],
        "gpus": sum(each["guestAcceleratorCount"] for each in found.get("accelerators", [])),
        "price_per_hour": cost.per_hour if cost else None,
        "price_basis": cost.basis if cost else "unknown",
    }
