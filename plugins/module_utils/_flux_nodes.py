# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes of an instance awaited by the lead's own events, and what it knows of those that do not come."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _curve,
    _diagnose,
    _flux,
    _flux_queue,
    _flux_resource,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError

EVENTS = ("online", "offline", "drain", "undrain")
# A job's end is no event of the resource journal: while jobs are awaited the lead is asked once in so many seconds.
LOOK = 0.5
LOG_LINES = 4
# Lines that are older than the wait by so many seconds are of something else.
LOG_AGE = 120.0
PROOF_LIMIT = 30


def chosen(client: _flux.FluxClient, hosts: Sequence[str]) -> list[_flux_resource.Rank]:
    """Return the ranks of these hosts. Raises FluxError for hosts that R does not declare."""
    by_host = {rank.host: rank for rank in _flux_resource.read(client)}
    unknown = [host for host in hosts if host not in by_host]
    if unknown:
        raise FluxError(
            f"wanted hosts that the lead's R declares, found {', '.join(unknown)} not in it: "
            "compare burst_hostlist with flux resource list on the lead."
        )
    return [by_host[host] for host in hosts]


class Watch:
    """What the lead's resource journal says of some ranks, from its beginning on.

    The state after an event is known without another question, and waiting costs the lead nothing.
    """

    def __init__(self, client: _flux.FluxClient, ranks: Iterable[int]) -> None:
        self.ranks = set(ranks)
        self.online: set[int] = set()
        self.drained: set[int] = set()
        self.events: dict[int, list[dict[str, Any]]] = {rank: [] for rank in self.ranks}
        self.seen: set[int] = set()
        self.client = client
        self.stream = client.stream("resource.journal")
        while self._take(self.stream.next()):
            pass

    def wait(self, limit: float) -> None:
        """Take the next events, or return when none came in `limit` seconds."""
        self._take(self.stream.next(limit))

    def _take(self, text: str | None) -> bool:
        events = self.client.read("resource.journal", text)["events"] if text else []
        for event in events:
            self._note(event)
        return bool(events)

    def _note(self, event: Mapping[str, Any]) -> None:
        name, context = event["name"], event.get("context") or {}
        if name == "restart":
            self.online = set(_flux_resource.idset(context.get("online", "")))
            return
        if name not in EVENTS:
            return
        named = set(_flux_resource.idset(context.get("idset", "")))
        if name == "online":
            self.online |= named
        elif name == "offline":
            self.online -= named
        elif name == "drain":
            self.drained |= named
        else:
            self.drained -= named
        self.seen |= named
        for rank in named & self.ranks:
            self.events[rank].append({"name": name, "time": event["timestamp"]})


def await_none(
    watch: Watch, bad: Callable[[], set[int]], timeout: float, look: float | None = None
) -> set[int]:
    """Wait until no rank is bad, `timeout` seconds at most; return those that are.

    With `look` it is asked again after so many seconds without an event.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = bad()
        left = deadline - time.monotonic()
        if not found or left <= 0:
            return found
        watch.wait(left if look is None else min(left, look))


def jobs_on(client: _flux.FluxClient, ranks: set[int]) -> dict[int, list[str]]:
    """Return the ids of the jobs on each of these ranks."""
    found: dict[int, list[str]] = {rank: [] for rank in sorted(ranks)}
    question = {"max_entries": 0, "attrs": ["ranks"], "constraint": {"states": ["running"]}}
    for job in client.rpc("job-list.list", question)["jobs"] if found else []:
        for rank in ranks & set(_flux_resource.idset(job.get("ranks", ""))):
            found[rank].append(f"job {_flux_queue.f58(job['id'])}")
    return found


def lead_log(client: _flux.FluxClient, since: float) -> list[str]:
    """Return what the lead logged since a time (epoch seconds) that is a warning at least, see flux-dmesg(1)."""
    stream, found = client.stream("log.dmesg", {"follow": False, "nobacklog": False}), []
    while (text := stream.next()) is not None:
        # As in RFC 5424, but Flux writes severity * 8 + facility; what is below a warning (4) tells nothing.
        head, _unused, message = text.partition(" - - ")
        fields = re.match(r"<(\d{1,9})>\d+ (\S+)", head)
        if fields and int(fields[1]) // 8 <= 4 and _epoch(fields[2]) > since:
            found.append(message.strip())
    return found


def _epoch(text: str) -> float:
    """Return a time of the lead's log in seconds since the epoch, 0 for one that cannot be read."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def speaking_of(lines: Iterable[str], host: str, rank: int) -> list[str]:
    """Return the last of these lines that speak of a node."""
    told = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])|\(rank {rank}\)|handshake failed")
    return [line for line in lines if told.search(line)][-LOG_LINES:]


