# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The doctor names every fault, alone and beside every other one, says what it did not look at, and else is silent."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from ansible_collections.flux.burst.plugins.module_utils import _doctor
from ansible_collections.flux.burst.plugins.module_utils._doctor import Finding, Refused
from documented import TOP, role_options

NOW = 1_795_000_000.0
ROLE: list[str] = yaml.safe_load((TOP / "docs/iam-role.yaml").read_text())["includedPermissions"]
OPTIONS = role_options("burst")
LEAD = (
    "flux",
    "bootstrap",
    "version",
    "flux-security",
    "prefix",
    "owner",
    "certificate",
    "imp",
    "bind",
    "image version",
)
LEAD += ("hosts", "order", "R", "rank", "drained", "preflight", "lead port", "machine type")
HOST = ("lead", "clock", "munge", "munge key")
GOOGLE = (
    "image version",
    "permissions",
    "machine types",
    "machine type",
    "quota",
    "image",
    "network",
)


def file(path: str, mode: str, owner: str, **more: Any) -> dict[str, Any]:
    """A file as flux_lead_info tells of it."""
    made = {"path": path, "problem": "", "mode": mode, "owner": owner, "size": 128}
    return {**made, "changed": NOW - 7200, **more}


def rank(number: int, host: str) -> dict[str, Any]:
    return {"rank": number, "host": host, "cores": 2, "gpus": 0, "drain_reason": None}


def healthy() -> dict[str, Any]:
    """All that is read where all is right."""
    hosts = ["lead", "b-1", "b-2", "b-3"]
    machine = {"name": "n2-standard-4", "guestCpus": 4, "memoryMb": 16384}
    quota = [{"metric": metric, "limit": 24.0, "usage": 0.0} for metric in ("N2_CPUS", "INSTANCES")]
    image = {
        "name": "baked-2",
        "status": "READY",
        "deprecated": "",
        "disk_size_gb": 20,
        "architecture": "X86_64",
        "description": "Flux 0.88.0-1-gabc for burst t, from x",
    }
    return {
        "given": {
            "burst_project": "my-project",
            "burst_zones": ["us-central1-a"],
            "burst_hostlist": "b-[1-3]",
            "burst_machine_types": ["n2-standard-4"],
            "burst_image": "projects/my-project/global/images/family/baked",
            "burst_lead_address": "203.0.113.10",
            "burst_lead_port": 30093,
        },
        "leads": ["lead"],
        "missing": [],
        "from_here": None,
        "lead": {
            "time": NOW + 1,
            "munge": "",
            "munge_key": file("/etc/munge/munge.key", "0400", "munge"),
            "munge_started": NOW - 3600,
            "installed": {
                "version": "0.88.0",
                "security_version": "0.15.0",
                "exec_path": "/usr/libexec/flux/cmd",
                "module_path": "/usr/lib/flux/modules",
            },
            "broker": "",
            "identity": {
                "rank": 0,
                "version": "0.88.0",
                "security_version": "0.15.0",
                "uid": 1004,
                "user": "flux",
                "hosts": hosts,
                "bootstrap": {
                    "hosts": [{"host": "lead", "bind": "tcp://eth0:8050"}, {"host": "b-[1-3]"}],
                    "curve_cert": "/etc/flux/system/curve.cert",
                },
                "imp": "/usr/libexec/flux/flux-imp",
                "plugin_path": "/usr/lib/flux/shell/plugins",
                "started": NOW - 3600,
            },
            "certificate": file("/etc/flux/system/curve.cert", "0600", "flux"),
            "imp": file("/usr/libexec/flux/flux-imp", "4755", "root"),
            "ranks": [rank(number, host) for number, host in enumerate(hosts)],
            "ranks_problem": "",
            "port": "",
        },
        "google": {
            "credentials": "service account a@b (key.json)",
            "project": "my-project",
            "permissions": ROLE,
            "machine types": {"us-central1-a": {"n2-standard-4": machine}},
            "quota": {"": [], "us-central1": quota},
            "machines": [],
            "image": [image],
        },
    }


def examined(world: dict[str, Any]) -> list[Finding]:
    """What the doctor finds."""
    spec, problems = _doctor.known(world["given"], OPTIONS)
    facts = _doctor.Facts(
        spec=spec,
        problems=problems,
        lead=world["lead"],
        now=NOW,
        leads=world["leads"],
        google=world["google"],
        missing=world["missing"],
        permissions=ROLE,
        from_here=world["from_here"],
    )
    return _doctor.examine(facts)


