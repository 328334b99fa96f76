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
  - Host keys are verified. They come from the guest attributes that a machine publishes at boot, read with the same
    credentials as everything else.
  - The access token is fetched once for all hosts, and kept in O(known_hosts_dir) in a file that only its owner reads.
    It is in no argument and no environment.
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
  impersonate_service_account:
    description: Service account to act as. The credentials need V(roles/iam.serviceAccountTokenCreator) on it.
    type: str
    vars:
      - name: burst_impersonate_service_account
    env:
      - name: FLUX_BURST_IMPERSONATE_SERVICE_ACCOUNT
      - name: GOOGLE_IMPERSONATE_SERVICE_ACCOUNT
  known_hosts_dir:
    description: Directory for a file of host keys per machine and for the access token. Nobody else may write to it.
    type: path
    default: ~/.ansible/flux_burst
    env:
      - name: FLUX_BURST_KNOWN_HOSTS_DIR
  pipelining:
    description: Send modules over the connection that runs them, which spares a file and three round trips a task.
    type: boolean
    default: true
extends_documentation_fragment:
  - flux.burst._ssh
"""

import hashlib
import os
import shlex
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.ssh import Connection as SshConnection
from ansible.utils.path import unfrackpath
from ansible_collections.flux.burst.plugins.module_utils import _iap
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_boot import host_keys
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession


class Connection(SshConnection):
    """ssh with a ProxyCommand of ours and host keys that we put into its hands."""

    transport = "flux.burst.iap"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepared = False
        self._error_file = Path()

    def _build_command(self, *args: Any, **kwargs: Any) -> Any:
        if not self._prepared:
            self._prepare()
            self._prepared = True
        return super()._build_command(*args, **kwargs)

    def _prepare(self) -> None:
        """Point ssh at the tunnel, and give it the machine's host keys where no connection is open yet."""
        where = ("project", "zone", "instance", "instance_id", "endpoint")
        parts = [str(self.get_option(f"iap_{part}")) for part in where]
        # An open connection is a user's, so it must not serve another.
        text = "/".join(
            [*parts, str(self.get_option("port") or 22), str(self.get_option("remote_user"))]
        )
        key = hashlib.sha256(text.encode()).hexdigest()[:20]
        alias = f"iap-{key}"
        known_hosts = Path(self.get_option("known_hosts_dir")) / key
        control = Path(unfrackpath(self.get_option("control_path_dir"))) / alias
        self._error_file = known_hosts.with_name(f"{key}.error")
        if not (known_hosts.exists() and listens(control)):
            write_known_hosts(known_hosts, alias, self._host_keys())
            self._error_file.unlink(missing_ok=True)
        given = self.get_option("ssh_common_args")
        ours = ssh_options(self._proxy_command(), known_hosts, alias)
        self.set_option("ssh_common_args", f"{shlex.join(ours)} {given}")
        self.set_option("control_path", f"%(directory)s/{alias}")

    def _run(self, *args: Any, **kwargs: Any) -> tuple[int, bytes, bytes]:
        """Run ssh; where the tunnel failed, its own words are the error.

        With ControlPersist, ssh sends what a ProxyCommand says to /dev/null.
        """
        try:
            done: tuple[int, bytes, bytes] = super()._run(*args, **kwargs)
        except AnsibleConnectionFailure:
            if self._error_file.is_file():
                raise AnsibleConnectionFailure(self._error_file.read_text().strip()) from None
            raise
        return done

    def _host_keys(self) -> dict[str, str]:
        known: dict[str, str] = self.get_option("iap_host_keys")
        if known:
            return known
        where = ("iap_project", "iap_zone", "iap_instance", "boot_timeout")
        try:
            auth = Auth.from_environment(
                self.get_option("credentials_file"),
                self.get_option("impersonate_service_account"),
            )
            session = GceSession(self.get_option("compute_endpoint"), auth)
            return host_keys(session, *(self.get_option(name) for name in where))
        except GceError as error:
            raise AnsibleConnectionFailure(str(error)) from None

    def _proxy_command(self) -> list[str]:
        # -P: what lies beside that file is no package of anybody's.
        command = [sys.executable, "-P", _iap.__file__]
        for name, option in (
            ("project", "iap_project"),
            ("zone", "iap_zone"),
            ("instance", "iap_instance"),
            ("endpoint", "iap_endpoint"),
            ("ca-file", "iap_ca_file"),
            ("credentials-file", "credentials_file"),
            ("impersonate-service-account", "impersonate_service_account"),
        ):
            value = self.get_option(option)
            if value:
                command += [f"--{name}", str(value)]
        command += ["--port", str(self.get_option("port") or 22)]
        directory = str(self._error_file.parent)
        return [*command, "--directory", directory, "--error-file", str(self._error_file)]


def ssh_options(proxy_command: list[str], known_hosts: Path, alias: str) -> list[str]:
    """Return the ssh options that lead through a command and accept the given host keys only."""
    command = shlex.join(proxy_command).replace("%", "%%")
    options = {
        "ProxyCommand": command,
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
    }
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def listens(path: Path) -> bool:
    """Return whether a process listens on a Unix socket: one that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def write_known_hosts(path: Path, alias: str, keys: dict[str, str]) -> None:
    """Write a known_hosts file, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.writelines(f"{alias} {kind} {key}\n" for kind, key in sorted(keys.items()))
    os.replace(temporary, path)
