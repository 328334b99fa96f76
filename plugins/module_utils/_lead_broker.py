# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A broker of the lead's cluster on this machine: its configuration tried, replaced, and taken by a restart."""

from __future__ import annotations

import glob
import os
import pwd
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _broker,
    _files,
    _flux,
    _flux_nodes,
    _flux_queue,
    _flux_resource,
    _units,
)
from ansible_collections.flux.burst.plugins.module_utils._changes import Change, Stage, apply
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, FluxError

TRIAL_SECONDS = 60
POLL = 0.2
UP = ("free", "allocated", "drained", "draining")
# Kept in sync with _lead_toml.py, which runs on the controller.
PORT, CERT = "@port@", "@cert@"


@dataclass(frozen=True)
class Edited:
    """What the controller made of the files, see _lead_toml.py.

    machines are the burst's, properties those that R must give each of them, and gateway is the machine which is the
    overlay parent of the others, "" for none.
    """

    files: Mapping[str, str]
    trial: Mapping[str, str]
    hosts: Sequence[str]
    machines: Sequence[str]
    properties: Sequence[str]
    gateway: str = ""


@dataclass(frozen=True)
class Policy:
    """When the broker may restart: not at all, or with jobs only where over_jobs is the lead's name."""

    restart: bool
    over_jobs: str
    timeout: float


def texts(config_dir: str) -> dict[str, str]:
    """Return the TOML files of a directory by path. Raises BurstError."""
    found = {}
    for path in sorted(glob.glob(os.path.join(config_dir, "*.toml"))):
        try:
            with open(path, encoding="utf-8", newline="") as file:
                found[path] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise BurstError(
                f"{path}: wanted to read it as UTF-8, found '{error}': correct that."
            ) from None
    if not found:
        raise BurstError(
            f"wanted the broker's *.toml files in {config_dir}, found none: set lead_config_dir to the directory that "
            "flux broker has as --config-path."
        )
    return found


def known_ranks(uri: str, timeout: float) -> list[dict[str, Any]]:
    """Return what the running lead knows of its ranks; nothing where no lead answers here."""
    try:
        client = _flux.FluxClient(uri, timeout)
        if client.attribute("rank") == "0":
            return [asdict(rank) for rank in _flux_resource.read(client)]
    except FluxError:
        pass
    return []


