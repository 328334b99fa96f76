# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A broker on this machine: what it needs, how it joins, how it leaves, and at which stage it stopped."""

from __future__ import annotations

import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _curve,
    _diagnose,
    _file_checks,
    _files,
    _units,
    _zmtp,
)
from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage, apply
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

JOINED = "Running as"
POLL = 0.1
RESTARTS = 2
JOURNAL_LINES = 40
SHOWN_LINES = 4
# How long the lead's port may take to greet, in seconds.
GREETING = 5.0
MUNGE = "/etc/munge/"
# What unmunge ends with for a credential that was made long ago, or was decoded here before: neither tells of a fault.
EXPIRED, REPLAYED = 15, 17
TROUBLE = re.compile(r"\.(warning|err|crit|alert|emerg)\[|[Ee]rror")
IMAGE = "use an image with the lead's version of Flux, installed in the lead's way"
PYTHON = "3.8"
"""The least version for this module's own code, as for Ansible's."""
# munge takes a credential of the other side for so many seconds.
MUNGE_SECONDS = 300


@dataclass(frozen=True)
class Base:
    """What must be the same here as on the lead before anything is done; what is empty is not compared.

    security_version is flux-security's, exec_path and module_path are what `flux config builtin` says on the lead.
    parent is the machine that listens at lead_address, "" for the lead itself.
    time is the controller's clock when it sent this, in seconds since the epoch, and 0 where it is not compared.
    """

    hostname: str
    user: str
    uid: int
    gid: int
    flux_version: str
    imp: str
    security_version: str = ""
    exec_path: str = ""
    module_path: str = ""
    lead_address: str = ""
    lead_port: int = 0
    parent: str = ""
    time: float = 0
    max_clock_skew: int = 60


def check_base(base: Base) -> None:
    """Raise BurstError with one line for each thing that is not so."""
    found = list(differences(base))
    if found:
        raise BurstError("\n".join(f"stage base: {text}." for text in found), stage="base")


def differences(base: Base) -> Iterator[str]:
    """Yield what differs, with both values and what to do."""
    yield from _same(
        "the kernel's hostname", base.hostname, socket.gethostname(), "rename the machine"
    )
    yield from _user(base)
    if base.time:
        yield from _clock(time.time() - base.time, base.max_clock_skew)
    yield from _python(PYTHON)
    said = _flux_says("version")
    if said is None:
        yield f"wanted Flux {base.flux_version}, found no flux: use an image with it"
    else:
        core, security = version_of(said, "commands"), version_of(said, "libflux-security")
        yield from _same("Flux MAJOR.MINOR", major_minor(base.flux_version), core or "none", IMAGE)
        wanted = major_minor(base.security_version)
        yield from _same("flux-security MAJOR.MINOR", wanted, security or "none", IMAGE)
        for name, path in (("exec_path", base.exec_path), ("module_path", base.module_path)):
            if path:
                yield from _same(
                    f"flux config builtin {name}",
                    path,
                    _flux_says("config", "builtin", name) or "none",
                    IMAGE,
                )
    if not os.path.exists("/usr/sbin/munged"):
        yield "wanted munge, found no /usr/sbin/munged: apply role flux.burst.node_base"
    try:
        if not os.stat(base.imp).st_mode & stat.S_ISUID:
            yield f"wanted {base.imp} setuid root, found it without: chmod 4755 it in the image"
    except OSError:
        yield f"wanted {base.imp}, found none: use an image with flux-security"
    if base.lead_address:
        wrong = _zmtp.problem(base.lead_address, base.lead_port, GREETING)
        if wrong:
            yield (
                f"wanted {_diagnose.whose(base.parent)} broker at {base.lead_address} port {base.lead_port}, found "
                f"{wrong}; {_diagnose.see_port(base.parent)}"
            )


def _user(base: Base) -> Iterator[str]:
    try:
        user = pwd.getpwnam(base.user)
    except KeyError:
        yield f"wanted user {base.user}, found none: apply role flux.burst.node_base"
        return
    numbers = f"uid {user.pw_uid} gid {user.pw_gid}"
    advice = f"remove user {base.user} and apply role flux.burst.node_base"
    yield from _same(f"user {base.user}", f"uid {base.uid} gid {base.gid}", numbers, advice)


