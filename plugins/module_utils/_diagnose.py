# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a machine and its lead say, the stage at which the machine stopped, the cause, and what to do.

Every message was seen on Flux 0.88 and flux-security 0.15.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Evidence:
    """What is known of one machine; every part may be empty.

    `hostname` is its kernel's, `status` the unit's StatusText, `exit_code` its ExecMainStatus, `log` the broker's
    journal there. `lead_log` are the lead's lines on it, `overlay` the overlay's error, `drain_reason` the drain's.
    `proof` is what a command said that ran there for the lead, `lead_port` what is wrong with the lead's port as seen
    from there. `certificate` and `lead_certificate` are the fingerprints of both curve certificates. `parent` is the
    machine that is its parent in the overlay, "" where that is the lead: then `lead_port` is the parent's. `reached` is
    whether anything of it was ever seen.
    """

    host: str
    rank: int = -1
    hostname: str = ""
    status: str = ""
    exit_code: int = 0
    log: tuple[str, ...] = ()
    lead_log: tuple[str, ...] = ()
    overlay: str = ""
    drain_reason: str = ""
    proof: str = ""
    lead_port: str = ""
    certificate: str = ""
    lead_certificate: str = ""
    parent: str = ""
    reached: bool = False


@dataclass(frozen=True)
class Finding:
    """One machine's stage, its cause in Flux's own words where there are any, and the remedy.

    below are the hosts that are missing only because this one is: it is their parent in the overlay.
    """

    host: str
    stage: str
    cause: str
    remedy: str
    below: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.host}: stage {self.stage}: {self.cause}: {self.remedy}"


def of_message(host: str, text: str) -> list[Finding]:
    """Return what a task that failed for a machine said: 'stage STAGE: CAUSE: REMEDY.', each finding a line."""
    rows = [re.fullmatch(r"stage (\w+): (.+): (.+?)\.?", line) for line in text.splitlines()]
    found = [Finding(host, row[1], row[2], row[3]) for row in rows if row]
    said = " ".join(text.split())
    return found or [Finding(host, "machine", said, "see what its tasks said")]


