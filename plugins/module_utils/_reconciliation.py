# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a burst is amiss: machines without a rank, ranks without a machine, claims without either, leftovers.

The same three sources that Slurm's slurmsync compares: the scheduler, the cloud, and who asked for what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REASON = "flux.burst"
"""How the reason of each of our drains begins."""
ALIVE = ("PROVISIONING", "STAGING", "RUNNING", "REPAIRING")
"""What Compute Engine says of an instance that is there, or soon will be; STOPPING ones end by themselves."""
LEAVING = ("STOPPING", "PENDING_STOP", "SUSPENDING", "DEPROVISIONING")
ONLINE = ("full", "partial", "degraded")
LEFTOVERS = (
    "disks",
    "resource_policies",
    "addresses",
    "firewalls",
    "routers",
    "subnetworks",
    "networks",
)


def drained(rank: Mapping[str, Any]) -> bool:
    """Return whether a rank keeps its next machine from running a job: drained, and not by us with the machine gone."""
    reason = rank.get("drain_reason")
    return reason is not None and not left_drained(rank)


def left_drained(rank: Mapping[str, Any]) -> bool:
    """Return whether a burst has drained a rank, and the machine is gone: preempted, or a run was killed."""
    return rank.get("state") == "down" and (rank.get("drain_reason") or "").startswith(REASON)


@dataclass(frozen=True)
class Request:
    """What decides: the burst's name, the hostnames it may use, and its patience.

    reason is how the drains of a burst begin; patience and max_run_seconds are in seconds, now since the epoch.
    """

    burst: str
    hosts: Sequence[str]
    reason: str
    patience: float
    max_run_seconds: float
    now: float


@dataclass
class Decision:
    """What to do; findings say why, one a thing that is amiss."""

    delete: list[str] = field(default_factory=list)
    disconnect: list[str] = field(default_factory=list)
    undrain: list[str] = field(default_factory=list)
    release: list[str] = field(default_factory=list)
    release_hosts: list[str] = field(default_factory=list)
    remove_all: bool = False
    findings: list[dict[str, str]] = field(default_factory=list)

    def find(self, kind: str, name: str, found: str, action: str) -> None:
        """Remember one thing that is amiss."""
        self.findings.append({"kind": kind, "name": name, "found": found, "action": action})

    def report(self) -> list[str]:
        """Return the findings as lines for people."""
        if not self.findings:
            return ["nothing is amiss"]
        return [f"{it['kind']} {it['name']}: {it['found']}: {it['action']}" for it in self.findings]


def decide(
    bursts: Iterable[Mapping[str, Any]],
    ranks: Sequence[Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    host_claims: Sequence[Mapping[str, Any]],
    request: Request,
) -> Decision:
    """Return what is amiss with a burst.

    bursts are gce_burst_info's, of the whole project; ranks are flux_resource_info's; claims and host_claims are those
    that the burst holds on jobs and hosts. What is younger than the request's patience may be another controller's that
    is at work, and stays.
    """
    decision = Decision()
    known = {each["burst"]: each for each in bursts}
    own = known.get(request.burst, {})
    by_host = {each["host"]: each for each in ranks}
    began = next((each["since"] for each in ranks if each["rank"] == 0), 0.0)
    instances = {it["name"]: it for it in own.get("instances", ())}
    for name, instance in instances.items():
        found = _amiss(instance, by_host.get(name), began, request)
        if found:
            decision.delete.append(name)
            decision.find("instance", name, found, "delete it")
    staying = [name for name in instances if name not in decision.delete]
    everywhere = {it["name"] for each in known.values() for it in each.get("instances", ())}
    for host in request.hosts:
        if host in by_host and host not in everywhere:
            _rank_without_machine(by_host[host], request, decision)
    for claim in host_claims:
        name, age = claim["id"], _age(claim, request)
        if name in decision.delete:
            decision.release_hosts.append(name)
        elif name not in instances and age >= request.patience:
            decision.release_hosts.append(name)
            found = f"claimed {age:.0f} s ago, and the burst has no such machine"
            decision.find("claim", name, found, "give it back")
    if not staying:
        _rest(own, claims, request, decision)
    return decision


def _age(claim: Mapping[str, Any], request: Request) -> float:
    return float(request.now - (claim["until"] - request.max_run_seconds))


def _amiss(
    instance: Mapping[str, Any], rank: Mapping[str, Any] | None, began: float, request: Request
) -> str:
    """Return what is wrong with a machine, "" where nothing is or it is too early to say.

    A lead that began a moment ago has seen nobody yet.
    """
    status = instance["status"]
    if status in LEAVING or instance["age"] < request.patience:
        return ""
    if status not in ALIVE:
        return f"status {status}"
    if rank is None:
        return "the lead declares no host of that name"
    seen = max(rank["since"], began)
    if rank["overlay"] in ONLINE or request.now - seen < request.patience:
        return ""
    if rank["since"]:
        return f"its broker has been gone for {request.now - rank['since']:.0f} s"
    return f"its broker has not joined in the {instance['age']:.0f} s since it was created"


def _rank_without_machine(rank: Mapping[str, Any], request: Request, decision: Decision) -> None:
    host = rank["host"]
    if rank["overlay"] in ONLINE:
        found = (
            f"the overlay has it as {rank['overlay']}, and no burst of the project has the machine"
        )
        decision.disconnect.append(host)
        decision.find("rank", host, found, "disconnect it")
    if (rank["drain_reason"] or "").startswith(request.reason):
        decision.undrain.append(host)
        found = f"drained ({rank['drain_reason']}), and the machine is gone"
        decision.find("rank", host, found, "undrain it")


def _rest(
    own: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    request: Request,
    decision: Decision,
) -> None:
    """Decide on claims and on what is not a machine, where no machine stays."""
    young = False
    for claim in claims:
        age = _age(claim, request)
        if age < request.patience:
            young = True
            continue
        decision.release.append(claim["id"])
        found = f"claimed {age:.0f} s ago, and the burst has no machine"
        decision.find("claim", claim["id"], found, "give it back")
    left = [name for kind in LEFTOVERS for name in own.get(kind, ())]
    if young or not (left or decision.delete):
        return
    decision.remove_all = True
    for kind in LEFTOVERS:
        for name in own.get(kind, ()):
            decision.find(kind, name, "the burst has no machine", "delete it")
