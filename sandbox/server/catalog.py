# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Compute Engine has before anybody makes anything: projects, places, machine types, images."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

PROJECT, SITE_PROJECT, HOST_PROJECT = "sandbox-project", "sandbox-site", "sandbox-host"
NUMBERS = {
    PROJECT: "100000000001",
    SITE_PROJECT: "100000000002",
    HOST_PROJECT: "100000000003",
}
SERVICE_PROJECTS = {HOST_PROJECT: (PROJECT,)}
"""Shared VPC: who may put machines into a host project's subnetworks."""
BORN = "2026-01-01T00:00:00.000-08:00"
BASE = "https://www.googleapis.com/compute/v1"

REGIONS = {
    "us-central1": ("us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"),
    "us-east1": ("us-east1-b", "us-east1-c", "us-east1-d"),
}
ZONES = {zone: region for region, zones in REGIONS.items() for zone in zones}

IMAGES = {
    PROJECT: (("flux-fw-bursted-x86-64-v20261101", "flux-fw-bursted-x86-64"),),
    "debian-cloud": (
        ("debian-12-bookworm-v20261110", "debian-12"),
        ("debian-13-trixie-v20261110", "debian-13"),
    ),
    "ubuntu-os-cloud": (("ubuntu-2404-noble-amd64-v20261112", "ubuntu-2404-lts-amd64"),),
    "rocky-linux-cloud": (("rocky-linux-9-v20261111", "rocky-linux-9"),),
}

UNSHARED = "UNSPECIFIED_XPN_PROJECT_STATUS"

# family -> (GiB of memory a vCPU, vCPU counts)
FAMILIES = {
    "e2-standard": (4, (2, 4, 8, 16, 32)),
    "e2-highcpu": (1, (2, 4, 8, 16, 32)),
    "n1-standard": (3.75, (1, 2, 4, 8, 16, 32, 64, 96)),
    "n2-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128)),
    "n2-highcpu": (1, (2, 4, 8, 16, 32, 48, 64, 80, 96)),
    "n2d-standard": (4, (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224)),
    "c2-standard": (4, (4, 8, 16, 30, 60)),
    "c2d-standard": (4, (2, 4, 8, 16, 32, 56, 112)),
    "c3-standard": (4, (4, 8, 22, 44, 88, 176)),
    "h3-standard": (4, (88,)),
}
SHARED = {"e2-micro": 1, "e2-small": 2, "e2-medium": 4}
# Machine types that bring GPUs: name -> (vCPUs, GiB of memory, accelerator type, how many).
WITH_GPUS = {
    "g2-standard-4": (4, 16, "nvidia-l4", 1),
    "g2-standard-24": (24, 96, "nvidia-l4", 2),
    "a2-highgpu-1g": (12, 85, "nvidia-tesla-a100", 1),
    "a2-highgpu-2g": (24, 170, "nvidia-tesla-a100", 2),
}
# What n1 machines can have added.
ACCELERATORS = ("nvidia-tesla-t4", "nvidia-tesla-v100", "nvidia-tesla-p4")
# Not every zone has every family.
ONLY_IN = {"h3": ("us-central1-a",), "a2": ("us-central1-a", "us-central1-c")}
OWN_METRICS = ("n2", "n2d", "c2", "c2d", "c3", "a2")
QUOTAS = {
    "CPUS": 50000.0,
    **{f"{family.upper()}_CPUS": 50000.0 for family in OWN_METRICS},
    "PREEMPTIBLE_CPUS": 50000.0,
    "NVIDIA_T4_GPUS": 64.0,
    "NVIDIA_L4_GPUS": 64.0,
    "NVIDIA_A100_GPUS": 16.0,
    "PREEMPTIBLE_NVIDIA_T4_GPUS": 64.0,
    "PREEMPTIBLE_NVIDIA_L4_GPUS": 64.0,
    "IN_USE_ADDRESSES": 575.0,
    "STATIC_ADDRESSES": 175.0,
    "INSTANCES": 20000.0,
}
PROJECT_QUOTAS = {"NETWORKS": 15.0, "CPUS_ALL_REGIONS": 200000.0, "GPUS_ALL_REGIONS": 64.0}


def fixed_id(path: str) -> str:
    """Return an id that is the same for a path in every sandbox."""
    return str(10**12 + zlib.crc32(path.encode()))


def has_project(project: str) -> bool:
    """Return whether there is such a project: ours, or one of Google's image projects."""
    return project in NUMBERS or project.endswith(("-cloud", "-images"))


