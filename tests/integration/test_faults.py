# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults put into bursted machines with the real Flux: the status playbook names each with stage and cause.

Three machines carry one fault each at a time. FAULTS has every way in which a machine is known to fail a burst: what
keeps a broker from joining, what gets it drained, and what makes it a node that looks free and fails its jobs. Machines
share the controller's clock, so that of one munged is set back by a preloaded time(2); another version of Flux is a
broker whose own number was changed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from burst_sandbox import LEAD, PREPARED, Sandbox, bursting, flux_kinds, succeeded
from clock_behind import behind

pytestmark = pytest.mark.machines

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
CONF = "/etc/flux/system/conf.d/system.toml"
CERT = "/etc/flux/system/curve.cert"
IMP = "/usr/libexec/flux/flux-imp"
IMP_CONF = "/etc/flux/imp/conf.d/imp.toml"
SHELL = "/usr/libexec/flux/flux-shell"
BROKER = "/usr/libexec/flux/cmd/flux-broker"
UNIT = "/etc/systemd/system/flux.service"
GUEST = "fluxuser"
SAVED = "/root/saved"
SAVE = f"""
mkdir -p {SAVED}
cp -a /etc/flux /etc/munge/munge.key {IMP} {BROKER} {UNIT} {SAVED}/
cp -a /etc/systemd/system/flux.service.d {SAVED}/flux.service.d
cp -a /etc/passwd {SAVED}/passwd
hostname > {SAVED}/hostname
id -u flux > {SAVED}/uid
"""
RESTORE = f"""
systemctl stop flux munge
hostname "$(cat {SAVED}/hostname)"
usermod -u "$(cat {SAVED}/uid)" flux
rm -rf /etc/flux /etc/systemd/system/flux.service.d /run/systemd/system/munge.service.d
cp -a {SAVED}/passwd /etc/passwd
cp -a {SAVED}/flux.service {UNIT}
cp -a {SAVED}/flux.service.d /etc/systemd/system/
cp -a --remove-destination {SAVED}/flux-broker {BROKER}
test -e {SHELL} || mv {SHELL}.away {SHELL}
cp -a {SAVED}/flux /etc/
cp -a {SAVED}/munge.key /etc/munge/munge.key
cp -a {SAVED}/flux-imp {IMP}
systemctl unmask --runtime --quiet munge
systemctl daemon-reload
systemctl reset-failed flux munge
systemctl start munge flux
"""


OLDER = f"""
python3 - <<'END'
import re, subprocess
said = subprocess.run(["flux", "version"], capture_output=True, text=True).stdout.split()[1]
major, minor, patch = (int(part) for part in re.match(r"(\\d+)\\.(\\d+)\\.(\\d+)", said).groups())
number = lambda minor: (major << 16 | minor << 8 | patch).to_bytes(4, "little")
# movl $VERSION, offset(register): where the broker says which it is.
code = re.compile(rb"(\\xc7[\\x80-\\x87].{{4}})" + re.escape(number(minor)), re.S)
text, times = code.subn(lambda found: found[1] + number(minor - 1), open("{BROKER}", "rb").read())
assert times == 1, times
open("{BROKER}", "wb").write(text)
END
"""


@dataclass(frozen=True)
class Fault:
    """What a shell does to a machine, and how it must be named."""

    name: str
    inject: str
    stage: str
    said: str


