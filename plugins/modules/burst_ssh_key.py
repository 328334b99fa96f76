# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH key pair of a burst."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_ssh_key
short_description: The SSH key pair of a burst
version_added: 0.1.0
description:
  - Makes an ed25519 key pair that lives as long as its burst, in the burst's own directory on the controller. The
    private key is readable for its owner alone, and is returned nowhere.
  - One that exists is kept. A public key that is missing or is another's is written again.
author:
  - flux.burst contributors (@flux-framework)
options:
  burst:
    description: Name of the burst.
    type: str
    required: true
  state:
    description: Whether the key pair shall exist.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description:
      - Directory with one for each burst. The environment variable E(FLUX_BURST_DIRECTORY) is used without it, and then
        C(~/.ansible/flux_burst).
    type: path
requirements:
  - ssh-keygen, of the OpenSSH client
extends_documentation_fragment:
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Make the burst's key pair
  flux.burst.burst_ssh_key:
    burst: flux-burst
  register: key

- name: Show it
  ansible.builtin.debug:
    msg: "{{ key.path }} {{ key.fingerprint }}"

- name: Delete the key pair
  flux.burst.burst_ssh_key:
    burst: flux-burst
    state: absent
"""

RETURN = r"""
path:
  description: Path of the private key. The public key is the same path with C(.pub).
  returned: success
  type: str
  sample: /root/.ansible/flux_burst/flux-burst/ssh_key
public_key:
  description:
    - The public key, a line of an authorized_keys file. Empty where there is none, as in check mode before it is made.
  returned: success
  type: str
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDkLb2nUf0fqLQ flux-burst
fingerprint:
  description: The public key's fingerprint, as C(ssh-keygen -l) shows it. Empty where there is none.
  returned: success
  type: str
  sample: SHA256:hKRoIkWVnZH3CPW8VrJ0xEgyAJ3i4b5wDe4Gd6CzWcI
"""

import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import (
    _burst_directory,
    _changes,
    _host_keys,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, failing_module

MODE = 0o600


def keygen(*words: str) -> str:
    """Return what ssh-keygen prints. Raises BurstError."""
    try:
        done = subprocess.run(
            ["ssh-keygen", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise BurstError(
            f"wanted ssh-keygen on the controller, found '{error.strerror}': install the OpenSSH client."
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise BurstError(
            f"ssh-keygen: wanted a key pair at {words[-1]}, found '{said[-1]}': if it is no key, delete it."
        )
    return done.stdout.strip()


class KeyPair:
    """A burst's key pair as it is, and the changes to it."""

    def __init__(self, directory: str | None, burst: str) -> None:
        self.directory, self.burst = directory, burst
        self.path = _burst_directory.path_of(directory, burst) / _burst_directory.KEY
        self.public = self.path.with_name(f"{self.path.name}.pub")
        self.found = self._read()

    def _read(self) -> dict[str, str]:
        """Return mode and public key of the pair that exists. Raises BurstError for what is not ours."""
        _burst_directory.check_own(self.path.parent, "directory")
        found = _burst_directory.check_own(self.path, "file")
        public = _burst_directory.check_own(self.public, "file")
        state = {"public_key": self.public.read_text().strip()} if public else {}
        return {**state, "mode": f"{stat.S_IMODE(found.st_mode):04o}"} if found else state

    def wanted(self) -> dict[str, str]:
        """Return what there shall be; the public key is known where there is a private one. Raises BurstError."""
        made = {"mode": f"{MODE:04o}"}
        if "mode" not in self.found:
            return made
        if self.found["mode"] != made["mode"]:
            # ssh-keygen does not read a private key that others can read.
            return {**made, "public_key": self.found.get("public_key", "")}
        public = keygen("-y", "-P", "", "-f", str(self.path)).split()
        return {**made, "public_key": " ".join([*public[:2], self.burst])}

    def plan(self, state: str) -> list[_changes.Stage]:
        """Return the change that is needed, if any. Raises BurstError."""
        wanted = self.wanted() if state == "present" else {}
        if wanted == self.found:
            return []
        action: Literal["create", "update", "delete"]
        action = "delete" if state == "absent" else "update" if "mode" in self.found else "create"
        before = {} if action == "create" else self.found
        return [[_changes.Change("ssh_key", str(self.path), action, before, wanted)]]

    def act(self, stage: _changes.Stage) -> None:
        """Do it. Raises BurstError."""
        for change in stage:
            if change.action == "delete":
                for path in (self.path, self.public):
                    path.unlink(missing_ok=True)
            elif change.action == "create":
                self._make()
            else:
                self.path.chmod(MODE)
                public = keygen("-y", "-P", "", "-f", str(self.path)).split()
                _burst_directory.replace(self.public, " ".join([*public[:2], self.burst]) + "\n")
        self.found = self._read()

    def _make(self) -> None:
        top = _burst_directory.made(self.directory, self.burst)
        with tempfile.TemporaryDirectory(dir=top, prefix=".key.") as scratch:
            made = Path(scratch) / self.path.name
            keygen("-q", "-t", "ed25519", "-N", "", "-C", self.burst, "-f", str(made))
            # The private key last: with it, the pair is there.
            os.replace(f"{made}.pub", self.public)
            os.replace(made, self.path)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "burst": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path"},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        pair = KeyPair(module.params["directory"], module.params["burst"])
        result = _changes.apply(
            pair.plan(module.params["state"]), pair.act, check=module.check_mode
        )
        public = pair.found.get("public_key", "") if module.params["state"] == "present" else ""
        module.exit_json(
            **result,
            path=str(pair.path),
            public_key=public,
            fingerprint=_host_keys.fingerprint(public.split()[1]) if public else "",
        )


if __name__ == "__main__":
    main()