NODE, LEAD, DRAIN, PROOF = "node", "lead", "drain", "proof"
DECLARE = "make the lead's [bootstrap] hosts and the machine's the same, in names and order, and restart the lead"
IMAGE = "use an image with the lead's version of Flux"
KEY = "run the burst again, which puts the lead's key in place; a lead whose munge key is new needs munge restarted"
IMP = "apply role flux.burst.node_base, or put flux-security right in the image"
# Where it is said, what is said (HOST is the machine's name), the stage, the remedy. The first that fits counts: the
# special before the general.
RULES = (
    (
        NODE,
        r"Error loading certificate: .*",
        "certificate",
        "run the burst again, which puts the lead's certificate in place",
    ),
    (
        NODE,
        r"curve_cert must be defined.*",
        "certificate",
        "set curve_cert in [bootstrap] of the lead's configuration",
    ),
    (
        NODE,
        r"\S+ not found in hosts",
        "hostname",
        f"the kernel's hostname must be in hosts exactly; {DECLARE}",
    ),
    (
        NODE,
        r"Config file error.*",
        "configuration",
        "correct that table of the lead's configuration, and run the burst again",
    ),
    (
        NODE,
        r"(error reranking R: .*|Host \S+ not found in resources)",
        "resources",
        "remove [resource] from the machine's configuration: rank 0's R counts",
    ),
    (
        NODE,
        r"flux_security_configure.*",
        "security",
        "apply role flux.burst.node_base, which writes security.toml",
    ),
    (
        NODE,
        r"unable to resolve upstream peer .*",
        "lead_port",
        "burst_lead_address must be a name that the machines can resolve, or an address",
    ),
    (LEAD, r"rejecting connection from HOST .*", "hostname", DECLARE),
    (NODE, r".*version .*mismatched with .*", "version", IMAGE),
    (LEAD, r".*version .*mismatched with .*", "version", IMAGE),
    (NODE, r"overlay\.hello: Invalid argument", "hostname", DECLARE),
    (
        LEAD,
        r".*handshake failed.*",
        "certificate",
        "restart the lead if its certificate is new, and run the burst again",
    ),
    (
        NODE,
        r".*handshake failed.*",
        "certificate",
        "restart the lead if its certificate is new, and run the burst again",
    ),
    (
        LEAD,
        r"HOST \(rank \d+\) reconnected after crash, dropping old connection state",
        "hostname",
        "two machines have this name: stop one of them, and restart flux.service on the other",
    ),
    (
        DRAIN,
        r".*got hostname '.*', expected '.*'",
        "hostname",
        "rename the machine to the name that the lead expects, then undrain it",
    ),
    (
        DRAIN,
        r".*missing resources: .*",
        "resources",
        "take a machine type with as many cores as the lead's R declares, or correct R; then undrain it",
    ),
    (
        DRAIN,
        r"flux\.burst preempted",
        "preempted",
        "run the burst again when Compute Engine has taken it away, which makes it again",
    ),
    (DRAIN, r".+", "drained", "undrain it (flux resource undrain) once that is put right"),
    (PROOF, r".*munge.*Invalid credential|.*Error: Invalid credential", "munge", KEY),
    (
        PROOF,
        r".*(Failed to access .*munge\S*|Socket communication error|munge\S* .*not running).*",
        "munge",
        "munged does not run there: see journalctl -u munge on that machine",
    ),
    (
        PROOF,
        r".*(Rewound|Expired) credential.*",
        "clock",
        "set its clock (chrony or systemd-timesyncd); munge allows five minutes",
    ),
    (
        PROOF,
        r".*header userid \d+ != real \d+.*",
        "uid",
        "give the instance's owner the lead's uid: apply role flux.burst.node_base",
    ),
    (
        PROOF,
        r".*uid \d+, wanted \d+.*",
        "uid",
        "give the instance's owner the lead's uid: apply role flux.burst.node_base",
    ),
    (
        PROOF,
        r".*userid \d+ is invalid.*",
        "user",
        "create the users that run jobs on the machines too",
    ),
    (
        PROOF,
        r".*(IMP not installed setuid|not in allowed-users list|No config file\(s\) found|insecure file|flux-imp).*",
        "imp",
        IMP,
    ),
    (
        PROOF,
        r".*error launching process: No such file or directory.*",
        "prefix",
        "install Flux there under the lead's prefix",
    ),
    (
        PROOF,
        r".*Could not change dir to .*",
        "cwd",
        "make the job's directory exist there, or submit with --cwd",
    ),
    (
        PROOF,
        r".*No route to host.*",
        "overlay",
        "it left the overlay again: see journalctl -u flux on that machine",
    ),
    (PROOF, r".+", "proof", "run it there as the instance's owner, and put right what it says"),
)
JOINING = "Joining Flux instance"
# The stages of findings that tell no cause: what a task said on the machine tells more.
VAGUE = ("broker", "overlay", "machine")
# So many digits of a fingerprint tell two certificates apart.
SHOWN = 16


def diagnose(evidence: Evidence) -> Finding:
    """Return what stopped a machine. Where nobody said anything, the silence is what is told."""
    said: dict[str, Iterable[str]] = {
        NODE: evidence.log,
        LEAD: (evidence.overlay, *evidence.lead_log),
        DRAIN: (evidence.drain_reason,),
        PROOF: evidence.proof.splitlines(),
    }
    for where, pattern, stage, remedy in RULES:
        own = pattern.replace("HOST", re.escape(evidence.host))
        for line in said[where]:
            found = re.search(own, line)
            if line and found:
                return Finding(evidence.host, stage, _told(where, found[0]), remedy)
    return _silent(evidence)