def _clock(ahead: float, limit: int) -> Iterator[str]:
    """Yield what is wrong with a clock. On its way here the time has grown older, so more ahead is allowed."""
    if -limit <= ahead <= max(limit, MUNGE_SECONDS):
        return
    side = "ahead of" if ahead > 0 else "behind"
    yield (
        f"wanted a clock within {limit} s of the controller's, found it {abs(ahead):.0f} s {side} it: set it "
        "(chrony or systemd-timesyncd)"
    )


def _python(wanted: str) -> Iterator[str]:
    found = ".".join(map(str, sys.version_info[:3]))
    if [int(part) for part in re.findall(r"\d+", wanted)] > [*sys.version_info[:3]]:
        yield (
            f"wanted Python {wanted} or later, found {found} as {sys.executable}: install it, or set "
            "ansible_python_interpreter to one that is there"
        )


def _flux_says(*words: str) -> str | None:
    try:
        done = subprocess.run(["flux", *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip()


def version_of(said: str, part: str) -> str:
    """Return MAJOR.MINOR of one part of the output of `flux version`, "" where it has none."""
    return next(
        (major_minor(line) for line in said.splitlines() if line.startswith(f"{part}:")), ""
    )


def major_minor(text: str) -> str:
    """Return the first MAJOR.MINOR in a text, "" where there is none."""
    found = re.search(r"(\d+\.\d+)\.\d+", text)
    return found[1] if found else ""


def _same(what: str, wanted: str, found: str, advice: str) -> Iterator[str]:
    if wanted and wanted != found:
        yield f"wanted {what} {wanted}, found {found}: {advice}"


def check_munge(credential: str) -> None:
    """Raise BurstError where a credential that the lead made a moment ago is not good here.

    It takes the same key on both sides, munged running, and clocks within five minutes of each other.
    """
    if not credential:
        return
    try:
        done = subprocess.run(
            ["unmunge", "--keys=STATUS", "--output=/dev/null"],
            input=credential,
            capture_output=True,
            text=True,
            check=False,
        )
        # Of a clock that is off only the status tells.
        said = done.stderr.strip() or done.stdout.strip()
        if done.returncode in (0, EXPIRED, REPLAYED):
            said = ""
    except OSError as error:
        said = f"flux-imp needs munge: {error.strerror}"
    if said:
        found = _diagnose.diagnose(_diagnose.Evidence(host="here", proof=said))
        raise BurstError(
            f"stage {found.stage}: wanted the lead's munge credential good on this machine, found "
            f"'{said}': {found.remedy}.",
            stage=found.stage,
        )


def telling(lines: Sequence[str]) -> list[str]:
    """Return the few lines of a log that tell what went wrong; the first errors are nearest to the cause."""
    return [line for line in lines if TROUBLE.search(line)][:SHOWN_LINES] or [*lines][-SHOWN_LINES:]


class Timings:
    """How long each step took, in milliseconds."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what is done in here to a step, whether it ends well or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            took = round((time.monotonic() - began) * 1000)
            self.steps[name] = self.steps.get(name, 0) + took


class Broker:
    """The units and files of the broker on this machine; user owns the instance, "" where that does not matter.

    parent is the machine that it joins, "" for the lead.
    """

    def __init__(
        self,
        service: str,
        munge: str,
        files: Sequence[_files.File],
        user: str = "",
        parent: str = "",
    ) -> None:
        self.parent = parent
        self.service = service
        self.munge = munge
        self.user = user
        self.given = files
        self.files = {file.path: file for file in files}
        self.beside = [
            name
            for name in dict.fromkeys(map(_file_checks.service_of, self.files))
            if name not in ("", munge, service)
        ]
        self.timings = Timings()
        self._stale = False

    def join(self, timeout: float, *, check: bool) -> dict[str, Any]:
        """Bring files and units into their state and wait until the broker has joined, `timeout` seconds."""
        with self.timings.step("compare"):
            self._check()
            files, units = self._plan()
        result = apply([files, units], self._act, check=check)
        if check:
            return self._told(result, "")
        self._reload()
        with self.timings.step("join"):
            return self._told(result, self._wait(timeout))

    def leave(self, *, check: bool) -> dict[str, Any]:
        """Stop and disable the units, then remove the files and the certificate that their TOML names."""
        with self.timings.step("compare"):
            units = [
                Change(
                    "unit",
                    unit.name,
                    "update",
                    _shown(unit),
                    {"active": "inactive", "enabled": False},
                )
                for unit in map(_units.show, (*self.beside, self.service, self.munge))
                if unit.loaded and (unit.enabled or unit.active not in ("inactive", "failed"))
            ]
            with _at("file"):
                files = self._removals()
        result = apply([units, files], self._act, check=check)
        self._reload()
        return self._told(result, "")

    def _told(self, result: dict[str, Any], status_text: str) -> dict[str, Any]:
        return {**result, "status_text": status_text, "timings": self.timings.steps}

    def _check(self) -> None:
        wrong = list(_file_checks.unit_name(self.service))
        if wrong:
            raise BurstError(f"stage file: {wrong[0]}.", stage="file")
        munge = _units.show(self.munge)
        munge_user = munge.user or ("root" if munge.loaded else "")
        _file_checks.check(self.given, self.user, munge_user)

    def _plan(self) -> tuple[list[Change], list[Change]]:
        with _at("file"):
            found = [_files.difference(file, _files.read(file)) for file in self.files.values()]
        changed = [change for change in found if change]
        return [*self._leftovers(), *changed], self._units_to_start(
            {change.name for change in changed}
        )

    def _leftovers(self) -> list[Change]:
        """Of a run that was killed there may be secrets left under a second name."""
        left = {"content": "(left by a run that was killed)"}
        return [Change("file", path, "delete", left, {}) for path in _files.leftovers(self.files)]

    def _removals(self) -> list[Change]:
        standing = [found for found in map(_files.read, self.given) if found]
        named = _file_checks.curve_certs(standing) - {*self.files}
        certificates = (_files.File(path, b"", "", "", 0, secret=True) for path in sorted(named))
        standing += [found for found in map(_files.read, certificates) if found]
        gone = [
            Change("file", file.path, "delete", file.shown(file), {})
            # What is secret goes first.
            for file in sorted(standing, key=lambda file: not file.secret)
        ]
        return [*self._leftovers(), *gone]

    def _units_to_start(self, changed: set[str]) -> list[Change]:
        """A unit restarts with its own files, both with munge's key, the broker with any other of its files.

        A file that a unit beside the broker names is that unit's own.
        """
        changes = []
        concerned = {unit for path in changed for unit in self._units_of(path)}
        for name in (self.munge, self.service, *self.beside):
            restart = name in concerned or _units.owes_restart(name)
            unit = _units.show(name)
            if restart or unit.active != "active" or not unit.enabled:
                after = {"active": "active", "enabled": True}
                if restart and unit.active == "active":
                    after["restarted"] = True
                changes.append(Change("unit", name, "update", _shown(unit), after))
        return changes

    def _units_of(self, path: str) -> set[str]:
        """Return which units must restart when a file has changed."""
        own = _file_checks.unit_of(path)
        if own:
            return {own} & {self.munge, self.service, *self.beside}
        naming = {
            _file_checks.unit_of(file.path)
            for file in self.given
            if _file_checks.unit_of(file.path) in self.beside and path.encode() in file.content
        }
        if naming:
            return naming
        return {self.munge, self.service} if path.startswith(MUNGE) else {self.service}

    def _act(self, stage: Stage) -> None:
        if stage[0].kind == "file":
            self._act_on_files(stage)
        elif stage[0].after["active"] == "inactive":
            with self.timings.step("stop"):
                for change in stage:
                    _units.systemctl("disable", "--now", "--quiet", change.name)
        else:
            self._start([change.name for change in stage])

    def _act_on_files(self, stage: Stage) -> None:
        wanted = [self.files[change.name] for change in stage if change.action != "delete"]
        with _at("file"):
            with self.timings.step("stage"):
                for change in stage:
                    if change.action == "delete":
                        _files.remove(change.name)
            self._place(wanted)
        self._stale = any(_file_checks.unit_of(change.name) for change in stage)

    def _place(self, wanted: Sequence[_files.File]) -> None:
        with _files.Placement(wanted) as placement:
            with self.timings.step("stage"):
                placement.stage()
            for unit in sorted({unit for file in wanted for unit in self._units_of(file.path)}):
                _units.owe_restart(unit)
            with self.timings.step("commit"):
                placement.commit()

    def _reload(self) -> None:
        """Let systemd read its units again where files of it are newer."""
        if self._stale:
            with self.timings.step("reload"):
                _units.systemctl("daemon-reload")
        self._stale = False

    def _start(self, names: Sequence[str]) -> None:
        units = [_units.show(name) for name in names]
        # A run that was cut after a unit's file had changed has not reloaded it.
        self._stale |= any(unit.stale for unit in units)
        disabled = [unit.name for unit in units if not unit.enabled]
        if disabled:
            with self.timings.step("reload"):
                _units.systemctl("enable", "--quiet", *disabled)
            # That has reloaded all.
            self._stale = False
        self._reload()
        with self.timings.step("restart"):
            for name in names:
                try:
                    _units.systemctl("restart", name)
                except BurstError as error:
                    raise self._failed(_units.show(name), error) from None
                _units.restarted(name)

    def _wait(self, timeout: float) -> str:
        deadline = time.monotonic() + timeout
        before = _units.show(self.service).restarts
        while True:
            unit = _units.show(self.service)
            if unit.active == "active" and unit.status_text.startswith(JOINED):
                return unit.status_text
            given_up = unit.active in ("failed", "inactive") or unit.restarts >= before + RESTARTS
            if given_up or time.monotonic() > deadline:
                raise self._stopped(unit, timeout)
            time.sleep(POLL)

    def _stopped(self, unit: _units.Unit, timeout: float) -> BurstError:
        if unit.active != "active":
            return self._failed(unit, None)
        evidence = evidence_of(unit, parent=self.parent)
        found = _diagnose.diagnose(evidence)
        said = " | ".join(telling(evidence.log)) or "nothing"
        return BurstError(
            f"stage {found.stage}: wanted the broker joined within {timeout:.0f} s, found "
            f"'{evidence.status}' (log: {said}); {found.cause}: {found.remedy}.",
            stage=found.stage,
            evidence=shown(evidence),
        )

    def _failed(self, unit: _units.Unit, error: BurstError | None) -> BurstError:
        """Return why a unit does not run, in its own words where it logged any, else in systemctl's."""
        evidence = evidence_of(unit, parent=self.parent)
        found = _diagnose.diagnose(evidence)
        stage = "munge" if unit.name == self.munge else found.stage
        said = " | ".join(telling(evidence.log)) or str(error or "nothing")
        remedy = "put that right and run again" if stage in ("munge", "broker") else found.remedy
        return BurstError(
            f"stage {stage}: wanted {unit.name} running, found it {unit.active} with result {unit.result}, "
            f"exit code {unit.exit_code} (log: {said}): {remedy}.",
            stage=stage,
            evidence=shown(evidence),
        )


def evidence_of(unit: _units.Unit, curve_cert: str = "", parent: str = "") -> _diagnose.Evidence:
    """Return what this machine knows of its broker: what it says, its certificate, whether the lead answers there."""
    name = socket.gethostname()
    address, port = _diagnose.joining(unit.status_text)
    return _diagnose.Evidence(
        host=name,
        hostname=name,
        status=unit.status_text or unit.active,
        exit_code=unit.exit_code,
        log=tuple(_units.journal(unit, JOURNAL_LINES)),
        lead_port=_zmtp.problem(address, port, GREETING) if address else "",
        certificate=_curve.known_fingerprint(curve_cert),
        parent=parent,
        reached=True,
    )


def shown(evidence: _diagnose.Evidence) -> dict[str, Any]:
    """Return what flux_nodes takes of this machine on the lead."""
    keys = ("hostname", "status", "exit_code", "log", "lead_port", "certificate", "reached")
    return {key: value for key, value in asdict(evidence).items() if key in keys}


@contextmanager
def _at(stage: str) -> Iterator[None]:
    """Name the stage in an error that does not know it."""
    try:
        yield
    except BurstError as error:
        raise BurstError(f"stage {stage}: {error}", **{**error.facts, "stage": stage}) from None


def _shown(unit: _units.Unit) -> dict[str, Any]:
    return {"active": unit.active, "enabled": unit.enabled}