class LeadBroker:
    """The broker of a unit, and the files of its configuration as they are to be."""

    def __init__(
        self, uri: str, rpc_timeout: float, service: str, edited: Edited, policy: Policy
    ) -> None:
        self.uri, self.rpc_timeout, self.service = uri, rpc_timeout, service
        self.edited, self.policy = edited, policy
        self.name = socket.gethostname()
        self.hosts = _flux.hosts(edited.hosts)
        if self.name not in self.hosts:
            raise BurstError(
                f"wanted {self.name} in [bootstrap] hosts, as it runs a broker of the instance, found it not there: "
                "take it out of the group flux_lead or flux_lead_workers, or correct hosts."
            )
        self.leads = self.name == self.hosts[0]
        self.before: list[_files.File] = []
        self.was_up: list[str] = []
        self.warnings: list[str] = []

    def run(self, *, check: bool) -> dict[str, Any]:
        """Do what is asked and return what exit_json takes. Raises BurstError; then nothing was changed."""
        files = self._file_changes()
        restart = self._restarts()
        if files or restart:
            self._try()
        if restart:
            self._refuse_with_jobs()
        result = apply([files, restart], self._act, check=check)
        if self.leads and self.policy.restart and not (check and restart):
            self._look_at_the_others()
        return {**result, "hosts": self.hosts}

    def _file_changes(self) -> list[Change]:
        changes = []
        for path, text in self.edited.files.items():
            found = _files.read(_files.File(path, b"", "", "", 0))
            if found is None:
                raise BurstError(f"{path}: wanted it still there, found it gone: run again.")
            wanted = _files.File(path, text.encode(), found.owner, found.group, found.mode)
            change = _files.difference(wanted, found)
            if change:
                self.before.append(found)
                changes.append(change)
        return changes

    def _client(self) -> _flux.FluxClient:
        return _flux.FluxClient(self.uri, self.rpc_timeout)

    def _restarts(self) -> list[Change]:
        """Hosts and R are fixed when a broker starts: what it runs with is compared, not the files before."""
        if not self.policy.restart:
            return []
        if not self.leads and _units.show(self.service).active in ("inactive", "failed"):
            # It takes the files when it starts.
            return []
        self._await_running()
        client = self._client()
        running = _flux.hosts([client.attribute("hostlist")])
        before: dict[str, Any] = {"hosts": _flux.hostlist(running)}
        after: dict[str, Any] = {"hosts": _flux.hostlist(self.hosts)}
        if self.leads:
            lacking = self._lacking(client)
            if lacking:
                before["resources"] = f"without {_flux.hostlist(lacking)}"
                after["resources"] = f"with {_flux.hostlist(lacking)}"
            moved = self._elsewhere(client, running)
            if moved:
                gateway = self.edited.gateway
                before["topology"] = f"other parents of {_flux.hostlist(moved)}"
                after["topology"] = f"gateway {gateway}" if gateway else "flat"
        if before == after:
            return []
        return [Change("unit", self.service, "update", before, {**after, "restarted": True})]

    def _lacking(self, client: _flux.FluxClient) -> list[str]:
        """Return the machines that the running lead's R has not, or without a property that they are to have."""
        ranks = {rank.host: rank for rank in _flux_resource.read(client)}
        self.was_up = [
            rank.host
            for rank in ranks.values()
            if rank.state in UP and rank.host not in (self.name, *self.edited.machines)
        ]
        return [
            host
            for host in self.edited.machines
            if host not in ranks or set(self.edited.properties) - set(ranks[host].properties)
        ]

    def _elsewhere(self, client: _flux.FluxClient, running: Sequence[str]) -> list[str]:
        """Return the machines whose parent in the running overlay is another than it is to be."""
        parents: dict[str, str] = {}
        below = [client.rpc("overlay.topology", {"rank": 0})]
        while below:
            router = below.pop()
            for child in router["children"]:
                parents[running[child["rank"]]] = running[router.get("rank", 0)]
                below.append({"children": [], **child})
        gateway = self.edited.gateway
        return [
            host
            for host in self.edited.machines
            if host in parents
            and parents[host] != (gateway if gateway and host != gateway else self.name)
        ]

    def _await_running(self) -> None:
        """A worker's broker leaves with its lead and comes again by itself, which takes its unit's RestartSec."""
        deadline = time.monotonic() + self.policy.timeout
        while True:
            unit = _units.show(self.service)
            if unit.active == "active" and unit.status_text.startswith(_broker.JOINED):
                return
            if unit.active in ("inactive", "failed") or time.monotonic() > deadline:
                said = " | ".join(_broker.telling(_units.journal(unit, _broker.JOURNAL_LINES)))
                raise BurstError(
                    f"wanted {self.service} running on {self.name} within {self.policy.timeout:.0f} s, found it "
                    f"{unit.active} with status '{unit.status_text}' (log: {said or 'nothing'}): put that right and "
                    "run again."
                )
            time.sleep(POLL)

    def _refuse_with_jobs(self) -> None:
        """Raise where the restart would end jobs, unless the lead was named for it."""
        over, lead = self.policy.over_jobs, self.hosts[0]
        if over not in ("", lead):
            raise BurstError(
                f"lead_restart_over_jobs: wanted the lead's name {lead}, found {over}: give that name, or leave it out."
            )
        jobs = [] if over else self._jobs()
        if jobs:
            raise BurstError(
                f"wanted no job while {self.service} on {self.name} restarts, which ends them, found "
                f"{', '.join(jobs)}: wait for them, or end them by lead_restart_over_jobs={lead}. Nothing was "
                "changed."
            )

    def _jobs(self) -> list[str]:
        client = self._client()
        if not self.leads:
            rank = int(client.attribute("rank"))
            return _flux_nodes.jobs_on(client, {rank})[rank]
        states = ["running"] if self._keeps_jobs(client) else ["running", "pending"]
        question = {"max_entries": 0, "attrs": ["state"], "constraint": {"states": states}}
        found = client.rpc("job-list.list", question)["jobs"]
        return [f"job {_flux_queue.f58(job['id'])}" for job in found]

    @staticmethod
    def _keeps_jobs(client: _flux.FluxClient) -> bool:
        """Without a directory for its state a lead forgets the jobs that wait."""
        try:
            return bool(client.attribute("statedir"))
        except FluxError:
            return False

    def _try(self) -> None:
        """Start a broker with these files, as rank 0 on loopback. Raises BurstError with its words."""
        user = _units.show(self.service).user
        with tempfile.TemporaryDirectory(prefix="flux-burst-") as folder:
            config, rundir = os.path.join(folder, "config"), os.path.join(folder, "run")
            cert = os.path.join(folder, "curve.cert")
            for made in (config, rundir):
                os.mkdir(made)
            with socket.socket() as trial:
                trial.bind(("127.0.0.1", 0))
                port = trial.getsockname()[1]
            for path, text in self.edited.trial.items():
                with open(os.path.join(config, os.path.basename(path)), "w") as file:
                    file.write(text.replace(PORT, str(port)).replace(CERT, cert))
            if user and os.geteuid() == 0:
                owner = pwd.getpwnam(user)
                for path in (folder, rundir):
                    os.chown(path, owner.pw_uid, owner.pw_gid)
            _as(user, folder, "flux", "keygen", cert)
            words = ["flux", "broker", f"--config-path={config}", f"-Shostname={self.hosts[0]}"]
            words += [f"-Srundir={rundir}", "-Sbroker.quorum=1", "true"]
            done = _as(user, folder, *words)
        if done.returncode:
            said = " | ".join(_broker.telling(done.stderr.splitlines())).replace(folder, "")
            raise BurstError(
                f"wanted a broker to start with the new configuration, found '{said or done.returncode}': correct "
                f"{', '.join(self.edited.files)}. Nothing was changed."
            )

    def _act(self, stage: Stage) -> None:
        if stage[0].kind == "file":
            changed = {file.path: file for file in self.before}
            self._place(
                [
                    _files.File(
                        path,
                        self.edited.files[path].encode(),
                        file.owner,
                        file.group,
                        file.mode,
                    )
                    for path, file in changed.items()
                ]
            )
            return
        try:
            _units.systemctl("restart", self.service)
            self._await_running()
        except BurstError as error:
            self._back(error)

    @staticmethod
    def _place(files: Sequence[_files.File]) -> None:
        with _files.Placement(files) as placement:
            placement.stage()
            placement.commit()

    def _back(self, error: BurstError) -> None:
        """Let the broker run as before, and say why."""
        self._place(self.before)
        try:
            _units.systemctl("restart", self.service)
            self._await_running()
        except BurstError as again:
            raise BurstError(f"{error} With the old configuration again: {again}") from None
        raise BurstError(f"{error} The old configuration is back and runs.") from None

    def _look_at_the_others(self) -> None:
        """Wait for brokers that were up, and name those that know fewer hosts: they refuse to talk to the others."""
        client = self._client()
        ranks = {rank.host: rank.rank for rank in _flux_resource.read(client)}
        watch = _flux_nodes.Watch(client, [ranks[host] for host in self.was_up if host in ranks])
        away = _flux_nodes.await_none(
            watch, lambda: watch.ranks - watch.online, self.policy.timeout
        )
        names = {rank: host for host, rank in ranks.items()}
        if away:
            self.warnings.append(
                f"wanted {_flux.hostlist(names[rank] for rank in sorted(away))} back within "
                f"{self.policy.timeout:.0f} s of the restart, found it away: see journalctl -u flux there"
            )
        behind = [
            names[rank]
            for rank in sorted(watch.online & set(names))
            if self._size(client, rank) not in ("", str(len(self.hosts)))
        ]
        if behind:
            self.warnings.append(
                f"wanted the same hosts in [bootstrap] on every broker, found others on {_flux.hostlist(behind)}: put "
                "these into the group flux_lead_workers, or copy hosts there and restart flux"
            )

    @staticmethod
    def _size(client: _flux.FluxClient, rank: int) -> str:
        try:
            return str(client.rpc("attr.get", {"name": "size"}, rank)["value"])
        except FluxError:
            # It has just left.
            return ""


def _as(user: str, folder: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the instance's owner, without a broker that is around it. Raises BurstError."""
    become = ["runuser", "-u", user, "--"] if user and os.geteuid() == 0 else []
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLUX_")}
    try:
        return subprocess.run(
            [*become, *words],
            cwd=folder,
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        said = f"no end of it within {TRIAL_SECONDS} s"
    except OSError as error:
        said = str(error)
    raise BurstError(
        f"wanted {' '.join(words[:2])} to try the new configuration, found {said}: see whether Flux runs on this "
        "machine. Nothing was changed."
    )