def joining(status: str) -> tuple[str, int]:
    """Return address and port that a broker tries, from its StatusText; ("", 0) where it does not say."""
    found = re.search(r"via tcp://(?:\[([^]]+)\]|([^:\s]+)):(\d+)", status)
    return (found[1] or found[2], int(found[3])) if found else ("", 0)


def gateway(finding: Finding, below: Sequence[str], hosts: str, *, seen: bool) -> Finding:
    """Return what is told of a machine that is the parent of others, which are all missing with it.

    hosts is the hostlist of those below it; seen is whether it was ever online.
    """
    ranks = f"{len(below)} rank{'' if len(below) == 1 else 's'}"
    state = "is gone" if seen else "has not joined"
    cause = f"the gateway {finding.host} {state}, and with it {ranks} below it ({hosts})"
    return replace(
        finding,
        stage="overlay" if finding.stage in VAGUE else finding.stage,
        cause=f"{cause}; {finding.cause}" if finding.cause else cause,
        below=tuple(below),
    )


def whose(parent: str) -> str:
    """Return who listens at the port that a machine joins, as "the lead's"."""
    return f"gateway {parent}'s" if parent else "the lead's"


def see_port(parent: str) -> str:
    """Return what to look at where a machine does not reach that port."""
    if parent:
        return f"see flux.service on {parent}, and whether the network's firewall lets the machines reach each other"
    return "see burst_lead_address and burst_lead_port, and the lead's firewall"


def _told(where: str, text: str) -> str:
    who = {
        NODE: "the machine says",
        LEAD: "the lead says",
        DRAIN: "the lead drained it because of",
        PROOF: "a command run there says",
    }
    return f"{who[where]} '{text.strip()}'"


def _certificate(evidence: Evidence) -> tuple[str, str]:
    """Return cause and remedy where the port greets with CURVE, nobody refuses it, and still it does not get in."""
    stuck = f"it is still '{evidence.status}' though {whose(evidence.parent)} port answers"
    mine, theirs = evidence.certificate, evidence.lead_certificate
    if not mine or not theirs:
        return (
            f"{stuck}, which a certificate that differs does",
            "restart the lead if its certificate is new, and run the burst again",
        )
    if mine == theirs:
        return (
            f"{stuck}, and its certificate is the one in the lead's file",
            "restart the lead, which runs with an older one",
        )
    return (
        f"{stuck}: its certificate has fingerprint {mine[:SHOWN]}, the lead's {theirs[:SHOWN]}",
        "run the burst again, which puts the lead's in place",
    )


def _silent(evidence: Evidence) -> Finding:
    if evidence.hostname and evidence.hostname != evidence.host:
        return Finding(
            evidence.host,
            "hostname",
            f"its kernel's hostname is '{evidence.hostname}'",
            "rename the machine: a broker joins under its kernel's hostname",
        )
    if evidence.lead_port:
        cause = f"{whose(evidence.parent)} port does not answer from the machine, found {evidence.lead_port}"
        return Finding(evidence.host, "lead_port", cause, see_port(evidence.parent))
    if evidence.status.startswith(JOINING):
        return Finding(evidence.host, "certificate", *_certificate(evidence))
    if evidence.exit_code or evidence.log:
        last = evidence.log[-1] if evidence.log else "nothing"
        return Finding(
            evidence.host,
            "broker",
            f"its broker ended with exit code {evidence.exit_code} and said '{last}'",
            "see journalctl -u flux on that machine",
        )
    if evidence.overlay:
        return Finding(
            evidence.host,
            "overlay",
            _told(LEAD, evidence.overlay),
            "see journalctl -u flux on that machine; it joins again by itself when it can reach the lead",
        )
    if not evidence.reached:
        return Finding(
            evidence.host,
            "machine",
            "the lead has seen nothing of it",
            "see whether the machine runs and flux.service on it does; see burst_lead_address and burst_lead_port",
        )
    return Finding(
        evidence.host, "overlay", "it is not online", "see journalctl -u flux on that machine"
    )