@dataclass(frozen=True)
class Fault:
    """What is done to a world, which check must name it, in which words, and which checks it hides."""

    name: str
    check: str
    said: str
    inject: Callable[[dict[str, Any]], Any]
    hides: tuple[str, ...] = ()


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one thing, however deep, where the fault before has left something to set it in."""

    def inject(world: dict[str, Any]) -> None:
        place: Any = world
        try:
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
        except (LookupError, TypeError):
            pass

    return inject


def each_rank(host: str, **changed: Any) -> Callable[[dict[str, Any]], None]:
    """Change what R says of a host, or of all whose names begin so."""

    def inject(world: dict[str, Any]) -> None:
        for row in world["lead"].get("ranks", []):
            if row["host"].startswith(host):
                row.update(changed)

    return inject


def dropped(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Take a host out of a list of the lead's: its name, or its row."""

    def inject(world: dict[str, Any]) -> None:
        place, host = world["lead"], path[-1]
        for key in path[:-2]:
            place = place.get(key, {})
        rows = place.get(path[-2], [])
        rows[:] = [
            row
            for row in rows
            if host not in (row, row.get("host", "") if isinstance(row, dict) else "")
        ]

    return inject


def reordered(world: dict[str, Any]) -> None:
    if world["given"]["burst_hostlist"] == "b-[1-3]":
        world["given"]["burst_hostlist"] = "b-2,b-1,b-3"


def swapped(world: dict[str, Any]) -> None:
    for row in world["lead"].get("ranks", []):
        row["rank"] = {1: 2, 2: 1}.get(row["rank"], row["rank"])


def without_bind(world: dict[str, Any]) -> None:
    for entry in world["lead"].get("identity", {}).get("bootstrap", {}).get("hosts", []):
        entry.pop("bind", None)


def old_flux(world: dict[str, Any]) -> None:
    put("lead", "identity", "version", value="0.70.0")(world)
    put("lead", "installed", "version", value="0.70.0")(world)
    put("google", "image", 0, "description", value="")(world)


def owned(uid: int, user: str) -> Callable[[dict[str, Any]], None]:
    """Let the instance be another user's, and its certificate too."""

    def inject(world: dict[str, Any]) -> None:
        put("lead", "identity", "uid", value=uid)(world)
        put("lead", "identity", "user", value=user)(world)
        put("lead", "certificate", "owner", value=user or str(uid))(world)

    return inject


def without_permission(world: dict[str, Any]) -> None:
    if isinstance(world["google"].get("permissions"), list):
        rest = [name for name in ROLE if name != "compute.instances.create"]
        world["google"]["permissions"] = rest


def unreachable(world: dict[str, Any]) -> None:
    world["lead"] = {"unreachable": True, "msg": "Permission denied"}


def flux_down(world: dict[str, Any]) -> None:
    said = "wanted a Flux broker at local:///run/flux/local, found no socket there: start flux."
    down = {"broker": said, "identity": {}, "ranks": [], "ranks_problem": said}
    world["lead"].update(down, certificate={}, imp={})


def without_credentials(world: dict[str, Any]) -> None:
    said = (
        "wanted Google credentials in key.json, found 'No such file': set burst_credentials_file."
    )
    world["google"] = {"credentials": Refused(said, 401)}


def another_project(world: dict[str, Any]) -> None:
    said = "wanted to read projects/x from Compute Engine, found HTTP 404 (not found): check burst_project."
    world["google"] = {
        "credentials": world["google"]["credentials"],
        "project": Refused(said, 404),
        "permissions": Refused("wanted x, found HTTP 403 (no): y.", 403),
    }


def refused(name: str, permission: str) -> Callable[[dict[str, Any]], None]:
    said = (
        f"wanted to read x from Compute Engine, found HTTP 403 forbidden (Required '{permission}' permission): "
        f"give service account a@b (key.json) {permission} (in roles/compute.viewer)."
    )
    return put("google", name, value=Refused(said, 403))