FAULTS = [
    Fault(
        "the lead's port is closed",
        f"sed -i 's/:30093/:30999/' {CONF}",
        "lead_port",
        "the lead's port does not answer from the machine",
    ),
    Fault(
        "the lead's name does not resolve",
        f"sed -i 's/203.0.113.10/lead.invalid/' {CONF}",
        "lead_port",
        "unable to resolve upstream peer",
    ),
    Fault(
        "another certificate",
        f"rm {CERT}; flux keygen {CERT} && chown flux {CERT} && chmod 600 {CERT}",
        "certificate",
        "its certificate has fingerprint ",
    ),
    Fault("no certificate", f"rm {CERT}", "certificate", "No such file or directory"),
    Fault("an open certificate", f"chmod 644 {CERT}", "certificate", "readable by group/other"),
    Fault("root's certificate", f"chown root {CERT}", "certificate", "Permission denied"),
    Fault("a garbled certificate", f"echo x > {CERT}", "certificate", "Invalid argument"),
    Fault(
        "no curve_cert",
        f"sed -i '/curve_cert/d' {CONF}",
        "certificate",
        "curve_cert must be defined",
    ),
    Fault("another hostname", "hostname elsewhere", "hostname", "elsewhere"),
    Fault(
        "a qualified hostname",
        "hostname $(hostname).example.org",
        "hostname",
        "example.org",
    ),
    Fault(
        "hosts in another order",
        f"sed -i 's/gffw-compute-a-\\[001-003\\]/gffw-compute-a-[003,001,002]/' {CONF}",
        "hostname",
        "mismatched config?",
    ),
    # An array that is not closed at the end of a file would do too, but makes flux-core 0.88 read without end.
    Fault("a typing error", f"echo 'x y' >> {CONF}", "configuration", "Config file error"),
    Fault(
        "an unknown key",
        f"sed -i 's/^curve_cert/foo = 1\\ncurve_cert/' {CONF}",
        "configuration",
        "left unpacked: foo",
    ),
    Fault(
        "resources of its own",
        f"""printf '[resource]\\n[[resource.config]]\\nhosts = "x-[0-3]"\\ncores = "0"\\n' >> {CONF}""",
        "resources",
        "error reranking R",
    ),
    Fault(
        "no security.toml",
        "rm /etc/flux/security/conf.d/*",
        "security",
        "flux_security_configure",
    ),
    Fault(
        "fewer cores than R",
        "mkdir -p /etc/systemd/system/flux.service.d; printf '[Service]\\nCPUAffinity=0\\n' "
        "> /etc/systemd/system/flux.service.d/one.conf; systemctl daemon-reload",
        "resources",
        "missing resources: core1",
    ),
    Fault(
        "another munge key",
        "dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; systemctl restart munge",
        "munge",
        "Invalid credential",
    ),
    Fault(
        "munge is down",
        "systemctl mask --runtime --quiet munge; systemctl stop munge",
        "munge",
        "munge.socket",
    ),
    Fault(
        "another uid of the owner",
        f"usermod -u 1999 flux; chown -R flux {CERT}",
        "uid",
        "uid 1999, wanted ",
    ),
    Fault("an IMP that is not setuid", f"chmod 755 {IMP}", "imp", "IMP not installed setuid"),
    Fault("no IMP", f"rm {IMP}", "imp", "IMP not installed setuid"),
    Fault(
        "an owner whom the IMP does not allow",
        f'sed -i \'s/"flux"/"nobody"/\' {IMP_CONF}',
        "imp",
        "user flux not in allowed-users list",
    ),
    Fault("no imp.toml", f"rm {IMP_CONF}", "imp", "No config file(s) found"),
    Fault("an imp.toml that is not root's", f"chown flux {IMP_CONF}", "imp", "insecure file"),
    Fault(
        "Flux in another prefix",
        f"mv {SHELL} {SHELL}.away",
        "prefix",
        "error launching process: No such file or directory",
    ),
    Fault("no such user", f"userdel {GUEST}", "user", "is invalid on gffw-compute-a-00"),
    Fault(
        "a hostname that the broker was told",
        f'sed -i "s/-Srundir/-Shostname=$(hostname) -Srundir/" {UNIT}; systemctl daemon-reload; hostname hidden',
        "hostname",
        "got hostname 'hidden', expected 'gffw-compute-a-00",
    ),
    Fault(
        "hosts without one of them",
        f"sed -i '/flux-sample-1/d' {CONF}",
        "hostname",
        "mismatched config?",
    ),
    Fault("another version of Flux", OLDER, "version", "mismatched with server"),
]
if shutil.which("cc"):
    FAULTS.append(Fault("a clock that is behind", behind(), "clock", "Rewound credential"))
