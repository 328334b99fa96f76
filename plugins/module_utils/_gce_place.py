# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where machines can be made: zones and machine types in order of preference, quotas, and what to do about a refusal.

Nothing here asks anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

# Codes of errors that another zone or machine type may not have; the others end the attempts.
ELSEWHERE = (
    "RESOURCE_POOL_EXHAUSTED",
    "STOCKOUT",
    "QUOTA",
    "MIN_COUNT_NOT_REACHED",
    "UNSUPPORTED_OPERATION",
    "RESOURCE_NOT_FOUND",
)
NO_TYPE, NO_QUOTA = "NO_SUCH_MACHINE_TYPE", "QUOTA_TOO_SMALL"
# Families whose vCPUs count against CPUS where the region names no quota of their own.
ON_CPUS = ("e2", "n1", "f1", "g1")


@dataclass(frozen=True)
class Place:
    """A machine type in a zone. `has_gpus` is whether machines there have any, their type's own or added ones."""

    machine_type: str
    zone: str
    has_gpus: bool = False


@dataclass(frozen=True)
class Attempt:
    """A place that did not do: the raw error codes, and what was said."""

    zone: str
    machine_type: str
    codes: list[str] = field(default_factory=list)
    error: str = ""

    def __str__(self) -> str:
        """Return it as a part of a line."""
        said = f"{', '.join(self.codes)} ({self.error})" if self.error else ", ".join(self.codes)
        return f"{self.machine_type} in {self.zone}: {said}"


def may_be_elsewhere(codes: Iterable[str]) -> bool:
    """Return whether an error with these codes may not occur in another zone or with another machine type."""
    return any(part in code.upper() for code in codes for part in ELSEWHERE)


def needs(
    machine_type: Mapping[str, Any], count: int, params: Mapping[str, Any], metrics: Iterable[str]
) -> dict[str, int]:
    """Return what so many machines take of each quota, by metric.

    machine_type is its REST resource, params has accelerator_type, accelerator_count, spot and disk_size_gb, and
    metrics are the ones that the region has. What no metric of these counts is left out.
    """
    known = set(metrics)
    family = str(machine_type["name"]).partition("-")[0]
    own = f"{family.upper()}_CPUS"
    cpus = own if own in known else "CPUS" if family in ON_CPUS else ""
    if params["spot"] and "PREEMPTIBLE_CPUS" in known:
        cpus = "PREEMPTIBLE_CPUS"
    found = {"INSTANCES": count}
    found[cpus] = found["CPUS_ALL_REGIONS"] = machine_type["guestCpus"] * count
    for kind, each in gpus(machine_type, params):
        plain = f"{kind.replace('-tesla', '').replace('-', '_').upper()}_GPUS"
        spot = f"PREEMPTIBLE_{plain}"
        metric = spot if params["spot"] and spot in known else plain
        found[metric] = found.get(metric, 0) + each * count
        found["GPUS_ALL_REGIONS"] = found.get("GPUS_ALL_REGIONS", 0) + each * count
    return {metric: amount for metric, amount in found.items() if metric in known}


def gpus(machine_type: Mapping[str, Any], params: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return type and number of the GPUs of one machine: its type's own, and those that are added."""
    own = [
        (row.get("guestAcceleratorType", ""), row["guestAcceleratorCount"])
        for row in machine_type.get("accelerators", ())
    ]
    added = params["accelerator_count"] if params["accelerator_type"] else 0
    return [*own, (params["accelerator_type"], added)] if added else own


def shortages(
    needed: Mapping[str, int], quotas: Sequence[Mapping[str, Any]], where: str
) -> list[str]:
    """Return a line for each quota that does not suffice."""
    told = []
    for quota in quotas:
        metric, left = quota["metric"], quota["limit"] - quota["usage"]
        if left < needed.get(metric, 0):
            found = f"{max(left, 0):g} left of {quota['limit']:g}"
            told.append(f"wanted {needed[metric]} {metric} in {where}, found {found}")
    return told


def places(
    params: Mapping[str, Any],
    count: int,
    types: Mapping[str, Mapping[str, Mapping[str, Any]]],
    quotas: Mapping[str, Sequence[Mapping[str, Any]]],
) -> tuple[list[Place], list[Attempt]]:
    """Return where so many machines may be made, in the order in which to try, and where they cannot be.

    types are the REST resources of the machine types by zone and name, quotas those of the project by "" and of the
    region by its name. A machine type is tried in every zone before the next is.
    """
    good, bad = [], []
    for name in params["machine_types"]:
        for zone in params["zones"]:
            found = types[zone].get(name)
            if found is None:
                bad.append(Attempt(zone, name, [NO_TYPE], "the zone has no such machine type"))
                continue
            short = []
            for where, rows in quotas.items():
                needed = needs(found, count, params, [row["metric"] for row in rows])
                short += shortages(needed, rows, where or "all regions")
            if short:
                bad.append(Attempt(zone, name, [NO_QUOTA], "; ".join(short)))
            else:
                good.append(Place(name, zone, bool(gpus(found, params))))
    return good, bad


def beside(found: Sequence[Place], zones: Iterable[str]) -> list[Place]:
    """Return the places with those in these zones first: a machine that is missing belongs beside the others."""
    near = set(zones)
    return sorted(found, key=lambda place: place.zone not in near)


def nowhere(hosts: Sequence[str], attempts: Sequence[Attempt], project: str) -> str:
    """Return the failure of all attempts as one line, with each of them."""
    told = "; ".join(map(str, attempts))
    advice = ["add zones to burst_zones or machine types to burst_machine_types"]
    if any("QUOTA" in code for attempt in attempts for code in attempt.codes):
        advice.append(
            f"ask for more quota at https://console.cloud.google.com/iam-admin/quotas?project={project}"
        )
    return (
        f"wanted {len(hosts)} machine{'s' if len(hosts) > 1 else ''}, found no place that has them ({told}): "
        f"{', or '.join(advice)}."
    )


def shown(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    """Return attempts as a module returns them."""
    return [asdict(attempt) for attempt in attempts]
