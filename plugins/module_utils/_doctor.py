# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is right and what is wrong with a burst before it is made, all of it at once. Nothing here asks anybody."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _file_checks,
    _gce_image,
    _gce_place,
    _gce_types,
    _preflight,
    _spec,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import FORBIDDEN, role
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand, fold

TOLD = re.compile(r"(?:stage \w+: )?(?:[\w./ -]+: )?wanted (.+?), found (.+): (.+?)\.?", re.DOTALL)
SPEC_TOLD = re.compile(r"\w+: wanted (.+?), found (.+)", re.DOTALL)
CORRECT = "correct it in the inventory (group_vars/all.yml)"
# munge and the broker read their file when they start; what is a moment younger was written for that start.
MOMENT = 2.0
SHORT = 20
OBSOLETE = ("OBSOLETE", "DELETED")
FLUX_OF_IMAGE = re.compile(r"Flux (\d+\.\d+\.\d+)\S* for burst ")
"""How our own images' descriptions begin."""
UNSEEN = "not looked at, because"
TIMEOUT = "no answer within"


@dataclass(frozen=True)
class Finding:
    """What one check found: ok is None where it could not be made, and `found` says why."""

    check: str
    ok: bool | None
    wanted: str = ""
    found: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Refused:
    """Something that Google did not tell, in the words of a GceError; status is that of HTTP, 0 without one."""

    said: str
    status: int = 0


@dataclass(frozen=True)
class Facts:
    """All that was read.

    spec is the specification as far as it is right, with defaults elsewhere, problems what is not right, a line each.
    leads are the hosts of group flux_lead, lead is what flux_lead_info returned for the first of them, or how it was
    not run. google holds what Google told, by the name of the check, or a Refused; what was not asked is not in it.
    missing is what the controller lacks, permissions are those of the documented role, from_here is what is wrong with
    the lead's port as seen from the controller (None where it did not look), and now its clock.
    """

    spec: Mapping[str, Any]
    lead: Mapping[str, Any]
    now: float
    problems: Sequence[str] = ()
    leads: Sequence[str] = ()
    google: Mapping[str, Any] = field(default_factory=dict)
    missing: Sequence[str] = ()
    permissions: Sequence[str] = ()
    from_here: str | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the broker says of itself."""
        found: Mapping[str, Any] = self.lead["identity"]
        return found

    @cached_property
    def hosts(self) -> list[str]:
        """The machines that a burst may boot."""
        return expand(self.spec["burst_hostlist"])

    @cached_property
    def faulty(self) -> set[str]:
        """The variables that are wrong."""
        return {line.partition(":")[0] for line in self.problems}

    @property
    def types(self) -> dict[str, Mapping[str, Any]]:
        """The REST resources of the machine types that some zone has."""
        by_zone: Mapping[str, Mapping[str, Mapping[str, Any]]] = self.google["machine types"]
        return {name: row for rows in by_zone.values() for name, row in rows.items()}

    @cached_property
    def preflight(self) -> dict[str, list[str]]:
        """What burst.yml would find on the lead, by what it concerns."""
        types = self.google.get("machine types", {})
        known = [] if isinstance(types, Refused) or not types else list(self.types.values())
        hosts = self.hosts if "burst_hostlist" not in self.faulty else []
        lines = _preflight.differences(
            hosts,
            {**self.identity, "munge": "", "time": self.now},
            self.lead["ranks"],
            [_gce_types.machine_type(row, {}, "") for row in known],
            self.now,
            hosts[0] if hosts and self.spec["burst_topology"] == "gateway" else "",
        )
        found: dict[str, list[str]] = {}
        for line in lines:
            found.setdefault(line.partition(":")[0], []).append(line)
        return found


def known(given: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a specification as far as it is right, with defaults elsewhere, and a line for each thing that is not."""
    made, problems = _spec.examined(given, options)
    faulty = {line.partition(":")[0] for line in problems}
    usual = {name: option.get("default") for name, option in options.items()}
    return {
        **usual,
        **{name: value for name, value in made.items() if name not in faulty},
    }, problems