ROUNDS = [FAULTS[start : start + len(HOSTS)] for start in range(0, len(FAULTS), len(HOSTS))]


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def burst(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A burst of three machines with the real Flux."""
    # With all that the role node_base makes, which some faults take away.
    with bursting("faults", request.param, prepared=False) as made:
        for host in HOSTS:
            made.shell(host, SAVE)
        # It never runs, and asks that each node knows its user.
        held = ("flux", "submit", "--urgency=0", "--setattr=burstable", "--cwd", "/tmp", "hostname")
        succeeded(made.execute(LEAD, *held, user=GUEST))
        yield made


def findings(sandbox: Sandbox) -> str:
    """What the status playbook says is wrong, in one line."""
    done = succeeded(sandbox.playbook("status"))
    report = done.output[done.output.rindex("TASK [Report]") :]
    return " ".join(report[report.index("findings:") :].split()).replace("''", "'")


def online(sandbox: Sandbox) -> str:
    """The hosts that are free."""
    return sandbox.on_lead(
        "flux", "resource", "list", "-n", "-s", "free", "-o", "{nodelist}"
    ).output


def test_a_healthy_burst_has_no_finding(burst: Sandbox) -> None:
    assert findings(burst).startswith("findings: []")


@pytest.mark.parametrize("number", range(len(ROUNDS)), ids=lambda number: f"round {number + 1}")
def test_each_fault_is_named_with_its_stage_and_its_cause(burst: Sandbox, number: int) -> None:
    chosen = list(zip(HOSTS, ROUNDS[number], strict=False))
    for host, fault in chosen:
        # A broker that is to fail may not keep its place in the overlay.
        burst.shell(host, f"systemctl stop flux\n{fault.inject}\nsystemctl start flux || true")
    # Each has said by then what it will say: they join, or are refused, within a second.
    time.sleep(2)
    try:
        told = findings(burst)
    finally:
        for host in HOSTS:
            burst.shell(host, RESTORE)
            burst.on_lead("flux", "resource", "undrain", host)
    # One finding begins where "cause:" stands.
    rows = [f"cause:{row}" for row in told.split("cause:")[1:]]
    for host, fault in chosen:
        row = next((row for row in rows if f"host: {host}" in row), "")
        assert f"stage: {fault.stage}" in row, f"{fault.name}: {told}"
        assert fault.said in row, f"{fault.name}: {told}"
        assert "remedy: " in row
    assert len(rows) == len(chosen), told


def test_two_machines_of_one_name_are_told(burst: Sandbox) -> None:
    first, second = HOSTS[:2]
    burst.shell(second, f"systemctl stop flux; hostname {first}; systemctl start flux")
    time.sleep(1)
    try:
        told = findings(burst)
    finally:
        # The one with the wrong name first: its good-bye would be taken for the other's.
        for host in reversed(HOSTS):
            burst.shell(host, RESTORE)
    assert f"its kernel's hostname is '{first}'" in told or "reconnected after crash" in told
    assert f"host: {second}" in told


def test_a_burst_mends_what_it_can_and_names_what_it_cannot(burst: Sandbox) -> None:
    burst.shell(HOSTS[0], "dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none")
    burst.shell(HOSTS[1], f"chmod 755 {IMP}")
    done = burst.playbook("burst", *PREPARED)
    assert done.code != 0
    assert f"wanted {IMP} setuid root, found it without" in done.output
    assert "Traceback" not in done.output
    burst.shell(HOSTS[1], f"chmod 4755 {IMP}")
    succeeded(burst.playbook("burst", *PREPARED))
    assert findings(burst).startswith("findings: []")


def test_a_guest_is_told_what_is_missing(burst: Sandbox) -> None:
    for module in ("flux_resource_info", "flux_job_claim"):
        arguments = ["-a", "burst=x jobs=f2"] if module == "flux_job_claim" else []
        words = (
            "ansible",
            "flux_lead",
            "-b",
            "--become-user",
            "nobody",
            "-m",
            f"flux.burst.{module}",
        )
        done = burst.run(*words, *arguments)
        said = " ".join(done.output.split())
        assert done.code != 0
        assert "Operation not permitted" in said or "requires owner credentials" in said
        assert "run as the instance's owner" in said.replace("''", "'")
        assert "Traceback" not in done.output


def test_a_job_on_a_bursted_node_outlives_a_release_and_the_names_join_again(
    burst: Sandbox,
) -> None:
    words = ("flux", "submit", "-N", "2", "--requires=burst", "--cwd", "/tmp")
    name = succeeded(burst.on_lead(*words, "sleep", "15")).output.strip()
    done = burst.playbook("teardown", "-e", "burst_drain_timeout=1")
    assert done.code != 0
    assert "still runs there" in done.output
    assert len(burst.status()["projects"]["sandbox-project"]["instances"]) == len(HOSTS)
    assert "drained" not in burst.on_lead("flux", "resource", "drain").output
    locks = burst.on_lead("sh", "-c", "flux kvs ls -1 burst.locks 2>/dev/null || true")
    assert locks.output.strip() == "", "no other controller waits for one that is at work no more"
    succeeded(burst.playbook("teardown", "-e", "burst_release_idle=1"))
    left = burst.status()["projects"]["sandbox-project"]["instances"]
    assert len(left) == 2, "only the idle machine goes"
    succeeded(burst.playbook("teardown"))
    status = burst.on_lead("flux", "jobs", "-n", "-o", "{status_abbrev}", name).output
    assert status.split()[-1] == "CD", "the job was not disturbed"
    succeeded(
        burst.on_lead(
            "flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname"
        )
    )
    succeeded(burst.playbook("burst"))
    assert online(burst).count("gffw-compute-a-[001-003]") == 1
    assert burst.on_lead("flux", "jobs", "-n", "-o", "{user.burst.name}").output.strip() == ""
