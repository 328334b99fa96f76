# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broker and its unit say is read as what it means."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.flux.burst.plugins.module_utils import (
    _broker,
    _file_checks,
    _files,
    _units,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

SHOWN = """LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
StatusText=Running as member of 5 node Flux instance
Result=success
ExecMainStatus=0
NRestarts=1
InactiveExitTimestamp=Tue 2026-11-24 11:45:18 UTC
NeedDaemonReload=no
User=flux
"""


def test_a_unit_is_what_systemctl_shows() -> None:
    unit = _units.parse("flux.service", SHOWN)
    assert unit.loaded and unit.enabled
    assert (unit.active, unit.sub, unit.restarts, unit.exit_code) == ("active", "running", 1, 0)
    assert (unit.stale, unit.user) == (False, "flux")
    assert unit.status_text == "Running as member of 5 node Flux instance"


def test_a_machine_below_a_gateway_is_told_of_the_gateway_s_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_broker, "_flux_says", lambda *_words: None)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        base = _broker.Base(
            "x", "x", 1, 1, "0.88.0", "/x", lead_address="127.0.0.1", lead_port=port, parent="b-1"
        )
        found = list(_broker.differences(base))
    assert any(
        line.startswith(
            f"wanted gateway b-1's broker at 127.0.0.1 port {port}, found the connection"
        )
        and "see flux.service on b-1, and whether the network's firewall" in line
        for line in found
    )


def test_a_unit_that_is_not_there_is_not_loaded() -> None:
    unit = _units.parse("flux.service", "LoadState=not-found\nActiveState=inactive\n")
    assert not unit.loaded and not unit.enabled


@pytest.mark.parametrize(("restarts", "wanted"), [(1, ["Config file error"]), (0, [])])
def test_a_start_that_has_said_nothing_yet_is_told_by_the_automatic_one_before_it(
    monkeypatch: pytest.MonkeyPatch, restarts: int, wanted: list[str]
) -> None:
    def journalctl(words: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        said = "Config file error\n" if "@1764169999.500000" in words else ""
        if f"MESSAGE_ID={_units.STARTING}" in words:
            starts = ("1764169999500000", "1764170002000000")
            said = "".join(json.dumps({"__REALTIME_TIMESTAMP": at}) + "\n" for at in starts)
        return subprocess.CompletedProcess(words, 0, said)

    monkeypatch.setattr(subprocess, "run", journalctl)
    unit = replace(_units.parse("flux.service", SHOWN), restarts=restarts)
    assert _units.journal(unit, 5) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("commands: 0.88.0-59-g4a5e79f56", "0.88"), ("0.88.0", "0.88"), ("none", "")],
)
def test_the_version_that_counts_is_major_and_minor(text: str, wanted: str) -> None:
    assert _broker.major_minor(text) == wanted


def test_whatever_differs_from_the_lead_is_said_at_once_each_with_both_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {
        ("version",): "commands: \t0.87.0\nlibflux-core: 0.87.0\nlibflux-security: 0.14.0",
        ("config", "builtin", "exec_path"): "/usr/local/libexec/flux/cmd",
        ("config", "builtin", "module_path"): "/usr/lib64/flux/modules",
    }
    monkeypatch.setattr(_broker, "_flux_says", lambda *words: said[words])
    monkeypatch.setattr(_broker, "PYTHON", "99.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = _broker.Base(
            "not-this-host",
            "root",
            1004,
            1004,
            "0.88.0",
            "/nowhere/flux-imp",
            security_version="0.15.0",
            exec_path="/usr/libexec/flux/cmd",
            module_path="/usr/lib/flux/modules",
            lead_address="127.0.0.1",
            lead_port=closed.getsockname()[1],
            time=time.time() + 600,
        )
        with pytest.raises(BurstError) as caught:
            _broker.check_base(base)
    lines = str(caught.value).splitlines()
    wanted = [
        "the kernel's hostname not-this-host, found",
        "user root uid 1004 gid 1004, found uid 0 gid 0",
        "Flux MAJOR.MINOR 0.88, found 0.87",
        "flux-security MAJOR.MINOR 0.15, found 0.14",
        "exec_path /usr/libexec/flux/cmd, found /usr/local/libexec/flux/cmd",
        "module_path /usr/lib/flux/modules, found /usr/lib64/flux/modules",
        "/nowhere/flux-imp, found none",
        "found the connection refused",
        "a clock within 60 s of the controller's, found it 600 s behind it: set it",
        "wanted Python 99.1 or later, found 3.",
    ]
    for text in wanted:
        assert [line for line in lines if text in line], text
    assert all(line.startswith("stage base: wanted ") for line in lines)


