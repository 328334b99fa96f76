# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault that was seen on real Flux is told by its stage, in Flux's words, with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._diagnose import (
    Evidence,
    diagnose,
    gateway,
    joining,
)

JOINING = "Joining Flux instance via tcp://203.0.113.10:30093"
REFUSED = "rejecting connection from b-1 (rank 3): b-2 is configured as rank 3: mismatched config?"
MISMATCH = "client (0.87.0) version mismatched with server (0.88.0)"
CRASHED = "b-1 (rank 2) reconnected after crash, dropping old connection state"
HANDSHAKE = "child sockevent tcp://0.0.0.0:8050 handshake failed protocol: ZMTP cryptographic error"
INVALID = "signature validation failed: sign-munge-verify: munge_decode: Invalid credential"
BLOCKED = "no answer within 5 s: a firewall drops it, or the address is wrong"


@pytest.mark.parametrize(
    ("evidence", "stage", "said"),
    [
        ({"status": JOINING, "lead_port": BLOCKED}, "lead_port", "a firewall drops it"),
        (
            {"log": ["unable to resolve upstream peer x: Temporary failure in name resolution"]},
            "lead_port",
            "unable to resolve upstream peer x",
        ),
        ({"status": JOINING}, "certificate", "though the lead's port answers"),
        (
            {"status": JOINING, "certificate": "5b" * 32, "lead_certificate": "a0" * 32},
            "certificate",
            "its certificate has fingerprint 5b5b5b5b5b5b5b5b, the lead's a0a0a0a0a0a0a0a0",
        ),
        (
            {"status": JOINING, "certificate": "5b" * 32, "lead_certificate": "5b" * 32},
            "certificate",
            "its certificate is the one in the lead's file",
        ),
        ({"status": JOINING, "lead_log": [HANDSHAKE]}, "certificate", "ZMTP cryptographic error"),
        (
            {"log": ["overlay.err[2]: Error loading certificate: /c: No such file or directory"]},
            "certificate",
            "/c: No such file",
        ),
        (
            {"log": ["Error loading certificate: /c: readable by group/other"]},
            "certificate",
            "readable by group/other",
        ),
        ({"log": ["Error loading certificate: /c: Permission denied"]}, "certificate", "denied"),
        ({"log": ["Error loading certificate: /c: Invalid argument"]}, "certificate", "Invalid"),
        (
            {"log": ["Config file error [bootstrap]: curve_cert must be defined for size > 1"]},
            "certificate",
            "curve_cert must be defined",
        ),
        (
            {"log": ["Config file error [bootstrap]: b-1.example.org not found in hosts"]},
            "hostname",
            "b-1.example.org not found in hosts",
        ),
        ({"drain_reason": "rank 2 got hostname 'X', expected 'b-1'"}, "hostname", "hostname 'X'"),
        (
            {"log": ["overlay.hello: Invalid argument"], "lead_log": [REFUSED]},
            "hostname",
            "rejecting connection from b-1",
        ),
        ({"log": ["overlay.hello: Invalid argument"]}, "hostname", "overlay.hello"),
        ({"log": [MISMATCH]}, "version", "client (0.87.0)"),
        ({"overlay": MISMATCH}, "version", "client (0.87.0)"),
        (
            {"log": ["error reranking R: Number of hosts (4) is less than node count (5)"]},
            "resources",
            "error reranking R",
        ),
        ({"log": ["Host b-9 not found in resources"]}, "resources", "Host b-9"),
        (
            {"drain_reason": "rank 2 (b-1) missing resources: core[2-3]"},
            "resources",
            "missing resources: core[2-3]",
        ),
        (
            {"log": ["Config file error: /etc/x.toml:36: invalid or missing key"]},
            "configuration",
            "/etc/x.toml:36",
        ),
        (
            {"log": ["Config file error [bootstrap]: 1 object item(s) left unpacked: foo"]},
            "configuration",
            "left unpacked: foo",
        ),
        (
            {"log": ["flux_security_configure: pattern /etc/x matched nothing"]},
            "security",
            "matched nothing",
        ),
        ({"proof": f"flux-imp: Fatal: exec: {INVALID}"}, "munge", "Invalid credential"),
        ({"proof": "munge: unmunge: Error: Invalid credential"}, "munge", "Invalid credential"),
        (
            {"proof": 'munge_encode: Failed to access "/run/munge/munge.socket.2"'},
            "munge",
            "munge.socket.2",
        ),
        (
            {"proof": 'munge: unmunge: Error: Failed to access "/run/munge/munge.socket.2"'},
            "munge",
            "munge.socket.2",
        ),
        ({"proof": "munge_decode: Rewound credential"}, "clock", "Rewound"),
        ({"proof": "munge: unmunge: Error: Expired credential"}, "clock", "Expired"),
        ({"proof": "munge: STATUS:          Rewound credential (16)"}, "clock", "Rewound"),
        ({"proof": "sh: 1: getent: not found"}, "proof", "getent: not found"),
        ({"proof": "sign-none-verify: header userid 1004 != real 1005"}, "uid", "1004 != real"),
        ({"proof": "uid 1005, wanted 1004"}, "uid", "wanted 1004"),
        ({"proof": "exec: userid 2001 is invalid on b-1"}, "user", "userid 2001"),
        ({"proof": "flux-imp: IMP not installed setuid: /usr/libexec"}, "imp", "not installed"),
        ({"proof": "flux-imp: Fatal: user flux not in allowed-users list"}, "imp", "allowed-users"),
        ({"proof": "flux-imp: Fatal: No config file(s) found"}, "imp", "No config file"),
        ({"proof": "flux-imp: Fatal: imp.toml: insecure file"}, "imp", "insecure file"),
        (
            {"proof": "error launching process: No such file or directory"},
            "prefix",
            "error launching process",
        ),
        ({"proof": "Could not change dir to /x: No such file. Going to /tmp instead"}, "cwd", "/x"),
        ({"hostname": "b-9", "status": "Running as member"}, "hostname", "hostname is 'b-9'"),
        ({"lead_log": [CRASHED]}, "hostname", "reconnected after crash"),
        ({"overlay": "lost connection"}, "overlay", "lost connection"),
        ({"log": ["out of memory"], "exit_code": 1}, "broker", "exit code 1 and said 'out of"),
        ({"reached": True}, "overlay", "it is not online"),
        ({}, "machine", "the lead has seen nothing of it"),
    ],
)
def test_a_fault_is_named_with_its_stage(evidence: dict[str, Any], stage: str, said: str) -> None:
    finding = diagnose(Evidence("b-1", 2, **evidence))
    assert (finding.host, finding.stage) == ("b-1", stage)
    assert said in finding.cause
    assert len(finding.remedy) > 10
    assert str(finding).startswith(f"b-1: stage {stage}: ")