def of_lead(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    return put("lead", *path, value=value)


BROKER = tuple(
    name for name in LEAD if name not in ("flux", "prefix", "imp", "lead port", "bootstrap")
)
FAULTS = [
    Fault("no ssh", "controller", "no ssh", put("missing", value=["ssh"])),
    Fault(
        "a port that is none",
        "specification",
        "burst_lead_port, found 99999",
        put("given", "burst_lead_port", value=99999),
        ("lead port",),
    ),
    Fault(
        "no hostlist",
        "specification",
        "a Flux hostlist such as",
        put("given", "burst_hostlist", value="b-[1-"),
        ("hosts", "order", "R", "rank", "drained", "preflight", "machine type", "quota"),
    ),
    Fault("two leads", "inventory", "a, b", put("leads", value=["a", "b"]), (*HOST, *LEAD)),
    Fault("no way to the lead", "lead", "Permission denied", unreachable, (*HOST, *LEAD)),
    Fault("a clock behind", "clock", "600 s behind", of_lead("time", value=NOW - 600)),
    Fault(
        "munge down",
        "munge",
        "Did you start munged",
        of_lead("munge", value="(Did you start munged?)"),
    ),
    Fault(
        "no munge key",
        "munge key",
        "No such file",
        of_lead("munge_key", "problem", value="No such file"),
    ),
    Fault(
        "an open munge key", "munge key", "mode 0644", of_lead("munge_key", "mode", value="0644")
    ),
    Fault("a munge key cut short", "munge key", "found 3", of_lead("munge_key", "size", value=3)),
    Fault(
        "a new munge key",
        "munge key",
        "after munged started",
        of_lead("munge_key", "changed", value=NOW),
    ),
    Fault("flux down", "flux", "no socket there", flux_down, LEAD),
    Fault("a worker for the lead", "flux", "rank 1", of_lead("identity", "rank", value=1), LEAD),
    Fault(
        "no bootstrap hosts",
        "bootstrap",
        "hosts in [bootstrap]",
        of_lead("identity", "bootstrap", "hosts", value=[]),
        BROKER,
    ),
    Fault("an old Flux", "version", "0.70.0", old_flux),
    Fault(
        "no security", "flux-security", "without", of_lead("identity", "security_version", value="")
    ),
    Fault(
        "another Flux", "prefix", "one of 0.61.0", of_lead("installed", "version", value="0.61.0")
    ),
    Fault("no flux", "prefix", "root's PATH", of_lead("installed", "version", value="")),
    Fault(
        "another libdir",
        "prefix",
        "/usr/lib64/flux",
        of_lead("installed", "module_path", value="/usr/lib64/flux/modules"),
    ),
    Fault("root's instance", "owner", "found root", owned(0, "root")),
    Fault("no such user", "owner", "uid 1004", owned(1004, "")),
    Fault(
        "no certificate",
        "certificate",
        "No such file",
        of_lead("certificate", "problem", value="No such file"),
    ),
    Fault(
        "an open certificate",
        "certificate",
        "mode 0644",
        of_lead("certificate", "mode", value="0644"),
    ),
    Fault(
        "nobody's certificate",
        "certificate",
        "nobody's",
        of_lead("certificate", "owner", value="nobody"),
    ),
    Fault(
        "a new certificate",
        "certificate",
        "after the broker started",
        of_lead("certificate", "changed", value=NOW),
    ),
    Fault("no IMP", "imp", "No such file", of_lead("imp", "problem", value="No such file")),
    Fault("an IMP without setuid", "imp", "mode 0755", of_lead("imp", "mode", value="0755")),
    Fault("no bind", "bind", "set bind", without_bind),
    Fault("a host not declared", "hosts", "b-3", dropped("identity", "hosts", "b-3")),
    Fault("a host not in R", "R", "b-2", dropped("ranks", "b-2")),
    Fault(
        "no R",
        "R",
        "EPROTO",
        of_lead("ranks_problem", value="wanted R, found EPROTO: see flux dmesg."),
    ),
    Fault(
        "a hostlist in another order",
        "order",
        "b-2 before b-1",
        reordered,
    ),
    Fault("another order", "rank", "b-1 to have rank 1", swapped),
    Fault("a drained host", "drained", "b-1 (broken)", each_rank("b-1", drain_reason="broken")),
    Fault(
        "the port closed",
        "lead port",
        "a firewall drops it",
        of_lead("port", value="no answer within 5 s: a firewall drops it"),
    ),
    Fault(
        "no credentials", "credentials", "No such file", without_credentials, ("project", *GOOGLE)
    ),
    Fault("another project", "project", "HTTP 404", another_project, GOOGLE),
    Fault("no permission", "permissions", "no compute.instances.create", without_permission),
    Fault(
        "quotas not shown", "quota", "compute.regions.get", refused("quota", "compute.regions.get")
    ),
    Fault(
        "another machine type",
        "machine types",
        "e3-none",
        put("given", "burst_machine_types", value=["n2-standard-4", "e3-none"]),
    ),
    Fault("fewer cores than R", "machine type", "4 cores", each_rank("b-", cores=4)),
    Fault(
        "no quota",
        "quota",
        "12 N2_CPUS",
        put(
            "google",
            "quota",
            value={"us-central1": [{"metric": "N2_CPUS", "limit": 4.0, "usage": 0.0}]},
        ),
    ),
    Fault("no image", "image", "found none", put("google", "image", value=[]), ("image version",)),
    Fault(
        "an image taken back",
        "image",
        "baked-2 OBSOLETE",
        put("google", "image", 0, "deprecated", value="OBSOLETE"),
        ("image version",),
    ),
    Fault(
        "an image of Arm",
        "image",
        "ARM64",
        put("google", "image", 0, "architecture", value="ARM64"),
        ("image version",),
    ),
    Fault(
        "an image with another Flux",
        "image version",
        "0.79.0",
        put("google", "image", 0, "description", value="Flux 0.79.0 for burst t"),
    ),
    Fault(
        "a larger image",
        "image",
        "burst_disk_size_gb 20",
        put("google", "image", 0, "disk_size_gb", value=50),
        ("image version",),
    ),
]
PAIRS = list(itertools.combinations(FAULTS, 2))


def sick(*faults: Fault) -> list[Finding]:
    """What the doctor finds where these are there together."""
    world = copy.deepcopy(healthy())
    for fault in faults:
        fault.inject(world)
    return examined(world)


def wrong(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.ok is False}


def named(fault: Fault, findings: list[Finding]) -> bool:
    return any(
        row.check == fault.check
        and row.ok is False
        and row.remedy
        and fault.said in f"wanted {row.wanted}, found {row.found}: {row.remedy}"
        for row in findings
    )


def hidden(fault: Fault, other: Fault) -> bool:
    return fault.check in other.hides and fault.check != other.check


def test_the_doctor_is_silent_where_all_is_right() -> None:
    findings = sick()
    assert [row for row in findings if row.ok is not True or row.wanted or row.remedy] == []
    assert [row.check for row in findings] == [check.name for check in _doctor.CHECKS]
    assert _doctor.is_right(findings)
    assert _doctor.summary(findings) == f"{len(_doctor.CHECKS)} checks are right"
    assert all(line.startswith("right  ") for line in _doctor.table(findings))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_is_named_alone_and_nothing_else_is(fault: Fault) -> None:
    findings = sick(fault)
    assert wrong(findings) == {fault.check}, findings
    assert named(fault, findings), findings
    unseen = {row.check for row in findings if row.ok is None}
    assert unseen == set(fault.hides) - {fault.check}
    assert not _doctor.is_right(findings)


def test_each_pair_of_faults_is_named_or_it_is_said_what_was_not_looked_at() -> None:
    assert len(FAULTS) > 20
    for first, second in PAIRS:
        findings = sick(first, second)
        both = f"{first.name} and {second.name}: {_doctor.table(findings)}"
        seen = [
            fault for fault, other in ((first, second), (second, first)) if not hidden(fault, other)
        ]
        assert seen, both
        assert wrong(findings) == {fault.check for fault in seen}, both
        # Of two faults of one thing the second may have undone the first.
        together = [named(fault, findings) for fault in seen]
        assert any(together) if first.check == second.check else all(together), both
        for fault in {first.name: first, second.name: second}.values():
            if fault not in seen:
                rows = [row for row in findings if row.check == fault.check]
                assert all(row.found.startswith("not looked at, because ") for row in rows), both


def test_every_check_is_put_to_the_test() -> None:
    made = {check.name for check in _doctor.CHECKS}
    assert {fault.check for fault in FAULTS} | {"network", "preflight"} == made


def test_what_the_preflight_learns_to_compare_is_told_as_its() -> None:
    world = healthy()
    known = [check.name for check in _doctor.CHECKS]
    assert "topology" not in known
    spec, problems = _doctor.known(world["given"], OPTIONS)
    facts = _doctor.Facts(spec=spec, problems=problems, lead=world["lead"], now=NOW, leads=["lead"])
    facts.__dict__["preflight"] = {"topology": ["topology: wanted a, found b: do c"]}
    (found,) = [row for row in _doctor.examine(facts) if row.check == "preflight"]
    assert found == Finding("preflight", False, "a", "b", "do c")


@pytest.mark.parametrize(
    ("changed", "permission"),
    [
        ({"burst_nat_addresses": 1}, "compute.addresses.create"),
        ({"burst_tags": ["hpc"]}, "compute.instances.setTags"),
        ({"burst_service_account": "a@b"}, "compute.instances.setServiceAccount"),
        ({"burst_compact": True}, "compute.resourcePolicies.create"),
        ({"burst_ssh_via": "external"}, "compute.subnetworks.useExternalIp"),
        ({"burst_os_login": True}, "compute.instances.osAdminLogin"),
    ],
)
def test_a_permission_is_needed_with_its_option_only(
    changed: dict[str, Any], permission: str
) -> None:
    spec = _doctor.known(healthy()["given"], OPTIONS)[0]
    assert permission not in _doctor.needed(ROLE, spec)
    assert permission in _doctor.needed(ROLE, {**spec, **changed})


def test_a_subnetwork_of_another_project_takes_none_of_the_network_s_permissions() -> None:
    spec = _doctor.known(healthy()["given"], OPTIONS)[0]
    shared = {**spec, "burst_subnetwork": "projects/host/regions/us-central1/subnetworks/hpc"}
    gone = set(_doctor.needed(ROLE, spec)) - set(_doctor.needed(ROLE, shared))
    assert {"compute.networks.create", "compute.firewalls.get", "compute.subnetworks.use"} <= gone
    assert "compute.subnetworks.use" in _doctor.needed(ROLE, {**spec, "burst_subnetwork": "hpc"})


def test_a_port_that_only_reserved_addresses_may_reach_is_not_called_closed() -> None:
    world = healthy()
    world["given"]["burst_nat_addresses"] = 1
    world["lead"]["port"] = "no answer within 5 s: a firewall drops it"
    (found,) = [row for row in examined(world) if row.check == "lead port"]
    assert found.ok is None and "203.0.113.10:30093" in found.remedy
    world["lead"]["port"] = "the connection refused: nothing listens"
    assert wrong(examined(world)) == {"lead port"}


def test_a_port_that_the_controller_reaches_is_open_although_the_lead_does_not() -> None:
    world = healthy()
    world["lead"]["port"], world["from_here"] = "no answer within 5 s: x", ""
    assert wrong(examined(world)) == set()


def test_machines_that_stand_already_take_no_more_quota() -> None:
    world = healthy()
    world["google"]["quota"] = {"": [{"metric": "N2_CPUS", "limit": 12.0, "usage": 12.0}]}
    world["google"]["machines"] = ["b-1", "b-2", "b-3"]
    assert wrong(examined(world)) == set()
    world["google"]["machines"] = ["b-1", "b-2"]
    assert wrong(examined(world)) == {"quota"}


def test_who_may_not_read_an_image_may_boot_it_all_the_same() -> None:
    world = healthy()
    refused("image", "compute.images.list")(world)
    (found,) = [row for row in examined(world) if row.check == "image"]
    assert found.ok is None and "compute.images.list" in found.found


def test_a_subnetwork_of_the_site_that_does_not_do_is_told() -> None:
    world = healthy()
    world["given"]["burst_subnetwork"] = "hpc"
    said = "wanted subnetwork hpc, found none: correct burst_subnetwork."
    world["google"]["network"] = Refused(said, 404)
    assert named(Fault("x", "network", "found none", swapped), examined(world))
    world["google"]["network"] = ["it has no NAT"]
    assert [row.found for row in examined(world) if row.check == "network"] == ["it has no NAT"]


def test_the_table_says_what_is_wrong_and_what_to_do() -> None:
    findings = [
        Finding("clock", False, "a", "b", "do c"),
        Finding("munge key", True, found="fine"),
        Finding("flux", None, found="not looked at, because of lead"),
    ]
    assert _doctor.table(findings) == [
        "WRONG  clock      wanted a, found b",
        "                  -> do c",
        "right  munge key  fine",
        "?      flux       not looked at, because of lead",
    ]
    said = "1 are wrong: clock; 1 checks are right; 1 could not be made: flux"
    assert _doctor.summary(findings) == said