def test_what_is_not_known_of_the_lead_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_broker, "_flux_says", lambda *words: "commands: 0.88.0")
    base = _broker.Base(socket.gethostname(), "root", 0, 0, "0.88.3", "/bin/su")
    found = list(_broker.differences(base))
    assert [line for line in found if "munge" not in line] == []


@pytest.mark.parametrize(
    ("ahead", "limit", "wrong"),
    [
        # A task takes its time to get here, which looks as if this clock were ahead.
        (0, 60, False),
        (-59, 60, False),
        (-61, 60, True),
        (299, 60, False),
        (310, 60, True),
        (-310, 600, False),
        (590, 600, False),
    ],
)
def test_a_clock_may_be_behind_by_so_much_and_ahead_by_what_munge_allows(
    monkeypatch: pytest.MonkeyPatch, ahead: float, limit: int, wrong: bool
) -> None:
    monkeypatch.setattr(_broker, "_flux_says", lambda *words: "commands: 0.88.0")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ahead)
    base = _broker.Base(
        socket.gethostname(), "root", 0, 0, "0.88.0", "/bin/su", time=now, max_clock_skew=limit
    )
    assert any("clock" in line for line in _broker.differences(base)) == wrong


def test_the_python_that_runs_is_enough_for_its_own_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_broker, "_flux_says", lambda *words: "commands: 0.88.0")
    base = _broker.Base(socket.gethostname(), "root", 0, 0, "0.88.0", "/bin/su")
    assert not any("Python" in line for line in _broker.differences(base))


GARBLED = """overlay.err[2]: Error loading certificate: /etc/flux/system/curve.cert: Invalid argument
overlay.crit[2]: module exiting abnormally
broker.info[2]: builtins-fail: load-builtins->unload-builtins 3.1681ms
broker.err[2]: overlay: Invalid argument
broker.info[2]: builtins-done: unload-builtins->exit 0.767919ms"""


class Systemd:
    """Two units as systemd keeps them, and what was asked of it; `refuses` is a unit that does not start."""

    def __init__(self) -> None:
        self.units = {
            name: replace(_units.parse(name, SHOWN), restarts=0)
            for name in ("munge.service", "flux.service")
        }
        self.asked: list[str] = []
        self.refuses = ""
        self.log: list[str] = []

    def show(self, name: str) -> _units.Unit:
        return self.units[name]

    def systemctl(self, *words: str) -> str:
        self.asked.append(" ".join(words))
        if words == ("restart", self.refuses):
            self.units[self.refuses] = replace(self.units[self.refuses], active="failed")
            raise BurstError("wanted 'systemctl restart' to succeed, found exit code 1.")
        for name in words[1:]:
            if words[0] == "restart":
                self.units[name] = replace(self.units[name], active="active")
            if words[0] in ("enable", "disable") and name in self.units:
                self.units[name] = replace(self.units[name], enabled=words[0] == "enable")
            if words[0] == "disable" and name in self.units:
                self.units[name] = replace(self.units[name], active="inactive")
        return ""

    def restarts(self) -> list[str]:
        return [words.split()[1] for words in self.asked if words.startswith("restart ")]


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Systemd:
    fake = Systemd()
    monkeypatch.setattr(_units, "show", fake.show)
    monkeypatch.setattr(_units, "systemctl", fake.systemctl)
    monkeypatch.setattr(_units, "journal", lambda unit, lines: fake.log)
    monkeypatch.setattr(_units, "OWED", tmp_path / "owed")
    return fake


