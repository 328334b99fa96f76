# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSH through Google's Identity-Aware Proxy."""

from __future__ import annotations

DOCUMENTATION = r"""
name: iap
short_description: SSH to Compute Engine machines through the Identity-Aware Proxy
version_added: 0.1.0
author:
  - flux.burst contributors (@flux-framework)
description:
  - The ssh connection of ansible-core, with every option of it, over a tunnel of our own through IAP. One tunnel serves
    a host for as long as ssh's master connection lives.
  - Host keys are verified, whatever ssh is told elsewhere. They come from the guest attributes that a machine publishes
    at boot, read with the same credentials as everything else, and are pinned in the burst's own known_hosts file. A
    machine whose guest attributes later say something else, or that presents another key, is refused.
  - Where a burst chose another way in, it is plain ssh to an address (O(via)), with the same host keys.
  - The access token is fetched once for all hosts of a burst, and kept in its directory (O(burst_directory)) in a file
    that only its owner reads. It is in no argument and no environment.
requirements:
  - ssh, the OpenSSH client
  - google-auth
  - requests
options:
  iap_project:
    description: Project of the machine.
    type: str
    required: true
    vars:
      - name: iap_project
  iap_zone:
    description: Zone of the machine.
    type: str
    required: true
    vars:
      - name: iap_zone
  iap_instance:
    description: Name of the machine in Compute Engine. Without it, its name in the inventory up to the first dot.
    type: str
    default: inventory_hostname_short
    vars:
      # Not inventory_hostname: where a task is delegated, that names the machine for which it is done.
      - name: inventory_hostname_short
      - name: iap_instance
  iap_instance_id:
    description: Its numeric id. A machine that is made again under the same name has another one.
    type: str
    default: ""
    vars:
      - name: iap_instance_id
  iap_host_keys:
    description: Its SSH host keys, by type, when they are known. Without them they are read from its guest attributes.
    type: dict
    default: {}
    vars:
      - name: iap_host_keys
  iap_endpoint:
    description: Where IAP's TCP relay is.
    type: str
    default: wss://tunnel.cloudproxy.app
    vars:
      - name: burst_iap_endpoint
  iap_ca_file:
    description: CA certificates to trust at the relay, instead of the system's.
    type: path
    vars:
      - name: burst_iap_ca_file
  compute_endpoint:
    description: Where the Compute Engine API is.
    type: str
    default: https://compute.googleapis.com
    vars:
      - name: burst_compute_endpoint
  credentials_file:
    description:
      - Credentials file, a service account's key or another one that C(gcloud) makes. Without it, application default
        credentials are used.
      - An access token in the environment variable E(FLUX_BURST_ACCESS_TOKEN) or E(GOOGLE_OAUTH_ACCESS_TOKEN) goes
        before it.
    type: path
    vars:
      - name: burst_credentials_file
  boot_timeout:
    description: How long a machine may take until it has published its host keys, in seconds.
    type: int
    default: 300
    vars:
      - name: burst_boot_timeout
  key_timeout:
    description:
      - How long a machine may refuse the key before that is taken for its answer, in seconds. Its guest agent lets it
        in a moment after the host keys are published, or after the metadata has changed.
    type: int
    default: 30
    env:
      - name: FLUX_BURST_KEY_TIMEOUT
    vars:
      - name: iap_key_timeout
  impersonate_service_account:
    description: Service account to act as. The credentials need V(roles/iam.serviceAccountTokenCreator) on it.
    type: str
    vars:
      - name: burst_impersonate_service_account
    env:
      - name: FLUX_BURST_IMPERSONATE_SERVICE_ACCOUNT
      - name: GOOGLE_IMPERSONATE_SERVICE_ACCOUNT
  burst_directory:
    description: Directory on the controller with one for each burst, in which the host keys of its machines are pinned.
    type: path
    default: ~/.ansible/flux_burst
    env:
      - name: FLUX_BURST_DIRECTORY
    vars:
      - name: burst_directory
  burst:
    description: The burst, whose directory is used.
    type: str
    default: flux-burst
    vars:
      - name: burst_name
      - name: iap_burst
  via:
    description:
      - V(iap) goes through the Identity-Aware Proxy, with one tunnel a machine.
      - V(gateway) goes through it to one machine of the burst (O(gateway)), and from there to all others, with one
        tunnel in all. What is sent is encrypted from end to end there, too.
      - V(internal) connects to the machine's internal address, from a controller in the same network, V(external) to
        its public one.
    type: str
    choices: [iap, gateway, internal, external]
    default: iap
    vars:
      - name: iap_via
  gateway:
    description: The machine that V(gateway) goes through, as C(instance), C(zone) and C(instance_id).
    type: dict
    default: {}
    vars:
      - name: iap_gateway
  internal_address:
    description: The machine's internal address.
    type: str
    vars:
      - name: gce_internal_ip
  external_address:
    description: The machine's public address, where it has one.
    type: str
    vars:
      - name: gce_external_ip
  pipelining:
    description: Send modules over the connection that runs them, which spares a file and three round trips a task.
    type: boolean
    default: true
extends_documentation_fragment:
  - flux.burst._ssh
"""