Look = Callable[[Facts], Iterator[Finding]]


@dataclass(frozen=True)
class Check:
    """One check: look yields what is wrong, and nothing where all is right, which `right` says in words.

    It is made where the checks of `needs` found nothing wrong, and where no variable of `variables` is.
    """

    name: str
    look: Look
    right: Callable[[Facts], str]
    needs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


def told(check: str, said: str, ok: bool | None = False) -> Finding:
    """Return an error message of ours, or a line of the preflight, as a finding."""
    text = " ".join(said.split())
    parts = TOLD.fullmatch(text)
    return Finding(check, ok, *parts.groups()) if parts else Finding(check, ok, found=text)


def wrong(check: str, wanted: str, found: str, remedy: str) -> Finding:
    """Return what is wrong."""
    return Finding(check, False, wanted, found, remedy)


def unseen(check: str, why: str, remedy: str = "") -> Finding:
    """Return that a check could not be made."""
    return Finding(check, None, found=f"{UNSEEN} {why}", remedy=remedy)


def examine(facts: Facts) -> list[Finding]:
    """Return what every check found, in the order of CHECKS."""
    findings: list[Finding] = []
    state: dict[str, bool | None] = {}
    for check in CHECKS:
        rows = list(_made(check, facts, state))
        findings += rows
        state[check.name] = all(row.ok for row in rows) or (
            None if all(row.ok is None for row in rows if not row.ok) else False
        )
    return findings


def _made(check: Check, facts: Facts, state: Mapping[str, bool | None]) -> Iterator[Finding]:
    blocked = next((name for name in check.needs if not state[name]), "")
    faulty = next((name for name in check.variables if name in facts.faulty), "")
    if blocked or faulty:
        yield unseen(check.name, f"{faulty} is wrong" if faulty else f"of {blocked}")
        return
    rows = list(check.look(facts))
    yield from rows or [Finding(check.name, True, found=check.right(facts))]


def is_right(findings: Sequence[Finding]) -> bool:
    """Return whether nothing is wrong; what could not be looked at is not wrong."""
    return all(finding.ok is not False for finding in findings)


def table(findings: Sequence[Finding]) -> list[str]:
    """Return the findings as lines for people: what is right, what is wrong, what to do."""
    width = max(len(finding.check) for finding in findings)
    words = {True: "right", False: "WRONG", None: "?    "}
    lines = []
    for row in findings:
        said = f"wanted {row.wanted}, found {row.found}" if row.wanted else row.found
        lines.append(f"{words[row.ok]}  {row.check:{width}}  {said}".rstrip())
        if row.remedy:
            lines.append(f"       {'':{width}}  -> {row.remedy}")
    return lines


def summary(findings: Sequence[Finding]) -> str:
    """Return the findings as one line."""
    names = {
        ok: list(dict.fromkeys(row.check for row in findings if row.ok is ok))
        for ok in (True, False, None)
    }
    parts = [f"{len(names[True])} checks are right"]
    if names[False]:
        parts.insert(0, f"{len(names[False])} are wrong: {', '.join(names[False])}")
    if names[None]:
        parts.append(f"{len(names[None])} could not be made: {', '.join(names[None])}")
    return "; ".join(parts)