OWNER, GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name


def broker(path: Path, content: bytes = b"new = 1", *more: _files.File) -> _broker.Broker:
    file = _files.File(str(path), content, OWNER, GROUP, 0o644)
    return _broker.Broker("flux.service", "munge.service", [file, *more])


def test_a_changed_file_restarts_its_unit_and_a_second_run_changes_nothing(
    systemd: Systemd, tmp_path: Path
) -> None:
    first = broker(tmp_path / "system.toml").join(1, check=False)
    assert [change["name"] for change in first["resources"]] == [
        str(tmp_path / "system.toml"),
        "flux.service",
    ]
    assert systemd.restarts() == ["flux.service"]
    assert not broker(tmp_path / "system.toml").join(1, check=False)["changed"]
    assert systemd.restarts() == ["flux.service"]


def test_check_mode_changes_neither_files_nor_units(systemd: Systemd, tmp_path: Path) -> None:
    assert broker(tmp_path / "system.toml").join(1, check=True)["changed"]
    assert systemd.asked == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_cut_between_the_files_and_the_restart_is_made_good_by_the_next(
    systemd: Systemd, tmp_path: Path
) -> None:
    systemd.units["munge.service"] = replace(systemd.units["munge.service"], active="inactive")
    systemd.refuses = "munge.service"
    with pytest.raises(BurstError, match="stage munge"):
        broker(tmp_path / "system.toml").join(1, check=False)
    systemd.refuses = ""
    systemd.asked.clear()
    broker(tmp_path / "system.toml").join(1, check=False)
    assert systemd.restarts() == ["munge.service", "flux.service"]
    assert not broker(tmp_path / "system.toml").join(1, check=False)["changed"]


def test_a_unit_that_does_not_start_is_explained_by_its_own_log(
    systemd: Systemd, tmp_path: Path
) -> None:
    systemd.refuses = "flux.service"
    systemd.log = GARBLED.splitlines()
    with pytest.raises(
        BurstError, match=r"stage certificate: .* Error loading certificate"
    ) as caught:
        broker(tmp_path / "system.toml").join(1, check=False)
    assert caught.value.facts["stage"] == "certificate"
    assert caught.value.facts["evidence"]["log"] == tuple(GARBLED.splitlines())


def test_a_file_that_cannot_be_placed_names_its_stage(systemd: Systemd, tmp_path: Path) -> None:
    stranger = _files.File(str(tmp_path / "b"), b"", "nobody-here", GROUP, 0o644)
    with pytest.raises(BurstError, match=r"stage file: .*node_base"):
        broker(tmp_path / "system.toml", b"new = 1", stranger).join(1, check=False)
    assert systemd.restarts() == []
    assert list(tmp_path.iterdir()) == []


def test_what_the_broker_would_not_take_replaces_nothing_and_restarts_nothing(
    systemd: Systemd, tmp_path: Path
) -> None:
    broker(tmp_path / "system.toml").join(1, check=False)
    systemd.asked.clear()
    with pytest.raises(BurstError, match=r"^stage file: .*system.toml, line 1: wanted TOML"):
        broker(tmp_path / "system.toml", b"new").join(1, check=False)
    assert (tmp_path / "system.toml").read_bytes() == b"new = 1"
    assert systemd.asked == []


def test_a_unit_that_flux_security_would_take_for_a_job_s_is_refused(systemd: Systemd) -> None:
    with pytest.raises(BurstError, match=r"begin with flux-, found flux-start\.service"):
        _broker.Broker("flux-start.service", "munge.service", []).join(1, check=False)
    assert systemd.asked == []


