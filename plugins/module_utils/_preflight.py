# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be so before money is spent, as far as the lead and the specification can tell. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _lead_hosts,
    _overlay,
    _reconciliation,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._hostlist import fold

# Older ones have no config sync and other messages; nobody has tried them.
LEAST_VERSION = (0, 82)
# munge refuses credentials from five minutes away; two leave room for the machines' own clocks.
CLOCK = 120.0


def differences(
    hosts: Sequence[str],
    identity: Mapping[str, Any],
    ranks: Sequence[Mapping[str, Any]],
    machine_types: Sequence[Mapping[str, Any]],
    now: float,
    gateway: str = "",
) -> list[str]:
    """Return one line for each thing that would keep a burst from joining, with what was wanted and found.

    hosts are the names that may be booted, identity what flux_identity_info returns, ranks what flux_resource_info
    does, machine_types what gce_machine_type_info does, and now the controller's clock in seconds since the epoch.
    gateway is the host that is the overlay parent of the others, "" for none.
    """
    return [
        *host_differences(identity["munge"], identity["time"], now),
        *_broker(identity),
        *_names(hosts, identity["hosts"], {rank["host"]: rank["rank"] for rank in ranks}),
        *_parents(hosts, identity["bootstrap"], gateway),
        *_drained(ranks, gateway),
        *_sizes(hosts, ranks, machine_types),
    ]


def toml(
    hosts: Sequence[str],
    identity: Mapping[str, Any],
    ranks: Sequence[Mapping[str, Any]],
    machine_types: Sequence[Mapping[str, Any]],
    gateway: str = "",
) -> str:
    """Return what the lead's configuration lacks of these hosts, as TOML to add; "" where it lacks nothing.

    The smallest machine type says how many cores they have, so that each of them will do. Where it cannot be added
    as TOML, what is returned says why.
    """
    if not machine_types:
        return ""
    cores, gpus = (min(kind[key] for kind in machine_types) for key in ("cores", "gpus"))
    known = {rank["host"] for rank in ranks}
    if not [host for host in hosts if host not in identity["hosts"] or host not in known]:
        return ""
    try:
        machines = _lead_hosts.Machines(hosts, cores, gpus, gateway=gateway)
        return _lead_hosts.text(_lead_hosts.missing(identity.get("config") or {}, machines, ranks))
    except SpecError as error:
        return f"# {error}"


def _broker(identity: Mapping[str, Any]) -> Iterator[str]:
    version = tuple(int(part) for part in str(identity["version"]).split(".")[:2])
    if version < LEAST_VERSION:
        yield (
            f"version: wanted Flux {'.'.join(map(str, LEAST_VERSION))} or newer on the lead, found "
            f"{identity['version']}: upgrade the lead"
        )
    if not identity["security_version"]:
        yield (
            "flux-security: wanted it on the lead, found Flux built without: jobs of other users need it on every node"
        )
    if identity["uid"] == 0:
        yield "owner: wanted a user of its own to own the instance, found root: run the lead's flux.service as flux"
    first = identity["bootstrap"]["hosts"][0]
    if not first.get("bind") and not identity["bootstrap"].get("default_bind"):
        yield (
            "bind: wanted hosts[0] of [bootstrap], or default_bind, to say where the lead listens, found neither: "
            "set bind"
        )


def host_differences(munge: str, time: float, now: float) -> Iterator[str]:
    """Yield what is wrong on the lead's host, whether or not its broker runs.

    munge is what is wrong with it, time the lead's clock and now the controller's.
    """
    if munge:
        yield f"munge: wanted it to decode what it encodes on the lead, found '{munge}': start munge there"
    apart = time - now
    if abs(apart) > CLOCK:
        side = "ahead of" if apart > 0 else "behind"
        yield (
            f"clock: wanted the lead's within {CLOCK:.0f} s of the controller's, found it {abs(apart):.0f} s "
            f"{side} it: set both by NTP, as Compute Engine's machines are"
        )