class Tree:
    """Who is whose parent in the overlay, as the lead declares it."""

    def __init__(self, bootstrap: Mapping[str, Any]) -> None:
        rows = [
            (name, str(entry.get("parent", "")))
            for entry in bootstrap.get("hosts") or []
            for name in _flux.hosts([str(entry["host"])])
        ]
        self.ranks = {name: rank for rank, (name, _unused) in enumerate(rows)}
        # The lead is everyone's where nothing else is said.
        self.parents = {
            name: parent for name, parent in rows if parent and self.ranks.get(parent) != 0
        }

    @classmethod
    def of(cls, client: _flux.FluxClient) -> Tree:
        """Return that of an instance."""
        return cls(client.rpc("config.get").get("bootstrap") or {})

    def lost(self, host: str, online: Collection[int]) -> bool:
        """Return whether a host has a parent that is not online, and so cannot be online itself."""
        parent = self.parents.get(host, "")
        return bool(parent) and self.ranks.get(parent, -1) not in online

    def below(
        self,
        ranks: Sequence[_flux_resource.Rank],
        online: Collection[int],
        reports: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, list[str]]:
        """Return which of these nodes are missing for no other reason than their parent, by parent."""
        found: dict[str, list[str]] = {}
        for rank in ranks:
            # A task that failed on the machine tells of a reason of its own.
            if self.lost(rank.host, online) and "failure" not in (reports.get(rank.host) or {}):
                found.setdefault(self.parents[rank.host], []).append(rank.host)
        return found


def findings(
    client: _flux.FluxClient,
    ranks: Sequence[_flux_resource.Rank],
    watch: Watch,
    reports: Mapping[str, Mapping[str, Any]],
    waited: float,
) -> list[_diagnose.Finding]:
    """Return for each of these nodes why it is not there, though it was waited for so many seconds.

    reports are what flux_broker found on the machines themselves, by hostname. Where nothing else tells, the message of
    why a machine was not configured is the finding. Nodes below one in the overlay that is not there are told with it.
    """
    if not ranks:
        return []
    found, lines = [], lead_log(client, time.time() - LOG_AGE - waited)
    bootstrap = client.rpc("config.get").get("bootstrap") or {}
    certificate = _curve.known_fingerprint(bootstrap.get("curve_cert", ""))
    tree = Tree(bootstrap)
    below = tree.below(ranks, watch.online, reports)
    told_with = {host for hosts in below.values() for host in hosts}
    for rank in ranks:
        if rank.host in told_with:
            continue
        report = reports.get(rank.host) or {}
        evidence = _diagnose.Evidence(
            host=rank.host,
            rank=rank.rank,
            hostname=str(report.get("hostname", "")),
            status=str(report.get("status", "")),
            exit_code=int(report.get("exit_code", 0)),
            log=tuple(map(str, report.get("log", ()))),
            lead_port=str(report.get("lead_port", "")),
            lead_log=tuple(speaking_of(lines, rank.host, rank.rank)),
            certificate=str(report.get("certificate", "")),
            lead_certificate=certificate,
            overlay=rank.overlay_error,
            drain_reason=rank.drain_reason or "",
            parent=tree.parents.get(rank.host, ""),
            reached=bool(report) or rank.rank in watch.seen,
        )
        own = [_diagnose.diagnose(evidence)]
        if "failure" in report and own[0].stage in _diagnose.VAGUE:
            own = _diagnose.of_message(rank.host, str(report["failure"]))
        if rank.host in below:
            own[0] = _gateway(own[0], below.pop(rank.host), tree, watch)
        found += own
    again = "run the burst again, which makes it again"
    return found + [
        _gateway(_diagnose.Finding(host, "overlay", "", again), hosts, tree, watch)
        for host, hosts in below.items()
    ]


def _gateway(
    finding: _diagnose.Finding, below: Sequence[str], tree: Tree, watch: Watch
) -> _diagnose.Finding:
    seen = tree.ranks.get(finding.host, -1) in watch.seen
    return _diagnose.gateway(finding, below, _flux.hostlist(below), seen=seen)


