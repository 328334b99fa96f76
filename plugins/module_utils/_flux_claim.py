# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims on jobs: a log for each job in Flux's key-value store (RFC 11), of which only appending is asked.

Flux has no compare-and-set. But it puts appends to one key into one order that all readers see, and who is first in
that order holds the claim: of two controllers that append at the same time, both read the same winner afterwards.
The store belongs to the instance's owner, is checkpointed with each commit, and is not the job's own, so that a
claim changes nothing of what the job means. A memo on the job shows the claim to users (flux jobs -o
'{user.burst.name}'); it is a copy.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_answers
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError

FOLDER, HOSTS, LOCKS = "burst.claims", "burst.hosts", "burst.locks"
NAMESPACE = "primary"
APPEND = 32
# The commit returns when it is on disk: a claim that was told survives the broker's death.
SYNC = 4


@dataclass(frozen=True)
class Claim:
    """A burst holds a job until a time (epoch seconds); `by` is the controller, for people to read."""

    burst: str
    until: float
    by: str = ""


def line(claim: Claim, now: float) -> str:
    """Return the entry that claims."""
    return json.dumps({"t": now, **asdict(claim)}) + "\n"


def release_line(burst: str, now: float) -> str:
    """Return the entry that gives a claim back."""
    return json.dumps({"t": now, "burst": burst, "release": True}) + "\n"


def holder(log: str) -> Claim | None:
    """Return who holds the job after all of the log: the first, until it released or expired.

    Expiry is judged by the times within the log, so that every reader of the same log finds the same holder. What is
    not an entry of ours is passed over.
    """
    held: Claim | None = None
    for text in log.splitlines():
        try:
            entry = json.loads(text)
            when, burst = float(entry["t"]), str(entry["burst"])
            if entry.get("release"):
                held = None if held is not None and held.burst == burst else held
            elif held is None or held.burst == burst or held.until <= when:
                until = float(entry["until"])
                if math.isfinite(until):
                    held = Claim(burst, until, str(entry.get("by", "")))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            continue
    return held


class Claims:
    """The claims of one instance: on jobs by their id in base 58, in folder HOSTS on hosts that may be booted,
    or in folder LOCKS on a burst itself, where who holds it is a controller."""

    def __init__(self, client: _flux.FluxClient, folder: str = FOLDER) -> None:
        self.client, self.folder = client, folder

    def read(self, ids: Iterable[str] | None = None) -> dict[str, Claim]:
        """Return the claims on these jobs, or all; expired ones too. Raises FluxError."""
        try:
            found = self._lookup(self.folder, _flux_answers.READDIR)["data"]
        except FluxError as error:
            if error.errno != _flux.ENOENT:
                raise
            return {}
        wanted = {name: found[name] for name in (found if ids is None else ids) if name in found}
        # A log of one entry lies in the folder itself; a longer one is looked up.
        logs = {name: _text(entry) for name, entry in wanted.items() if entry["type"] == "val"}
        longer = [name for name in wanted if name not in logs]
        questions = [
            {"key": f"{self.folder}.{name}", "namespace": NAMESPACE, "flags": 0} for name in longer
        ]
        for name, answer in zip(longer, self.client.rpc_each("kvs.lookup", questions), strict=True):
            logs[name] = _text(answer["val"]) if answer else ""
        held = {name: holder(log) for name, log in logs.items()}
        return {name: claim for name, claim in held.items() if claim is not None}

    def append(self, entries: Mapping[str, str]) -> None:
        """Append one entry to each of these logs: all of them or, with a FluxError, none."""
        self._commit(
            {
                "key": f"{self.folder}.{name}",
                "flags": APPEND,
                "dirent": {
                    "ver": 1,
                    "type": "val",
                    "data": base64.b64encode(text.encode()).decode(),
                },
            }
            for name, text in entries.items()
        )

    def forget(self, ids: Iterable[str]) -> None:
        """Remove the logs of jobs that have ended; nobody claims those any more."""
        self._commit({"key": f"{self.folder}.{name}", "flags": 0, "dirent": None} for name in ids)

    def show(self, numbers: Mapping[str, int], claims: Mapping[str, Claim | None]) -> list[str]:
        """Put each job's claim, or None, into its memo; return the jobs that are gone."""
        names: Sequence[str] = list(claims)
        questions = [
            {"id": numbers[name], "volatile": False, "memo": {"burst": _memo(claims[name])}}
            for name in names
        ]
        answers = self.client.rpc_each("job-manager.memo", questions)
        return [name for name, answer in zip(names, answers, strict=True) if answer is None]

    def _lookup(self, key: str, flags: int) -> dict[str, Any]:
        question = {"key": key, "namespace": NAMESPACE, "flags": flags}
        found: dict[str, Any] = self.client.rpc("kvs.lookup", question)["val"]
        return found

    def _commit(self, operations: Iterable[dict[str, Any]]) -> None:
        made = list(operations)
        if made:
            self.client.rpc("kvs.commit", {"namespace": NAMESPACE, "flags": SYNC, "ops": made})


def _memo(claim: Claim | None) -> dict[str, Any] | None:
    return {"name": claim.burst, "until": claim.until} if claim else None


def _text(entry: Mapping[str, Any]) -> str:
    """Return what an entry holds, "" for one that is not as ours are."""
    try:
        return base64.b64decode(entry["data"]).decode("utf-8", "replace")
    except (KeyError, TypeError, ValueError):
        return ""