def shown(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as a module returns them."""
    return [asdict(finding) for finding in findings]


# The controller, the specification, the inventory.


def _controller(facts: Facts) -> Iterator[Finding]:
    if facts.missing:
        yield wrong(
            "controller",
            "what the collection imports and runs",
            f"no {', no '.join(facts.missing)}",
            "pip install -r requirements.txt, and install OpenSSH's client",
        )


def _specification(facts: Facts) -> Iterator[Finding]:
    for line in facts.problems:
        parts = SPEC_TOLD.fullmatch(line)
        name = line.partition(":")[0]
        wanted, found = parts.groups() if parts else ("one that is right", line)
        yield wrong("specification", f"{wanted} for {name}", found, CORRECT)


def _inventory(facts: Facts) -> Iterator[Finding]:
    if len(facts.leads) != 1:
        yield wrong(
            "inventory",
            "the lead broker's host and nothing else in group flux_lead",
            ", ".join(facts.leads) or "no host",
            "name it in the inventory",
        )


# The lead.


def _lead(facts: Facts) -> Iterator[Finding]:
    if "munge_key" not in facts.lead:
        said = " ".join(str(facts.lead.get("msg", "that nothing was read")).split())
        remedy = "see that 'ansible flux_lead -b -m ping' works"
        yield wrong("lead", f"{facts.leads[0]} reached, and root there", f"'{said}'", remedy)


def _flux(facts: Facts) -> Iterator[Finding]:
    if facts.lead["broker"]:
        yield told("flux", facts.lead["broker"])
    elif facts.identity["rank"] != 0:
        yield wrong(
            "flux",
            "the lead broker (rank 0)",
            f"rank {facts.identity['rank']}",
            "put the lead's host into the inventory group flux_lead",
        )


def _bootstrap(facts: Facts) -> Iterator[Finding]:
    for key in ("hosts", "curve_cert"):
        if not facts.identity["bootstrap"].get(key):
            yield wrong(
                "bootstrap",
                f"{key} in [bootstrap] of the lead's configuration",
                "none",
                "a machine joins only where the lead lists it in hosts and shares a certificate with it",
            )


def _preflighted(name: str) -> Look:
    def look(facts: Facts) -> Iterator[Finding]:
        for line in facts.preflight.get(name, []):
            yield told(name, line)

    return look


def _others(facts: Facts) -> Iterator[Finding]:
    """Yield what the preflight compares and no other check here does."""
    known = {check.name for check in CHECKS}
    for name, lines in facts.preflight.items():
        for line in lines if name not in known else []:
            yield told("preflight", line)


def _owner(facts: Facts) -> Iterator[Finding]:
    if not facts.identity["user"]:
        uid = facts.identity["uid"]
        yield wrong(
            "owner",
            f"a user with uid {uid}, which owns the instance",
            "none on the lead",
            "add it to the lead's passwd, as the bursted machines get it too",
        )
    yield from _preflighted("owner")(facts)


def _prefix(facts: Facts) -> Iterator[Finding]:
    """What the command says of its paths is what machines are compared with, so it must be the broker's own."""
    host, broker = facts.lead["installed"], facts.identity
    if not host["version"]:
        yield wrong(
            "prefix", "a flux command on the lead", "none", "put Flux's bin into root's PATH"
        )
        return
    if host["version"] != broker["version"]:
        yield wrong(
            "prefix",
            f"the flux command of the lead's broker ({broker['version']}) first in root's PATH",
            f"one of {host['version']}",
            "remove the other Flux, or restart the lead with that one",
        )
    library = host["module_path"].rpartition("/")[0]
    if broker["plugin_path"] and broker["plugin_path"].partition("/shell/")[0] != library:
        yield wrong(
            "prefix",
            f"the flux command's library directory {library}",
            f"the broker's shell plugins in {broker['plugin_path']}",
            "remove the other Flux, or restart the lead with that one",
        )


def _host(name: str) -> Look:
    def look(facts: Facts) -> Iterator[Finding]:
        lead = facts.lead
        for line in _preflight.host_differences(lead["munge"], lead["time"], facts.now):
            if line.startswith(f"{name}:"):
                yield told(name, line)

    return look


def _unusable(check: str, file: Mapping[str, Any], what: str, remedy: str) -> Iterator[Finding]:
    if file["problem"]:
        yield wrong(check, f"{what} at {file['path']}", f"'{file['problem']}'", remedy)


def _munge_key(facts: Facts) -> Iterator[Finding]:
    key, name = facts.lead["munge_key"], "munge key"
    if key["problem"]:
        yield from _unusable(name, key, "a munge key", "set lead_munge_key, or make one")
        return
    if key["size"] not in _file_checks.MUNGE_KEY_BYTES:
        sizes = _file_checks.MUNGE_KEY_BYTES
        wanted = f"{sizes.start} to {sizes.stop - 1} bytes in {key['path']}"
        yield wrong(name, wanted, str(key["size"]), "make a new key by mungekey, for all nodes")
    if int(key["mode"], 8) & _file_checks.MUNGE_OTHERS:
        wanted = f"{key['path']} closed to group and others, or munged does not start again"
        yield wrong(name, wanted, f"mode {key['mode']}", f"chmod 0400 {key['path']}")
    started = facts.lead["munge_started"]
    if started is not None and key["changed"] > started + MOMENT:
        yield wrong(
            name,
            f"the key that munged runs with in {key['path']}",
            "one that was written after munged started, which machines would get",
            "restart munge on all nodes of the lead's cluster, or put the former key back",
        )


def _certificate(facts: Facts) -> Iterator[Finding]:
    file, name = facts.lead["certificate"], "certificate"
    if file["problem"]:
        yield from _unusable(
            name, file, "a curve certificate", "put it back, or make one by flux keygen"
        )
        return
    if int(file["mode"], 8) & _file_checks.OTHERS:
        wanted = f"{file['path']} closed to group and others, or the broker does not start again"
        yield wrong(name, wanted, f"mode {file['mode']}", f"chmod 0600 {file['path']}")
    owner = facts.identity["user"] or str(facts.identity["uid"])
    if file["owner"] != owner:
        yield wrong(
            name,
            f"{file['path']} of {owner}, who owns the instance",
            f"{file['owner']}'s",
            f"chown {owner} {file['path']}",
        )
    started = facts.identity["started"]
    if started is not None and file["changed"] > started + MOMENT:
        yield wrong(
            name,
            f"the certificate that the broker runs with in {file['path']}",
            "one that was written after the broker started, which machines would get",
            "restart the lead, or put the former certificate back",
        )


def _imp(facts: Facts) -> Iterator[Finding]:
    imp, path = facts.lead["imp"], facts.identity["imp"]
    if not path:
        return
    if imp["problem"]:
        yield from _unusable(
            "imp", imp, "the IMP of [exec]", "install flux-security, or correct exec.imp"
        )
    elif imp["owner"] != "root" or not int(imp["mode"], 8) & 0o4000:
        found = f"mode {imp['mode']} of {imp['owner']}"
        yield wrong("imp", f"{path} setuid root", found, f"chown root {path} && chmod 4755 {path}")


def _order(facts: Facts) -> Iterator[Finding]:
    """A hostlist in another order is read as it stands: who writes so takes ranks for others."""
    places = {name: place for place, name in enumerate(facts.identity["hosts"])}
    declared = [host for host in facts.hosts if host in places]
    for before, after in itertools.pairwise(declared):
        if places[before] > places[after]:
            right = ",".join(sorted(declared, key=places.__getitem__))
            yield wrong(
                "order",
                "burst_hostlist in the order of the lead's hosts",
                f"{before} before {after}",
                f"set burst_hostlist to {right if len(declared) < SHORT else 'that order'}",
            )
            return


def _ranks(facts: Facts) -> Iterator[Finding]:
    if facts.lead["ranks_problem"]:
        yield told("R", facts.lead["ranks_problem"])
    yield from _preflighted("R")(facts)


def _drained(facts: Facts) -> Iterator[Finding]:
    rows = [
        row
        for row in facts.lead["ranks"]
        if row["host"] in facts.hosts and row["drain_reason"] is not None
    ]
    if rows:
        names = fold(row["host"] for row in rows)
        reasons = ", ".join(sorted({row["drain_reason"] or "no reason" for row in rows}))
        yield wrong(
            "drained",
            "no host of burst_hostlist drained, as no job would run there",
            f"{names} ({reasons})",
            f"flux resource undrain {names}",
        )


def _machine_type(facts: Facts) -> Iterator[Finding]:
    types = facts.google.get("machine types")
    if not types or isinstance(types, Refused) or not facts.types:
        yield unseen("machine type", "it is not known what a machine has")
        return
    yield from _preflighted("machine type")(facts)


def _port(facts: Facts) -> Iterator[Finding]:
    """Whether machines at Google get through they alone can tell; the lead tries its address, and the controller."""
    seen = {"the lead itself": facts.lead["port"], "the controller": facts.from_here}
    tried = {place: said for place, said in seen.items() if said is not None}
    if "" in tried.values():
        return
    where = _address(facts)
    timeouts = all(said.startswith(TIMEOUT) for said in tried.values())
    if timeouts and facts.spec["burst_nat_addresses"]:
        yield unseen(
            "lead port",
            "a firewall that lets the burst's reserved addresses alone in drops all others",
            f"burst.yml looks from each machine; let them in at {where}",
        )
        return
    yield wrong(
        "lead port",
        f"a broker's CURVE greeting at {where}",
        "; from ".join(f"{said} (from {place})" for place, said in tried.items()),
        "correct burst_lead_address and burst_lead_port, or open that port in the lead's firewall, NodePort or NAT",
    )


def _address(facts: Facts) -> str:
    return f"{facts.spec['burst_lead_address']}:{facts.spec['burst_lead_port']}"


# Google.


def _asked(name: str) -> Look:
    """Say why something was not told, and nothing where it was."""

    def look(facts: Facts) -> Iterator[Finding]:
        answer = facts.google.get(name)
        if answer is None:
            yield unseen(name, "Google was not asked")
        elif isinstance(answer, Refused):
            yield told(name, answer.said)

    return look


def _permissions(facts: Facts) -> Iterator[Finding]:
    answer = facts.google.get("permissions")
    if answer is None or isinstance(answer, Refused):
        why = f"'{answer.said}'" if answer else "Google was not asked"
        advice = "enable the API (gcloud services enable cloudresourcemanager.googleapis.com)"
        yield unseen("permissions", why, advice if answer else "")
        return
    missing = [name for name in needed(facts.permissions, facts.spec) if name not in answer]
    if missing:
        roles = ", ".join(dict.fromkeys(map(role, missing)))
        yield wrong(
            "permissions",
            f"those of docs/iam-role.yaml for {facts.google['credentials']}",
            f"no {', no '.join(missing)}",
            f"give it that role again (docs/security.md), or {roles}",
        )


def needed(permissions: Sequence[str], spec: Mapping[str, Any]) -> list[str]:
    """Return which permissions of the documented role, and beside it, a specification needs in its project."""
    found = [
        name
        for name in permissions
        if all(when(spec) for pattern, when in OPTIONAL.items() if re.fullmatch(pattern, name))
    ]
    return [*found, LOGIN] if spec["burst_os_login"] else found


def own_subnetwork(spec: Mapping[str, Any]) -> bool:
    """Return whether the subnetwork lies in the burst's own project."""
    for name in ("burst_subnetwork", "burst_network"):
        found = re.search(r"projects/([^/]+)/", spec[name] or "")
        if found:
            return bool(found[1] == spec["burst_project"])
    return True


LOGIN = "compute.instances.osAdminLogin"
NETWORK = (
    r"compute\.((networks|routers|firewalls|addresses)\.(get|create|update\w*|delete)"
    r"|subnetworks\.(create|delete|setPrivateIpGoogleAccess)|globalOperations\.get)"
)
OPTIONAL: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    NETWORK: lambda spec: not spec["burst_subnetwork"],
    r"compute\.addresses\.(create|use|delete)": lambda spec: spec["burst_nat_addresses"],
    r"compute\.instances\.setTags": lambda spec: spec["burst_tags"],
    r"compute\.instances\.setServiceAccount": lambda spec: spec["burst_service_account"],
    r"compute\.subnetworks\.useExternalIp": lambda spec: spec["burst_ssh_via"] == "external",
    r"compute\.subnetworks\.(use|get)": own_subnetwork,
    r"compute\.resourcePolicies\.(create|use|delete)": lambda spec: spec["burst_compact"],
    r"iap\..*": lambda spec: spec["burst_ssh_via"] in ("iap", "gateway"),
    # An image of another project needs it there.
    r"compute\.images\.useReadOnly": lambda spec: (
        spec["burst_image"].split("/")[1] == spec["burst_project"]
    ),
}
"""What of the role only some specifications need, as docs/iam-role.yaml says it line by line."""