def _base(kind: str, path: str, name: str) -> dict[str, Any]:
    return {
        "kind": f"compute#{kind}",
        "id": fixed_id(path),
        "creationTimestamp": BORN,
        "name": name,
        "selfLink": f"{BASE}/{path}",
    }


def project_resource(project: str) -> dict[str, Any]:
    """Return a project."""
    return {
        **_base("project", f"projects/{project}", project),
        "id": NUMBERS.get(project, fixed_id(project)),
        "commonInstanceMetadata": {"kind": "compute#metadata", "fingerprint": "4wXsUOIZDU8="},
        "xpnProjectStatus": "HOST" if project in SERVICE_PROJECTS else UNSHARED,
        "defaultNetworkTier": "PREMIUM",
    }


def regions(project: str) -> dict[str, dict[str, Any]]:
    """Return the regions of a project by name."""
    return {
        region: {
            **_base("region", f"projects/{project}/regions/{region}", region),
            "description": region,
            "status": "UP",
            "zones": [f"{BASE}/projects/{project}/zones/{zone}" for zone in zones],
            "supportsPzs": False,
        }
        for region, zones in REGIONS.items()
    }


def zones(project: str) -> dict[str, dict[str, Any]]:
    """Return the zones of a project by name."""
    return {
        zone: {
            **_base("zone", f"projects/{project}/zones/{zone}", zone),
            "description": zone,
            "status": "UP",
            "region": f"{BASE}/projects/{project}/regions/{region}",
            "availableCpuPlatforms": ["Intel Cascade Lake", "Intel Ice Lake"],
            "supportsPzs": False,
        }
        for zone, region in ZONES.items()
    }


class Size(NamedTuple):
    """What a machine type has; memory in MiB."""

    cpus: int
    memory_mb: int
    shared: bool = False
    accelerators: tuple[dict[str, Any], ...] = ()


def _sizes() -> dict[str, Size]:
    sizes = {
        f"{family}-{count}": Size(count, int(count * memory * 1024))
        for family, (memory, counts) in FAMILIES.items()
        for count in counts
    }
    sizes |= {name: Size(2, memory * 1024, True) for name, memory in SHARED.items()}
    for name, (cpus, memory, kind, count) in WITH_GPUS.items():
        accelerator = {"guestAcceleratorType": kind, "guestAcceleratorCount": count}
        sizes[name] = Size(cpus, memory * 1024, accelerators=(accelerator,))
    return sizes


SIZES = _sizes()
"""Machine types by name."""


def cpu_metric(machine_type: str, spot: bool) -> str:
    """Return the quota that the vCPUs of a machine type count against."""
    if spot:
        return "PREEMPTIBLE_CPUS"
    family = machine_type.partition("-")[0]
    return f"{family.upper()}_CPUS" if family in OWN_METRICS else "CPUS"


def gpu_metric(accelerator: str, spot: bool) -> str:
    """Return the quota that an accelerator type counts against."""
    name = accelerator.replace("-tesla", "").replace("-", "_").upper()
    return f"{'PREEMPTIBLE_' if spot else ''}{name}_GPUS"


def has_family(zone: str, machine_type: str) -> bool:
    """Return whether a zone has the family of a machine type."""
    family = machine_type.partition("-")[0]
    return zone in ONLY_IN.get(family, (zone,))


def machine_types(project: str, zone: str) -> dict[str, dict[str, Any]]:
    """Return the machine types of a zone by name."""
    return {
        name: {
            **_base("machineType", f"projects/{project}/zones/{zone}/machineTypes/{name}", name),
            "description": f"{size.cpus} vCPUs, {size.memory_mb / 1024:g} GB RAM",
            "guestCpus": size.cpus,
            "memoryMb": size.memory_mb,
            "imageSpaceGb": 0,
            "maximumPersistentDisks": 128,
            "maximumPersistentDisksSizeGb": "263168",
            "zone": zone,
            "isSharedCpu": size.shared,
            "architecture": "X86_64",
            **({"accelerators": list(size.accelerators)} if size.accelerators else {}),
        }
        for name, size in SIZES.items()
        if has_family(zone, name)
    }


def images(project: str) -> dict[str, dict[str, Any]]:
    """Return the images of a project by name."""
    return {
        name: {
            **_base("image", f"projects/{project}/global/images/{name}", name),
            "family": family,
            "description": f"{family} as the sandbox boots it",
            "status": "READY",
            "sourceType": "RAW",
            "architecture": "X86_64",
            "diskSizeGb": "10",
            "archiveSizeBytes": "1073741824",
            "labelFingerprint": "42WmSpB8rSM=",
            "storageLocations": ["us"],
        }
        for name, family in IMAGES.get(project, ())
    }