def test_a_machine_below_another_is_told_of_that_one_s_port() -> None:
    told = diagnose(Evidence("b-2", 3, lead_port="the connection refused", parent="b-1"))
    assert told.cause == (
        "gateway b-1's port does not answer from the machine, found the connection refused"
    )
    assert told.remedy.startswith("see flux.service on b-1, ")


def test_a_gateway_is_told_once_with_what_is_below_it() -> None:
    below = ["b-2", "b-3"]
    lost = diagnose(Evidence("b-1", 2, overlay="lost connection"))
    told = gateway(lost, below, "b-[2-3]", seen=True)
    assert (told.stage, told.below) == ("overlay", ("b-2", "b-3"))
    assert told.cause == (
        "the gateway b-1 is gone, and with it 2 ranks below it (b-[2-3]); the lead says 'lost connection'"
    )
    never = diagnose(Evidence("b-1", 2, log=("Error loading certificate: /c: no",)))
    told = gateway(never, below[:1], "b-2", seen=False)
    assert told.stage == "certificate", "a stage that tells more stays"
    assert "has not joined, and with it 1 rank below it (b-2); the machine says" in told.cause


def test_the_cause_on_the_machine_goes_before_its_consequence_on_the_lead() -> None:
    log = ("Error loading certificate: /c: Permission denied",)
    assert diagnose(Evidence("b-1", 2, log=log, overlay="lost connection")).stage == "certificate"


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (JOINING, ("203.0.113.10", 30093)),
        ("Joining Flux instance via tcp://[fd00::1]:8050", ("fd00::1", 8050)),
        ("Running as member of 5 node Flux instance", ("", 0)),
    ],
)
def test_where_a_broker_tries_is_read_from_its_status(status: str, wanted: tuple[str, int]) -> None:
    assert joining(status) == wanted


def test_what_the_lead_says_of_another_machine_is_not_taken_for_this_one() -> None:
    said = "rejecting connection from b-2 (rank 2): b-1 is configured as rank 2: mismatched config?"
    assert diagnose(Evidence("b-1", 2, lead_log=(said,))).stage == "machine"