@pytest.mark.parametrize(
    ("path", "restarted", "reloads"),
    [
        ("etc/flux/system/conf.d/system.toml", ["flux.service"], 0),
        ("etc/flux/system/curve.cert", ["flux.service"], 0),
        ("etc/munge/munge.key", ["munge.service", "flux.service"], 0),
        ("etc/systemd/system/flux.service", ["flux.service"], 1),
        ("etc/systemd/system/flux.service.d/limits.conf", ["flux.service"], 1),
        ("etc/systemd/system/munge.service.d/threads.conf", ["munge.service"], 1),
        ("etc/systemd/system/home.mount", [], 1),
        ("etc/profile.d/flux.sh", ["flux.service"], 0),
    ],
)
def test_only_what_a_file_concerns_is_restarted_and_units_alone_are_reloaded(
    systemd: Systemd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    restarted: list[str],
    reloads: int,
) -> None:
    monkeypatch.setattr(_file_checks, "UNITS", f"{tmp_path}/etc/systemd/system/")
    monkeypatch.setattr(_broker, "MUNGE", f"{tmp_path}/etc/munge/")
    monkeypatch.setattr(_file_checks, "check", lambda *_unused: None)
    broker(tmp_path / path).join(1, check=False)
    assert systemd.restarts() == restarted
    assert systemd.asked.count("daemon-reload") == reloads
    assert not broker(tmp_path / path).join(1, check=False)["changed"]


def test_a_unit_beside_the_broker_restarts_with_the_file_that_it_names_and_stops_first(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_file_checks, "UNITS", f"{tmp_path}/units/")
    program = tmp_path / "beside.py"

    def given(text: bytes, *, joined: bool = True) -> _broker.Broker:
        unit = f"[Service]\nExecStart=/usr/bin/env python3 {program}\n".encode()
        beside = _files.File(f"{tmp_path}/units/beside.service", unit, OWNER, GROUP, 0o644)
        if not joined:
            return broker(program, b"", replace(beside, content=b""))
        return broker(program, text, beside)

    missing = _units.parse("beside.service", "LoadState=not-found\nActiveState=inactive\n")
    systemd.units["beside.service"] = missing
    given(b"one").join(1, check=False)
    assert systemd.restarts() == ["beside.service"]
    assert "enable --quiet beside.service" in systemd.asked
    systemd.units["beside.service"] = replace(missing, loaded=True, enabled=True, active="active")
    assert not given(b"one").join(1, check=False)["changed"]
    given(b"two").join(1, check=False)
    assert systemd.restarts() == ["beside.service", "beside.service"], "and the broker runs on"
    given(b"", joined=False).leave(check=False)
    stopped = [words.split()[-1] for words in systemd.asked if words.startswith("disable")]
    assert stopped == ["beside.service", "flux.service", "munge.service"]


def test_a_unit_whose_files_are_newer_is_reloaded_before_it_restarts(
    systemd: Systemd, tmp_path: Path
) -> None:
    systemd.units["flux.service"] = replace(systemd.units["flux.service"], stale=True)
    broker(tmp_path / "system.toml").join(1, check=False)
    assert systemd.asked == ["daemon-reload", "restart flux.service"]


def test_a_unit_that_is_not_enabled_is_and_that_reloads_once(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_file_checks, "UNITS", f"{tmp_path}/")
    systemd.units["flux.service"] = replace(systemd.units["flux.service"], enabled=False)
    unit = b"[Service]\nExecStart=/bin/true\n"
    broker(tmp_path / "flux.service", unit).join(1, check=False)
    assert systemd.asked == ["enable --quiet flux.service", "restart flux.service"]


def test_a_result_says_how_long_each_step_took(systemd: Systemd, tmp_path: Path) -> None:
    first = broker(tmp_path / "system.toml").join(1, check=False)["timings"]
    assert list(first) == ["compare", "stage", "commit", "restart", "join"]
    assert all(isinstance(took, int) and 0 <= took < 5000 for took in first.values())
    assert list(broker(tmp_path / "system.toml").join(1, check=False)["timings"]) == [
        "compare",
        "join",
    ]
    assert list(broker(tmp_path / "system.toml").join(1, check=True)["timings"]) == ["compare"]


