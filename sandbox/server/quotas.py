# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas: how much of a region or of all regions a project may use, and how much it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sandbox.server import catalog
from sandbox.server.api import Call, serve
from sandbox.server.errors import OperationError
from sandbox.server.resources import listed
from sandbox.server.state import Cloud, Key, Resource

EVERYWHERE = "global"


def needs(instance: Resource) -> Counter[str]:
    """Return what an instance takes of its region's quotas, by metric."""
    name = instance["machineType"].rpartition("/")[2]
    scheduling = instance.get("scheduling", {})
    spot = scheduling.get("provisioningModel") == "SPOT"
    size = catalog.SIZES[name]
    found = Counter({"INSTANCES": 1, catalog.cpu_metric(name, spot): size.cpus})
    accelerators = instance.get("guestAccelerators") or size.accelerators
    for row in accelerators:
        kind = row.get("guestAcceleratorType") or row["acceleratorType"].rpartition("/")[2]
        count = row.get("guestAcceleratorCount") or row["acceleratorCount"]
        found[catalog.gpu_metric(kind, spot)] += count
    return found


def used(cloud: Cloud, project: str, region: str) -> Counter[str]:
    """Return what a project's instances take in a region, or in all with EVERYWHERE."""
    found: Counter[str] = Counter()
    for key, instance in cloud.table(project, "instances").items():
        zone = key.scope.rpartition("/")[2]
        if region in (EVERYWHERE, catalog.ZONES[zone]) and instance["status"] != "TERMINATED":
            found += needs(instance)
    if region == EVERYWHERE:
        found["CPUS_ALL_REGIONS"] = sum(
            count for metric, count in found.items() if metric.endswith("CPUS")
        )
        found["GPUS_ALL_REGIONS"] = sum(
            count for metric, count in found.items() if metric.endswith("_GPUS")
        )
        found["NETWORKS"] = len(cloud.table(project, "networks"))
    return found


def limits(cloud: Cloud, region: str) -> Mapping[str, float]:
    """Return the limits of a region, or those of all with EVERYWHERE."""
    usual = catalog.PROJECT_QUOTAS if region == EVERYWHERE else catalog.QUOTAS
    return {**usual, **cloud.quotas.get(region, {})}


def shown(cloud: Cloud, project: str, region: str) -> list[Resource]:
    """Return the quotas as a region or a project shows them."""
    usage = used(cloud, project, region)
    return [
        {"metric": metric, "limit": float(limit), "usage": float(usage[metric])}
        for metric, limit in limits(cloud, region).items()
    ]


def check(cloud: Cloud, key: Key) -> None:
    """Raise OperationError where what is there with a new instance exceeds a quota."""
    region = catalog.ZONES[key.scope.rpartition("/")[2]]
    for where in (region, EVERYWHERE):
        usage = used(cloud, key.project, where)
        for metric, limit in limits(cloud, where).items():
            if usage[metric] > limit:
                place = "globally" if where == EVERYWHERE else f"in region {region}"
                raise OperationError(
                    "QUOTA_EXCEEDED", f"Quota '{metric}' exceeded. Limit: {limit} {place}.", 403
                )


@serve("regions.list", "GET", "regions")
async def list_regions(call: Call) -> Resource:
    """Return the regions."""
    found = [_region(call, region) for region in catalog.REGIONS]
    return listed(call, found, "region", f"projects/{call.project}/regions")


@serve("regions.get", "GET", "regions/{region}")
async def get_region(call: Call) -> Resource:
    """Return a region."""
    return _region(call, call.params["region"])


def _region(call: Call, region: str) -> Resource:
    found = catalog.regions(call.project)[region]
    return {**found, "quotas": shown(call.cloud, call.project, region)}


@serve("projects.get", "GET", "")
async def get_project(call: Call) -> Resource:
    """Return the project."""
    found = catalog.project_resource(call.project)
    return {**found, "quotas": shown(call.cloud, call.project, EVERYWHERE)}
