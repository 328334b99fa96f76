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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _files, _units
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._reconcile import Change, Stage, apply

JOINED = "Running as"
POLL = 0.1
RESTARTS = 2
JOURNAL_LINES = 40
SHOWN_LINES = 4
TROUBLE = re.compile(r"\.(warning|err|crit|alert|emerg)\[|[Ee]rror")
# What the broker logs, and the stage that it shows; the first that fits counts. Measured on Flux 0.88.
STAGES = (
    ("certificate", r"certificate|curve_cert"),
    ("hostname", r"not found in hosts"),
    ("configuration", r"Config file error"),
    ("resources", r"reranking R|not found in resources"),
    ("security", r"flux_security|flux-imp"),
    ("overlay", r"overlay\.hello|mismatched|upstream peer"),
)


@dataclass(frozen=True)
class Base:
    """What must be the same here as on the lead before anything is done."""

    hostname: str
    user: str
    uid: int
    gid: int
    flux_version: str
    imp: str


def check_base(base: Base) -> None:
    """Raise BurstError for the first thing that is not so."""
    _same("the kernel's hostname", base.hostname, socket.gethostname(), "rename the machine")
    try:
        user = pwd.getpwnam(base.user)
    except KeyError:
        raise _base(
            f"wanted user {base.user}, found none: apply role flux.burst.node_base"
        ) from None
    numbers = f"uid {user.pw_uid} gid {user.pw_gid}"
    advice = f"remove user {base.user} and apply role flux.burst.node_base"
    _same(f"user {base.user}", f"uid {base.uid} gid {base.gid}", numbers, advice)
    try:
        said = subprocess.run(["flux", "version"], capture_output=True, text=True, check=False)
    except OSError:
        raise _base(
            f"wanted Flux {base.flux_version}, found no flux: use an image with it"
        ) from None
    _same(
        "Flux MAJOR.MINOR",
        major_minor(base.flux_version),
        major_minor(said.stdout) or "none",
        "use an image with the lead's version",
    )
    if not os.path.exists("/usr/sbin/munged"):
        raise _base("wanted munge, found no /usr/sbin/munged: apply role flux.burst.node_base")
    try:
        setuid = os.stat(base.imp).st_mode & stat.S_ISUID
    except OSError:
        raise _base(f"wanted {base.imp}, found none: use an image with flux-security") from None
    if not setuid:
        raise _base(f"wanted {base.imp} setuid root, found it without: chmod 4755 it in the image")


def major_minor(text: str) -> str:
    """Return the first MAJOR.MINOR in a text, "" where there is none."""
    found = re.search(r"(\d+\.\d+)\.\d+", text)
    return found[1] if found else ""


def _same(what: str, wanted: str, found: str, advice: str) -> None:
    if wanted != found:
        raise _base(f"wanted {what} {wanted}, found {found}: {advice}")


def _base(text: str) -> BurstError:
    return BurstError(f"stage base: {text}.", stage="base")


def stage_of(lines: Sequence[str]) -> str:
    """Return the stage that a broker's last log lines show."""
    text = "\n".join(lines)
    return next((stage for stage, pattern in STAGES if re.search(pattern, text)), "broker")


def telling(lines: Sequence[str]) -> list[str]:
    """Return the few lines of a log that tell what went wrong; the first errors are nearest to the cause."""
    return [line for line in lines if TROUBLE.search(line)][:SHOWN_LINES] or [*lines][-SHOWN_LINES:]


class Broker:
    """The units and files of the broker on this machine."""

    def __init__(self, service: str, munge: str, files: Sequence[_files.File]) -> None:
        self.service = service
        self.munge = munge
        self.files = {file.path: file for file in files}

    def join(self, timeout: float, *, check: bool) -> dict[str, Any]:
        """Bring files and units into their state and wait until the broker has joined, `timeout` seconds."""
        with _at("file"):
            found = [_files.difference(file, _files.read(file)) for file in self.files.values()]
        changed = [change for change in found if change]
        units = self._units_to_start({change.name for change in changed})
        result = apply([changed, units], self._act, check=check)
        return {**result, "status_text": "" if check else self._wait(timeout)}

    def leave(self, *, check: bool) -> dict[str, Any]:
        """Stop and disable the units."""
        units = [
            Change(
                "unit", unit.name, "update", _shown(unit), {"active": "inactive", "enabled": False}
            )
            for unit in map(_units.show, (self.service, self.munge))
            if unit.loaded and (unit.enabled or unit.active not in ("inactive", "failed"))
        ]
        return {**apply([units], self._act, check=check), "status_text": ""}

    def _units_to_start(self, changed: set[str]) -> list[Change]:
        """munge restarts with its key, the broker with any other of its files."""
        changes = []
        for name in (self.munge, self.service):
            restart = name in map(self._unit_of, changed) or _units.owes_restart(name)
            unit = _units.show(name)
            if restart or unit.active != "active" or not unit.enabled:
                after = {"active": "active", "enabled": True}
                if restart and unit.active == "active":
                    after["restarted"] = True
                changes.append(Change("unit", name, "update", _shown(unit), after))
        return changes

    def _unit_of(self, path: str) -> str:
        return self.munge if path.startswith("/etc/munge/") else self.service

    def _act(self, stage: Stage) -> None:
        for change in stage:
            if change.kind == "file":
                _units.owe_restart(self._unit_of(change.name))
                with _at("file"):
                    _files.write(self.files[change.name])
            elif change.after["active"] == "inactive":
                _units.systemctl("disable", "--now", "--quiet", change.name)
            else:
                self._start(change.name)

    def _start(self, name: str) -> None:
        # Always: a run that was cut after a unit's file had changed has not reloaded it.
        _units.systemctl("daemon-reload")
        _units.systemctl("enable", "--quiet", name)
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
        said = " | ".join(telling(_units.journal(unit, JOURNAL_LINES))) or "nothing"
        return BurstError(
            f"stage overlay: wanted the broker joined within {timeout:.0f} s, found "
            f"'{unit.status_text or unit.active}' (log: {said}): the lead's address and port must answer "
            "from this machine, and the certificate must be the lead's; see burst_lead_address and "
            "burst_lead_port.",
            stage="overlay",
        )

    def _failed(self, unit: _units.Unit, error: BurstError | None) -> BurstError:
        """Return why a unit does not run, in its own words where it logged any, else in systemctl's."""
        lines = _units.journal(unit, JOURNAL_LINES)
        stage = "munge" if unit.name == self.munge else stage_of(lines)
        said = " | ".join(telling(lines)) or str(error or "nothing")
        return BurstError(
            f"stage {stage}: wanted {unit.name} running, found it {unit.active} with result {unit.result}, "
            f"exit code {unit.exit_code} (log: {said}): put that right and run again.",
            stage=stage,
        )


@contextmanager
def _at(stage: str) -> Iterator[None]:
    """Name the stage in an error that does not know it."""
    try:
        yield
    except BurstError as error:
        raise BurstError(f"stage {stage}: {error}", **{**error.facts, "stage": stage}) from None


def _shown(unit: _units.Unit) -> dict[str, Any]:
    return {"active": unit.active, "enabled": unit.enabled}