def _machine_types(facts: Facts) -> Iterator[Finding]:
    unasked = list(_asked("machine types")(facts))
    yield from unasked
    if unasked:
        return
    missing = [name for name in facts.spec["burst_machine_types"] if name not in facts.types]
    if missing:
        zones = facts.spec["burst_zones"]
        yield wrong(
            "machine types",
            f"{', '.join(missing)} in zone {' or '.join(zones)}",
            "none",
            "choose other burst_machine_types or burst_zones (gcloud compute machine-types list "
            f"--zones {zones[0]} shows them)",
        )


def _quota(facts: Facts) -> Iterator[Finding]:
    unasked = list(_asked("quota")(facts))
    yield from unasked
    types = facts.google.get("machine types")
    if unasked:
        return
    if not types or isinstance(types, Refused) or not facts.types:
        yield unseen("quota", "it is not known what a machine takes of it")
        return
    spec, count = facts.spec, machines(facts)
    params = {
        "machine_types": spec["burst_machine_types"],
        "zones": spec["burst_zones"],
        "accelerator_type": spec["burst_accelerator_type"],
        "accelerator_count": spec["burst_accelerator_count"],
        "spot": spec["burst_spot"],
    }
    good, bad = _gce_place.places(params, count, types, facts.google["quota"])
    short = [row.error for row in bad if _gce_place.NO_QUOTA in row.codes]
    if not good and short:
        said = "; ".join(dict.fromkeys("; ".join(short).split("; ")))
        yield wrong(
            "quota",
            f"room for {count} machines of {', '.join(spec['burst_machine_types'])}",
            f"too little: {said}",
            "add zones or machine types, lower burst_max_hosts, or ask for more at "
            f"https://console.cloud.google.com/iam-admin/quotas?project={spec['burst_project']}",
        )