# What a node must be able to do that Flux itself does not ask when it joins; one line for each that it cannot.
PROOF = r"""
cred=$(cat) uid=$1 imp=$2 shell=$3 users=$4
shift 4
test "$(id -u)" = "$uid" || echo "uid $(id -u), wanted $uid"
if test -n "$cred"; then
  # Of a clock that is off only the status tells.
  said=$(printf %s "$cred" | unmunge --keys=STATUS --output=/dev/null 2>&1) || echo "munge: $said"
fi
if test -n "$imp"; then
  test -u "$imp" || echo "flux-imp: IMP not installed setuid: $imp"
  "$imp" exec </dev/null 2>&1 | grep -E 'allowed-users|No config file|insecure file'
fi
test -x "$shell" || echo "error launching process: No such file or directory: $shell"
for user in $users; do getent passwd "$user" >/dev/null || echo "exec: userid $user is invalid on $(hostname)"; done
for wanted; do
  found=$wanted
  until test -e "$found"; do found=$(dirname "$found"); done
  # What lies in a directory that is closed to the instance's owner is not known.
  test -d "$wanted" || ! test -x "$found" || echo "no directory $wanted"
done
exit 0
"""
NO_DIRECTORY = "no directory "
# Less than a command line may have on any Linux, with room for the rest of it.
ARGUMENTS_BYTES = 1 << 16


def _as_arguments(directories: Sequence[str]) -> list[str]:
    """Return as many of the jobs' directories as a command line has room for, each in a line of its own.

    A job's owner may have written anything: a line break in a name would pass for another finding.
    """
    found, room = [], ARGUMENTS_BYTES
    for directory in directories:
        room -= len(os.fsencode(directory)) + 1 if directory.isprintable() else 0
        if room < 0:
            break
        if directory.isprintable():
            found.append(directory)
    return found


def prove(
    uri: str,
    ranks: Sequence[_flux_resource.Rank],
    uid: int,
    imp: str,
    jobs: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[_diagnose.Finding], dict[str, list[str]]]:
    """Run a command on each node through Flux, and return what is wrong there.

    It shows that tasks start, that the owner's uid, the IMP and the shell are right, that the users of these jobs are
    known, and that munge decodes what the lead encoded: a node where it does not looks free and fails every job of
    other users. The second value has the directories of jobs that are missing, with the hosts where they are.
    Raises FluxError where nothing could be run.
    """
    users = sorted({str(job["user_id"]) for job in jobs if "user_id" in job})
    directories = _as_arguments(sorted({str(job["cwd"]) for job in jobs if job.get("cwd")}))
    try:
        made = subprocess.run(["munge", "-n"], capture_output=True, text=True, check=False)
        credential = made.stdout if made.returncode == 0 else ""
        environment = {**os.environ, "FLUX_URI": uri, "LC_ALL": "C"}
        words = ["flux", "config", "builtin", "shell_path"]
        asked = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        shell = asked.stdout.strip() or "/bin/sh"
        # Flux takes no idset that is out of order.
        numbers = sorted(rank.rank for rank in ranks)
        command = ["flux", "exec", "-l", "-r", ",".join(map(str, numbers)), "--"]
        command += ["sh", "-c", PROOF, "proof", str(uid), imp, shell, " ".join(users)]
        done = subprocess.run(
            command + directories,
            input=credential,
            capture_output=True,
            text=True,
            check=False,
            timeout=PROOF_LIMIT,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FluxError(
            f"wanted a command run on the nodes by flux exec within {PROOF_LIMIT} s, found '{error}': "
            "see flux dmesg on the lead."
        ) from None
    said: dict[int, list[str]] = {}
    missing: dict[str, list[str]] = {}
    names = {rank.rank: rank.host for rank in ranks}
    for line in [*done.stdout.splitlines(), *done.stderr.splitlines()]:
        row = re.match(r"(\d+): (.*)", line) or re.search(r"rank (\d+): (.*)", line)
        host = names.get(int(row[1])) if row else None
        if row and host and row[2].startswith(NO_DIRECTORY):
            missing.setdefault(row[2].removeprefix(NO_DIRECTORY), []).append(host)
        elif row:
            said.setdefault(int(row[1]), []).append(row[2])
    if done.returncode and not said:
        raise FluxError(
            f"wanted a command run on the nodes by flux exec, found exit code {done.returncode} "
            f"('{done.stderr.strip()}'): see flux dmesg on the lead."
        )
    found = [
        _diagnose.diagnose(
            _diagnose.Evidence(rank.host, rank.rank, proof="\n".join(said[rank.rank]), reached=True)
        )
        for rank in ranks
        if rank.rank in said
    ]
    return found, missing