def test_what_a_killed_run_left_is_removed_and_told(systemd: Systemd, tmp_path: Path) -> None:
    broker(tmp_path / "system.toml").join(1, check=False)
    left = tmp_path / ".curve.cert.flux-burst-old"
    left.write_text("a secret of long ago")
    assert broker(tmp_path / "system.toml").join(1, check=True)["changed"]
    assert left.exists()
    done = broker(tmp_path / "system.toml").join(1, check=False)
    assert done["resources"] == [{"kind": "file", "name": str(left), "action": "delete"}]
    assert "secret of long ago" not in str(done)
    assert not left.exists()
    assert systemd.restarts() == ["flux.service"]


def leaving(tmp_path: Path) -> _broker.Broker:
    files = [
        _files.File(str(tmp_path / "system.toml"), b"", "root", "root", 0o644),
        _files.File(str(tmp_path / "munge.key"), b"", "root", "root", 0o400, secret=True),
    ]
    return _broker.Broker("flux.service", "munge.service", files)


def test_leaving_stops_the_broker_before_munge_and_removes_key_and_certificate(
    systemd: Systemd, tmp_path: Path
) -> None:
    cert = tmp_path / "elsewhere" / "our.cert"
    cert.parent.mkdir()
    cert.write_text("a certificate")
    (tmp_path / "system.toml").write_text(f'[bootstrap]\ncurve_cert = "{cert}"\n')
    (tmp_path / "munge.key").write_text("a key")
    (tmp_path / "other").write_text("not ours")
    planned = leaving(tmp_path).leave(check=True)
    assert cert.exists() and systemd.asked == []
    done = leaving(tmp_path).leave(check=False)
    assert done["resources"] == planned["resources"]
    assert [change["name"] for change in done["resources"]] == [
        "flux.service",
        "munge.service",
        str(tmp_path / "munge.key"),
        str(cert),
        str(tmp_path / "system.toml"),
    ]
    assert "a key" not in str(done) and "a certificate" not in str(done)
    assert systemd.asked == [
        "disable --now --quiet flux.service",
        "disable --now --quiet munge.service",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "other"]
    assert list(cert.parent.iterdir()) == []
    again = leaving(tmp_path).leave(check=False)
    assert (again["changed"], again["resources"]) == (False, [])


def test_a_broker_that_restarted_long_ago_is_given_its_time(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker(tmp_path / "system.toml").join(1, check=False)
    joining = replace(
        systemd.units["flux.service"], restarts=9, status_text="Joining Flux instance"
    )
    done = replace(joining, status_text="Running as member of 5 node Flux instance")
    shown = iter([joining, joining, joining])

    def show(name: str) -> _units.Unit:
        return next(shown, done) if name == "flux.service" else systemd.show(name)

    monkeypatch.setattr(_units, "show", show)
    assert broker(tmp_path / "system.toml").join(5, check=False)["status_text"] == done.status_text


def test_of_a_log_the_first_troubles_are_shown() -> None:
    assert _broker.telling(GARBLED.splitlines())[0].startswith("overlay.err[2]: Error loading")
    assert _broker.telling(["a", "b"]) == ["a", "b"]
    assert len(_broker.telling([f"broker.err[0]: {n}" for n in range(9)])) == _broker.SHOWN_LINES


@pytest.mark.parametrize(
    ("script", "stage"),
    [
        ("exit 0", ""),
        ("echo 'STATUS:  Rewound credential (16)'; exit 16", "clock"),
        ("echo 'unmunge: Error: Invalid credential' >&2; exit 8", "munge"),
        ("echo 'STATUS:  Expired credential (15)'; exit 15", ""),
        ("echo 'STATUS:  Replayed credential (17)'; exit 17", ""),
    ],
)
def test_a_credential_of_the_lead_tells_of_key_and_clock_and_not_of_its_own_age(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, stage: str
) -> None:
    program = tmp_path / "unmunge"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if not stage:
        _broker.check_munge("MUNGE:x:")
        return
    with pytest.raises(BurstError, match=f"stage {stage}: ") as caught:
        _broker.check_munge("MUNGE:x:")
    assert caught.value.facts["stage"] == stage
