# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bursts have in Compute Engine, what it cost so far, and when it ends by itself. Nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._gce_network import description
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    LABEL,
    last_part,
    machine,
)
from ansible_collections.flux.burst.plugins.module_utils._prices import price
from ansible_collections.flux.burst.plugins.module_utils._spec import region

IMAGE_LABEL = "flux-burst-image"
"""An image outlives its burst, so that it has a label of its own."""
LABELLED = {"instances": LABEL, "disks": LABEL, "images": IMAGE_LABEL}
"""Kinds that say by a label whose they are."""
DESCRIBED = (
    "networks",
    "subnetworks",
    "routers",
    "firewalls",
    "addresses",
    "resourcePolicies",
)
"""Kinds that say so by their description."""
KINDS = (*LABELLED, *DESCRIBED)
REST = {"resource_policies": "resourcePolicies"}
"""Kinds that we return under another name."""
LISTS = (
    "instances",
    "disks",
    "images",
    "nat_ips",
    "networks",
    "subnetworks",
    "routers",
    "firewalls",
    "addresses",
    "resource_policies",
)
"""What of a burst is returned as lists."""
STOPPED = ("TERMINATED", "STOPPED", "SUSPENDED")
SHORTEST = 60.0
"""Compute Engine charges for a minute at least."""

Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""REST resources by kind, as in KINDS."""


def owner(kind: str, resource: Mapping[str, Any]) -> str:
    """Return the burst that a resource belongs to, or the foundation; "" where it is nobody's."""
    if kind in LABELLED:
        return str(resource.get("labels", {}).get(LABELLED[kind], ""))
    mark = description("")
    text = str(resource.get("description", ""))
    return text.removeprefix(mark) if text.startswith(mark) else ""


def grouped(
    found: Found,
    names: Mapping[str, str] | None,
    prices: Mapping[str, float],
    now: float,
) -> list[dict[str, Any]]:
    """Return one entry a burst, by name.

    names maps owners to the bursts to return them as: a burst to itself, and a shared foundation to the one who asks.
    None returns every burst. now is in seconds since the epoch.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for burst in (names or {}).values():
        rows[burst] = {}
    for kind in KINDS:
        for resource in found.get(kind, ()):
            whose = owner(kind, resource)
            burst = whose if names is None else names.get(whose, "")
            if burst:
                rows.setdefault(burst, {}).setdefault(kind, []).append(resource)
    return [_group(burst, rows[burst], prices, now) for burst in sorted(rows)]


def _group(burst: str, rows: Found, prices: Mapping[str, float], now: float) -> dict[str, Any]:
    machines = sorted(
        (machine_row(it, prices, now) for it in rows.get("instances", ())),
        key=lambda row: str(row["name"]),
    )
    group: dict[str, Any] = {
        "burst": burst,
        "instances": machines,
        "disks": _names([it for it in rows.get("disks", ()) if not it.get("users")]),
        "nat_ips": sorted(str(it.get("address", "")) for it in rows.get("addresses", ())),
    }
    for key in LISTS:
        group.setdefault(key, _names(rows.get(REST.get(key, key), ())))
    group["totals"] = totals(machines)
    return {**group, "report": report(group)}


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted(str(row["name"]) for row in rows)


def machine_row(
    instance: Mapping[str, Any], prices: Mapping[str, float], now: float
) -> dict[str, Any]:
    """Return a machine with its age, its cost since it was last started, and the time left on its fuse."""
    scheduling = instance.get("scheduling", {})
    spot = scheduling.get("provisioningModel") == "SPOT" or bool(scheduling.get("preemptible"))
    begun = _seconds(instance.get("lastStartTimestamp") or instance.get("creationTimestamp"), now)
    stopped = instance["status"] in STOPPED
    end = _seconds(instance.get("lastStopTimestamp"), now) if stopped else now
    ran = max(end - begun, 0.0)
    row = machine(dict(instance))
    found = price(
        row["machine_type"],
        region(row["zone"]),
        spot=spot,
        accelerators={
            last_part(it["acceleratorType"]): int(it["acceleratorCount"])
            for it in instance.get("guestAccelerators", [])
        },
        configured=prices,
    )
    fuse = int(scheduling.get("maxRunDuration", {}).get("seconds", 0))
    return {
        **row,
        "spot": spot,
        "age": round(max(now - _seconds(instance.get("creationTimestamp"), now), 0.0)),
        "ran": round(ran),
        "time_left": max(round(fuse - ran), 0) if fuse and not stopped else None,
        "price_per_hour": found.per_hour if found else None,
        "price_basis": found.basis if found else "unknown",
        "cost": round(found.per_hour * max(ran, SHORTEST) / 3600, 4) if found else None,
    }


def _seconds(timestamp: str | None, now: float) -> float:
    return datetime.fromisoformat(timestamp).timestamp() if timestamp else now


def totals(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums over machines. Those without a price are left out of the sums, and their types named."""
    running = [row for row in machines if row["status"] not in STOPPED]
    left = [row["time_left"] for row in running if row["time_left"] is not None]
    hourly = [row["price_per_hour"] for row in running if row["price_per_hour"] is not None]
    return {
        "machines": len(machines),
        "running": len(running),
        "spot": sum(row["spot"] for row in machines),
        "price_per_hour": round(sum(hourly), 4),
        "cost": round(sum(row["cost"] or 0 for row in machines), 4),
        "without_price": sorted({row["machine_type"] for row in machines if row["cost"] is None}),
        "without_fuse": sorted(row["name"] for row in running if row["time_left"] is None),
        "first_end": min(left, default=None),
        "last_end": max(left, default=None),
    }


def report(group: Mapping[str, Any]) -> list[str]:
    """Return what a burst has, as lines for people: one a machine, the sums, and what else there is."""
    lines = [_machine_line(row) for row in group["instances"]]
    total = group["totals"]
    if total["machines"]:
        unpriced = ", ".join(total["without_price"])
        lines.append(
            f"{total['machines']} machines, {total['running']} running ({total['spot']} spot): "
            f"{total['cost']:.2f} so far, {total['price_per_hour']:.2f} an hour"
            + (f", without {unpriced}, whose price is unknown" if unpriced else "")
            + (f"; the last one ends in {span(total['last_end'])}" if total["last_end"] else "")
        )
    if total["without_fuse"]:
        lines.append(f"no time limit: {', '.join(total['without_fuse'])}")
    for kind in ("disks", "networks", "resource_policies", "images"):
        title = {"disks": "disks left behind", "resource_policies": "placement policies"}
        if group[kind]:
            lines.append(f"{title.get(kind, kind)}: {', '.join(group[kind])}")
    if group["nat_ips"]:
        lines.append(f"its machines come from: {', '.join(group['nat_ips'])}")
    return lines or ["nothing"]


def _machine_line(row: Mapping[str, Any]) -> str:
    kind = f"{row['machine_type']}{' spot' if row['spot'] else ''}"
    cost = "cost unknown"
    if row["cost"] is not None:
        bound = "at most " if row["price_basis"] == "upper bound" else ""
        cost = f"{bound}{row['cost']:.2f} so far"
    left = "" if row["time_left"] is None else f", ends in {span(row['time_left'])}"
    place = f"{row['zone']} {row['internal_ip'] or 'no address'}"
    return f"{row['name']} {row['status']} {kind} {place}: up {span(row['ran'])}, {cost}{left}"


def span(seconds: int) -> str:
    """Return a time as people say it: 45s, 12m, 3h 5m, 2d 4h."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d {hours % 24}h"
    if hours:
        return f"{hours}h {minutes % 60}m"
    return f"{minutes}m" if minutes else f"{seconds}s"