def _names(
    hosts: Sequence[str], declared: Sequence[str], ranks: Mapping[str, int]
) -> Iterator[str]:
    """A machine's rank is its index in hosts, and R must give that rank the same name."""
    place = {name: index for index, name in enumerate(declared)}
    absent = [host for host in hosts if host not in place]
    if absent:
        lower = {name.lower().partition(".")[0]: name for name in declared}
        near = [lower[host] for host in absent if host in lower]
        hint = f" (it has {fold(near)}: names must be exactly the same)" if near else ""
        yield (
            f"hosts: wanted {fold(absent)} in [bootstrap] hosts of the lead, found it not there{hint}: declare it and "
            "restart the lead (playbooks/lead.yml with lead_manage does), or correct burst_hostlist"
        )
    missing = [host for host in hosts if host in place and host not in ranks]
    if missing:
        yield (
            f"R: wanted {fold(missing)} in the lead's R, found it in [bootstrap] hosts only: add it to "
            "[[resource.config]] and restart the lead (playbooks/lead.yml with lead_manage does)"
        )
    for host in hosts:
        if host in place and host in ranks and place[host] != ranks[host]:
            yield (
                f"rank: wanted {host} to have rank {place[host]}, its place in [bootstrap] hosts, found rank "
                f"{ranks[host]} in the lead's R: list hosts and [[resource.config]] in the same order"
            )


def _parents(hosts: Sequence[str], bootstrap: Mapping[str, Any], gateway: str) -> Iterator[str]:
    """Both ends must declare one tree: a machine under another parent is refused, or never reaches it."""
    entries = bootstrap["hosts"]
    found = _overlay.parents(entries)
    wrong = [
        host
        for host in hosts
        if host in found and found[host] != ("" if host == gateway else gateway)
    ]
    if not wrong:
        return
    wanted = f"parent {gateway}" if gateway else "no parent but the lead"
    has = ", ".join(sorted({found[host] or "none" for host in wrong}))
    topology, other = ("gateway", "flat") if gateway else ("flat", "gateway")
    array = _overlay.toml(_overlay.declared(entries, hosts, gateway))
    yield (
        f"topology: wanted {wanted} for {fold(wrong)} in [bootstrap] hosts of the lead (burst_topology: {topology}), "
        f"found {has}: restart the lead with hosts = {array} (playbooks/lead.yml with lead_manage does), or set "
        f"burst_topology to {other} where the lead is right"
    )


def _drained(ranks: Sequence[Mapping[str, Any]], gateway: str) -> Iterator[str]:
    for rank in ranks:
        if rank["host"] == gateway and _reconciliation.drained(rank):
            yield (
                f"gateway: wanted {gateway}, without which no other machine joins, not drained, found it drained "
                f"('{rank['drain_reason']}'): undrain it (flux resource undrain {gateway})"
            )


def _sizes(
    hosts: Sequence[str],
    ranks: Sequence[Mapping[str, Any]],
    machine_types: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """A machine with less than R declares joins and is drained at once; hosts of one shape are told together."""
    if not machine_types:
        return
    wanted: dict[tuple[int, int], list[str]] = {}
    for rank in ranks:
        if rank["host"] in hosts:
            wanted.setdefault((rank["cores"], rank["gpus"]), []).append(rank["host"])
    for (cores, gpus), names in sorted(wanted.items()):
        if any(kind["cores"] >= cores and kind["gpus"] >= gpus for kind in machine_types):
            continue
        found = ", ".join(
            f"{kind['name']} with {kind['cores']} cores"
            + (f" ({kind['vcpus']} vCPUs)" if kind.get("vcpus") else "")
            + (f" and {kind['gpus']} GPUs" if gpus else "")
            for kind in machine_types
        )
        yield (
            f"machine type: wanted {cores} cores and {gpus} GPUs, which the lead's R declares for {fold(names)}, found "
            f"{found}: choose larger burst_machine_types, or correct R and restart the lead"
        )
