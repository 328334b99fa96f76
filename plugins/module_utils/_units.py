# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units, asked and told by systemctl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
"""The message of systemd that says that it starts a unit, see `journalctl --list-catalog`."""
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "StatusText",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "InactiveExitTimestamp",
    "NeedDaemonReload",
    "User",
)
# A unit named here runs with older files than stand on the disk. A boot clears it, and is a restart as well.
OWED = Path("/run/flux-burst")
KEPT_LINES = 5000


@dataclass(frozen=True)
class Unit:
    """What systemd knows of a unit, see systemctl show. `stale` is that its files are newer; user is "" for root."""

    name: str
    loaded: bool
    active: str
    sub: str
    enabled: bool
    status_text: str
    result: str
    exit_code: int
    restarts: int
    started: str
    stale: bool
    user: str


def parse(name: str, text: str) -> Unit:
    """Return a unit from the output of `systemctl show`."""
    rows = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return Unit(
        name=name,
        loaded=rows.get("LoadState") == "loaded",
        active=rows.get("ActiveState", ""),
        sub=rows.get("SubState", ""),
        enabled=rows.get("UnitFileState") == "enabled",
        status_text=rows.get("StatusText", ""),
        result=rows.get("Result", ""),
        exit_code=int(rows.get("ExecMainStatus") or 0),
        restarts=int(rows.get("NRestarts") or 0),
        started=rows.get("InactiveExitTimestamp", ""),
        stale=rows.get("NeedDaemonReload") == "yes",
        user=rows.get("User", ""),
    )


def show(name: str) -> Unit:
    """Ask systemd for a unit. Raises BurstError."""
    return parse(name, systemctl("show", name, "--property", ",".join(PROPERTIES)))


def systemctl(*words: str) -> str:
    """Run systemctl and return what it printed. Raises BurstError with its own message."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or "no message").splitlines()[0]
        raise BurstError(
            f"wanted 'systemctl {' '.join(words)}' to succeed, found exit code {done.returncode} ({said}): "
            f"see journalctl -u {words[-1]} on this machine."
        )
    return done.stdout


def owe_restart(name: str) -> None:
    """Note that a unit must restart, before its files change: the run may be cut in between."""
    OWED.mkdir(mode=0o755, exist_ok=True)
    (OWED / name).touch()


def owes_restart(name: str) -> bool:
    """Return whether a unit was to restart and did not."""
    return (OWED / name).exists()


def restarted(name: str) -> None:
    """Forget that a unit must restart."""
    (OWED / name).unlink(missing_ok=True)


def journal(unit: Unit, lines: int) -> list[str]:
    """Return the last lines that the processes of a unit logged since its last start, without systemd's own.

    Where systemd is just starting it again, those of the start before: the new process has said nothing yet.
    """
    # What a process that died at once has said may not be written yet.
    subprocess.run(["journalctl", "--sync"], capture_output=True, check=False)
    found = _logged(unit.name, lines, unit.started)
    # A start by hand sets the count to zero, so the start before this one had the same configuration.
    return found if found or not unit.restarts else _logged(unit.name, lines, _before(unit))


def logs(names: Sequence[str]) -> dict[str, str]:
    """Return what units logged since the boot, systemd's own lines included, and what systemctl says of them."""
    units = [word for name in names for word in ("-u", name)]
    subprocess.run(["journalctl", "--sync"], capture_output=True, check=False)
    # systemctl's exit code tells how they are: it is no failure.
    return {
        "journal": _printed(
            "journalctl", "-b", "-n", str(KEPT_LINES), "-o", "short-precise", "--no-pager", *units
        ),
        "status": _printed("systemctl", "status", "--no-pager", "--full", "--lines=0", *names)
        + _printed("systemctl", "list-units", "--failed", "--no-pager", "--plain"),
    }


def _printed(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def _before(unit: Unit) -> str:
    """Return when systemd started a unit the last time but one, as journalctl takes it."""
    query = ["journalctl", "-b", "-n", "2", "-o", "json", "--no-pager"]
    done = subprocess.run(
        [*query, f"UNIT={unit.name}", f"MESSAGE_ID={STARTING}"],
        capture_output=True,
        text=True,
        check=False,
    )
    starts = [json.loads(line)["__REALTIME_TIMESTAMP"] for line in done.stdout.splitlines()]
    return f"@{int(starts[0]) / 1e6:.6f}" if len(starts) > 1 else unit.started


def _logged(name: str, lines: int, since: str) -> list[str]:
    query = ["journalctl", "-b", "-n", str(lines), "-o", "cat", "--no-pager"]
    query += ["--since", since] if since else []
    # Not by invocation: journald often fails to learn it of a process that died at once.
    query.append(f"_SYSTEMD_UNIT={name}")
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.strip()]