def machines(facts: Facts) -> int:
    """Return how many machines a burst may still create."""
    most = facts.spec["burst_max_hosts"] or len(facts.hosts)
    existing = facts.google.get("machines")
    there = [] if existing is None or isinstance(existing, Refused) else existing
    return max(min(most, len(facts.hosts)) - len(there), 0)


def _image(facts: Facts) -> Iterator[Finding]:
    answer, wanted = facts.google.get("image"), facts.spec["burst_image"]
    if isinstance(answer, Refused) and answer.status == FORBIDDEN:
        # To boot from one takes another permission than to read it.
        yield unseen("image", f"'{answer.said}'")
        return
    unasked = list(_asked("image")(facts))
    yield from unasked
    if unasked:
        return
    image = chosen(wanted, answer or [])
    if image is None or image["deprecated"] in OBSOLETE or image["status"] != "READY":
        found = f"it {image['deprecated'] or image['status']}" if image else _instead(answer)
        remedy = "make one (playbooks/image.yml), or correct burst_image"
        yield wrong("image", f"{wanted}, ready to boot from", found, remedy)
        return
    yield from _image_fits(facts, image)


def chosen(wanted: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the image that a machine would get, of the project's images of that name or family, the newest first."""
    newest = _gce_image.newest(rows) if "/family/" in wanted else wanted.rpartition("/")[2]
    return next((row for row in rows if row["name"] == newest), None)


def _instead(rows: Sequence[Mapping[str, Any]] | None) -> str:
    told = [f"{row['name']} {row['deprecated'] or row['status']}" for row in rows or ()]
    return f"only {', '.join(told)}" if told else "none"


def _image_fits(facts: Facts, image: Mapping[str, Any]) -> Iterator[Finding]:
    spec, name = facts.spec, image["name"]
    if image["disk_size_gb"] > spec["burst_disk_size_gb"]:
        yield wrong(
            "image",
            f"a boot disk of {image['disk_size_gb']} GB or more for {name}",
            f"burst_disk_size_gb {spec['burst_disk_size_gb']}",
            f"set burst_disk_size_gb to {image['disk_size_gb']}",
        )
    other = [
        kind
        for kind in spec["burst_machine_types"]
        if image["architecture"] and _gce_types.architecture(kind) != image["architecture"]
    ]
    if other:
        yield wrong(
            "image",
            f"one image for {', '.join(spec['burst_machine_types'])}",
            f"{name} of {image['architecture']}, which {', '.join(other)} cannot boot",
            "choose machine types of one architecture, and an image of it",
        )


def _flux_of(facts: Facts) -> str:
    """Return the version of Flux that the image has by its description, "" where that does not say it."""
    image = chosen(facts.spec["burst_image"], facts.google["image"])
    ours = FLUX_OF_IMAGE.match(image["description"]) if image else None
    return ours[1] if ours else ""


def _image_version(facts: Facts) -> Iterator[Finding]:
    version, found = facts.identity["version"], _flux_of(facts)
    if found and found.split(".")[:2] != version.split(".")[:2]:
        yield wrong(
            "image version",
            f"Flux {version} in the image, as on the lead",
            found,
            "make a new one (playbooks/image.yml)",
        )


def _network(facts: Facts) -> Iterator[Finding]:
    if facts.spec["burst_subnetwork"]:
        yield from _asked("network")(facts)


def _text(found: Callable[[Facts], Any]) -> Callable[[Facts], str]:
    return lambda facts: str(found(facts))


def _right_network(facts: Facts) -> str:
    if not facts.spec["burst_subnetwork"]:
        return f"the burst makes its own, {facts.spec['burst_subnet_cidr']}"
    return "; ".join(facts.google["network"]) or str(facts.spec["burst_subnetwork"])


def _right_image(facts: Facts) -> str:
    found = chosen(facts.spec["burst_image"], facts.google["image"]) or {}
    return str(found["name"])


def _right_clock(facts: Facts) -> str:
    return f"{abs(facts.lead['time'] - facts.now):.0f} s from the controller's"


def _mode(name: str) -> Callable[[Facts], str]:
    return lambda facts: (
        f"{facts.lead[name]['path']}, mode {facts.lead[name]['mode']}"
        if facts.lead[name]
        else "none configured"
    )


HOSTLIST = ("burst_hostlist",)
PLACE = ("burst_zones", "burst_machine_types")
ASKING = ("credentials", "project")
IN_FLUX = ("flux", "bootstrap")
CHECKS: tuple[Check, ...] = (
    Check("controller", _controller, lambda _facts: "has what the collection imports and runs"),
    Check("specification", _specification, lambda facts: f"{len(facts.spec)} variables"),
    Check("inventory", _inventory, lambda facts: f"{facts.leads[0]} is the lead"),
    Check("lead", _lead, lambda facts: f"{facts.leads[0]} is reached", ("inventory",)),
    Check("clock", _host("clock"), _right_clock, ("lead",)),
    Check("munge", _host("munge"), lambda _facts: "decodes what it encodes", ("lead",)),
    Check("munge key", _munge_key, _mode("munge_key"), ("lead",)),
    Check("flux", _flux, lambda facts: "the lead broker answers", ("lead",)),
    Check("bootstrap", _bootstrap, lambda facts: "hosts and curve_cert are set", ("flux",)),
    Check(
        "version",
        _preflighted("version"),
        _text(lambda facts: f"Flux {facts.identity['version']}"),
        IN_FLUX,
    ),
    Check(
        "flux-security",
        _preflighted("flux-security"),
        _text(lambda facts: facts.identity["security_version"]),
        IN_FLUX,
    ),
    Check(
        "prefix",
        _prefix,
        lambda facts: "{exec_path}, {module_path}".format(**facts.lead["installed"]),
        ("flux",),
    ),
    Check(
        "owner",
        _owner,
        lambda facts: "{user}, uid {uid}".format(**facts.identity),
        IN_FLUX,
    ),
    Check("certificate", _certificate, _mode("certificate"), IN_FLUX),
    Check("imp", _imp, _mode("imp"), ("flux",)),
    Check("bind", _preflighted("bind"), lambda _facts: "hosts[0] says where to listen", IN_FLUX),
    Check(
        "hosts",
        _preflighted("hosts"),
        _text(lambda facts: f"{facts.spec['burst_hostlist']} is in [bootstrap]"),
        IN_FLUX,
        HOSTLIST,
    ),
    Check("order", _order, lambda _facts: "as the lead's hosts", IN_FLUX, HOSTLIST),
    Check("R", _ranks, lambda _facts: "has every host of burst_hostlist", IN_FLUX, HOSTLIST),
    Check("rank", _preflighted("rank"), lambda _facts: "as in hosts", IN_FLUX, HOSTLIST),
    Check("drained", _drained, lambda _facts: "no host of burst_hostlist", IN_FLUX, HOSTLIST),
    Check("preflight", _others, lambda _facts: "burst.yml finds nothing else", IN_FLUX, HOSTLIST),
    Check(
        "lead port",
        _port,
        lambda facts: f"{_address(facts)} greets with CURVE",
        ("flux",),
        ("burst_lead_address", "burst_lead_port"),
    ),
    Check(
        "credentials",
        _asked("credentials"),
        _text(lambda facts: facts.google["credentials"]),
        (),
        ("burst_credentials_file", "burst_impersonate_service_account", "burst_compute_endpoint"),
    ),
    Check(
        "project",
        _asked("project"),
        _text(lambda facts: facts.google["project"]),
        ("credentials",),
        ("burst_project",),
    ),
    Check(
        "permissions",
        _permissions,
        lambda facts: f"all {len(needed(facts.permissions, facts.spec))} of docs/iam-role.yaml",
        ("credentials",),
        ("burst_project", "burst_image", "burst_ssh_via", "burst_resource_manager_endpoint"),
    ),
    Check(
        "machine types",
        _machine_types,
        _text(lambda facts: ", ".join(facts.spec["burst_machine_types"])),
        ASKING,
        PLACE,
    ),
    Check(
        "machine type",
        _machine_type,
        lambda _facts: "one has what R declares",
        (*IN_FLUX, *ASKING),
        (*HOSTLIST, *PLACE),
    ),
    Check(
        "quota",
        _quota,
        lambda facts: f"suffices for {machines(facts)} more machines",
        ASKING,
        (*HOSTLIST, *PLACE, "burst_max_hosts", "burst_spot", "burst_accelerator_type"),
    ),
    Check(
        "image",
        _image,
        _right_image,
        ASKING,
        ("burst_image", "burst_machine_types", "burst_disk_size_gb"),
    ),
    Check(
        "image version",
        _image_version,
        lambda facts: _flux_of(facts) or "it does not say; burst.yml compares on each machine",
        (*IN_FLUX, "image"),
    ),
    Check(
        "network",
        _network,
        _right_network,
        ASKING,
        ("burst_zones", "burst_subnetwork", "burst_network", "burst_subnet_cidr", "burst_tags"),
    ),
)