import hashlib
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.ssh import Connection as SshConnection
from ansible.utils.path import makedirs_safe, unfrackpath
from ansible_collections.flux.burst.plugins.module_utils import _burst_directory, _host_keys, _iap
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_boot import host_keys
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    GceSession,
    QuickSession,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_token import Tokens

PERSIST = "60s"
"""How long the connection to the gateway lives without one through it; Ansible's own default for a host's."""
GATEWAY_SECONDS = 60
DENIED = "Permission denied (publickey"
PAUSE = 1.0
"""Seconds between two attempts with a key that is refused."""
ENDING = 5.0
"""Seconds that an ssh that takes no more input has to end."""


@dataclass(frozen=True)
class Machine:
    """A machine in Compute Engine: what a tunnel leads to, and whose host keys are known."""

    project: str
    zone: str
    instance: str
    instance_id: str

    @property
    def alias(self) -> str:
        """Its name among the known hosts."""
        return _host_keys.alias(self.project, self.zone, self.instance, self.instance_id)


class Connection(SshConnection):
    """ssh with a ProxyCommand of ours and host keys that we put into its hands."""

    transport = "flux.burst.iap"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepared = False
        self._directory, self._error_file = Path(), Path()
        self._machine = Machine("", "", "", "")

    def _build_command(self, *args: Any, **kwargs: Any) -> Any:
        if not self._prepared:
            try:
                self._prepare()
            except BurstError as error:
                raise AnsibleConnectionFailure(str(error)) from None
            self._prepared = True
        return super()._build_command(*args, **kwargs)

    def _prepare(self) -> None:
        """Point ssh at the machine, and give it the machine's host keys where no connection is open yet.

        Raises BurstError.
        """
        parts = (
            self.get_option(f"iap_{it}") for it in ("project", "zone", "instance", "instance_id")
        )
        machine = self._machine = Machine(*map(str, parts))
        self._directory = _burst_directory.made(
            self.get_option("burst_directory"), self.get_option("burst")
        )
        control, self._error_file = self._control(machine), self._error_file_of(machine)
        via = self.get_option("via")
        if via == "gateway":
            way = self._through_gateway(machine)
        elif via == "iap":
            way = {"ProxyCommand": self._tunnel(machine)}
        else:
            way = {"HostName": self._address(via)}
        if not listens(control):
            known = self.get_option("iap_host_keys")
            machine = self._machine = machine if known else self._identified(machine)
            self._pin(machine, known)
            self._error_file.unlink(missing_ok=True)
        # First, because ssh takes the first that it is told: nothing switches the check of host keys off.
        self.set_option("host_key_checking", True)
        if self.get_option("private_key_file"):
            # Not those of an agent before it, of which sshd counts each as a failure.
            way["IdentitiesOnly"] = "yes"
        ours = shlex.join(words({**way, **self._trust(machine)}))
        self.set_option("ssh_args", f"{ours} {self.get_option('ssh_args') or ''}")
        self.set_option("control_path", f"%(directory)s/{control.name}")

    def _key(self, machine: Machine) -> str:
        """Return a short name for a connection: an open one is a user's and a way's, so it must not serve another."""
        parts = [
            *(machine.project, machine.zone, machine.instance, machine.instance_id),
            *map(str, (self.get_option("iap_endpoint"), self.get_option("port") or 22)),
            *map(str, (self.get_option("remote_user"), self.get_option("via"))),
        ]
        return hashlib.sha256("/".join(parts).encode()).hexdigest()[:20]

    def _control(self, machine: Machine) -> Path:
        directory = Path(unfrackpath(self.get_option("control_path_dir")))
        return directory / f"iap-{self._key(machine)}"

    def _error_file_of(self, machine: Machine) -> Path:
        return self._directory / f"{self._key(machine)}.error"

    def _address(self, via: str) -> str:
        address = self.get_option(f"{via}_address")
        if not address:
            raise GceError(
                f"stage tunnel: wanted the {via} address of {self._machine.instance}, found none: "
                "choose another burst_ssh_via, or delete the machine and run the burst again."
            )
        return str(address)

    def _pin(self, machine: Machine, known: dict[str, str]) -> None:
        """Read a machine's host keys and pin them, or see that they are those that were. Raises GceError."""
        keys = known or self._host_keys(machine)
        file = self._directory / _burst_directory.KNOWN_HOSTS
        _host_keys.pin(file, machine.alias, keys, machine.instance)

    def _session(self) -> GceSession:
        given = (
            self.get_option("credentials_file"),
            self.get_option("impersonate_service_account"),
        )
        tokens = Tokens(*given, str(self._directory))
        return QuickSession(
            self.get_option("compute_endpoint"), Auth.from_environment(*given), tokens
        )

    def _identified(self, machine: Machine) -> Machine:
        """Return a machine with its id, which an inventory that is written by hand does not have. Raises GceError."""
        if machine.instance_id:
            return machine
        found = self._session().get(
            f"projects/{machine.project}/zones/{machine.zone}/instances/{machine.instance}",
            fields="id",
        )
        return replace(machine, instance_id=found["id"])

    def _host_keys(self, machine: Machine) -> dict[str, str]:
        where = (machine.project, machine.zone, machine.instance)
        return host_keys(self._session(), *where, self.get_option("boot_timeout"))

    def _trust(self, machine: Machine) -> dict[str, str]:
        """Return the ssh options that accept the pinned keys of a machine only."""
        return trust(self._directory / _burst_directory.KNOWN_HOSTS, machine.alias)

    def _tunnel(self, machine: Machine) -> str:
        """Return the ProxyCommand that leads to a machine through IAP."""
        # -P: what lies beside that file is no package of anybody's.
        command = [sys.executable, "-P", _iap.__file__]
        for name, value in (
            ("project", machine.project),
            ("zone", machine.zone),
            ("instance", machine.instance),
            ("endpoint", self.get_option("iap_endpoint")),
            ("ca-file", self.get_option("iap_ca_file")),
            ("credentials-file", self.get_option("credentials_file")),
            ("impersonate-service-account", self.get_option("impersonate_service_account")),
        ):
            if value:
                command += [f"--{name}", str(value)]
        command += ["--port", str(self.get_option("port") or 22)]
        command += ["--directory", str(self._directory)]
        return proxy_command([*command, "--error-file", str(self._error_file_of(machine))])

    def _through_gateway(self, machine: Machine) -> dict[str, str]:
        """Open the connection to the gateway, where it is not open, and return the way to a machine from there."""
        given = self.get_option("gateway")
        if not given:
            raise GceError(
                f"stage tunnel: wanted a gateway to {machine.instance}, found no iap_gateway: use an inventory of "
                "plugin flux.burst.gce."
            )
        gateway = Machine(machine.project, given["zone"], given["instance"], given["instance_id"])
        control, ssh = self._control(gateway), self.get_option("ssh_executable")
        # One opens it, and whoever comes meanwhile waits: a tunnel for each would be what a gateway spares.
        with _burst_directory.locked(self._directory / f"{control.name}.lock"):
            if not listens(control):
                self._open(gateway, control, ssh)
        if gateway == machine:
            return {"ProxyCommand": self._tunnel(machine)}
        # Where the gateway's connection is gone, this one fails, and its next use opens both anew.
        through = {"ControlPath": str(control), "ControlMaster": "no", "ProxyCommand": "false"}
        command = proxy_command([ssh, *words(through)])
        return {
            "HostName": self._address("internal"),
            "ProxyCommand": f"{command} -W %h:%p {gateway.instance}",
        }

    def _open(self, gateway: Machine, control: Path, ssh: str) -> None:
        """Connect to the gateway and leave that connection to others. Raises GceError."""
        makedirs_safe(str(control.parent), 0o700)
        self._pin(gateway, {})
        error_file = self._error_file_of(gateway)
        error_file.unlink(missing_ok=True)
        options = {
            "ProxyCommand": self._tunnel(gateway),
            **self._trust(gateway),
            **{"BatchMode": "yes", "User": str(self.get_option("remote_user"))},
            **{"ControlPath": str(control), "ControlMaster": "yes", "ControlPersist": PERSIST},
            "ConnectTimeout": str(self.get_option("timeout")),
        }
        if self.get_option("private_key_file"):
            options["IdentitiesOnly"] = "yes"
            options["IdentityFile"] = f'"{Path(self.get_option("private_key_file")).expanduser()}"'
        if self.get_option("port"):
            options["Port"] = str(self.get_option("port"))
        command = [ssh, *words(options), "-N", "-f", gateway.instance]
        until = time.monotonic() + self.get_option("key_timeout")
        text = connected(command)
        while text and denied_yet(text, until):
            text = connected(command)
        if text:
            raise GceError(
                self._said(gateway, text, error_file)
                + f" ({gateway.instance} is the gateway to all others; burst_ssh_via=iap does without.)"
            )

    def _run(self, *args: Any, **kwargs: Any) -> tuple[int, bytes, bytes]:
        """Run ssh; where the machine is not the one that is known, or the tunnel failed, that is the error.

        With ControlPersist, ssh sends what a ProxyCommand says to /dev/null.
        """
        until = time.monotonic() + self.get_option("key_timeout")
        while True:
            try:
                done: tuple[int, bytes, bytes] = super()._run(*args, **kwargs)
            except AnsibleConnectionFailure as error:
                if denied_yet(str(error), until):
                    continue
                said = self._said(self._machine, str(error), self._error_file)
                if said == str(error):
                    raise
                raise AnsibleConnectionFailure(said) from None
            return done

    def _send_initial_data(self, fh: Any, in_data: bytes, ssh_process: Any) -> None:
        """Send a task's input. Where ssh takes it no more, what ssh says as it ends is the error.

        Ansible gives ssh a millisecond to end.
        """
        try:
            super()._send_initial_data(fh, in_data, ssh_process)
        except AnsibleConnectionFailure as error:
            try:
                ssh_process.wait(ENDING)
            except subprocess.TimeoutExpired:
                raise error from None

    def _said(self, machine: Machine, text: str, error_file: Path) -> str:
        """Return what is to be said of a connection that failed with ssh's text."""
        if _host_keys.REFUSED in text:
            file = self._directory / _burst_directory.KNOWN_HOSTS
            known, found = _host_keys.pinned(file, machine.alias), _host_keys.presented(text)
            if known:
                return _host_keys.refusal(file, machine.alias, known, machine.instance, found)
        return error_file.read_text().strip() if error_file.is_file() else text


def connected(command: list[str]) -> str:
    """Run an ssh that goes into the background once it is connected; return what it said when it is not, else ""."""
    # Not into a pipe: the connection keeps it open as long as it lives.
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                timeout=GATEWAY_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no connection within {GATEWAY_SECONDS} s"
        said.seek(0)
        return (said.read().strip() or f"exit code {done.returncode}") if done.returncode else ""


def denied_yet(text: str, until: float) -> bool:
    """Return whether ssh's text says that the key is refused, after a pause, where there is time to try again."""
    if DENIED not in text or time.monotonic() + PAUSE > until:
        return False
    time.sleep(PAUSE)
    return True


def trust(known_hosts: Path, alias: str) -> dict[str, str]:
    """Return the ssh options that accept the given host keys only."""
    return {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
    }


def proxy_command(command: list[str]) -> str:
    """Return a command for ssh to go through, in which nothing is a token of ssh."""
    return shlex.join(command).replace("%", "%%")


def words(options: dict[str, str]) -> list[str]:
    """Return options as ssh's arguments."""
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def listens(path: Path) -> bool:
    """Return whether a process listens on a Unix socket: one that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True
