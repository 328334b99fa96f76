# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An SSH key in an account's OS Login profile."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_os_login
short_description: An SSH key in an account's OS Login profile
version_added: 0.1.0
description:
  - Imports a public SSH key, with a time after which it is let in nowhere, into the OS Login profile of the account
    that the credentials are of. Every machine with the metadata C(enable-oslogin=TRUE) lets it in where the account
    has V(roles/compute.osAdminLogin), or V(roles/compute.osLogin) without sudo.
  - One key serves any number of machines, so that the API's limit of key operations, about 60 a minute, is not met;
    what it refuses for coming too often is asked again.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: Whether the key shall be in the profile.
    type: str
    choices: [present, absent]
    default: present
  public_key_file:
    description: File with the public key. Where there is none, O(state=absent) has nothing to do.
    type: path
    required: true
  account:
    description: E-mail address of the account. By default that of the credentials, which a user's do not always tell.
    type: str
  valid_for:
    description:
      - How long the key is let in, as a number with s, m, h or d. One that has less than half of it left is imported
        again.
    type: str
    default: 4h
  os_login_endpoint:
    description:
      - Where the OS Login API is. The environment variable E(FLUX_BURST_OS_LOGIN_ENDPOINT) is used without it.
    type: str
    default: https://oslogin.googleapis.com
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Let the burst's key in for four hours
  flux.burst.gce_os_login:
    project: my-project
    public_key_file: ~/.ansible/flux_burst/flux-burst/ssh_key.pub
    valid_for: 4h
  register: login

- name: Show as whom
  ansible.builtin.debug:
    msg: "{{ login.username }} of {{ login.account }}"

- name: Let it in no more
  flux.burst.gce_os_login:
    project: my-project
    public_key_file: ~/.ansible/flux_burst/flux-burst/ssh_key.pub
    state: absent
"""

RETURN = r"""
account:
  description: The account.
  returned: success
  type: str
  sample: burst@my-project.iam.gserviceaccount.com
username:
  description: The user that it is on a machine. Empty where the account has no profile yet, as in check mode.
  returned: success
  type: str
  sample: sa_106153012345678901234
expires:
  description: When the key is let in no more, in seconds since 1970; 0 where it is not in the profile, or for ever.
  returned: success
  type: int
  sample: 1795676081
"""

import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.flux.burst.plugins.module_utils import _changes
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    GceError,
    SpecError,
    failing_module,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import (
    Auth,
    account_of,
    load,
    with_project,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    NOT_FOUND,
    OsLoginSession,
)
from ansible_collections.flux.burst.plugins.module_utils._spec import duration

MICRO = 10**6


class Profile:
    """An account's key as it is, and the changes to it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        auth = Auth.from_params(params)
        self.account = params["account"] or account_of(load(auth))
        self.session = OsLoginSession(params["os_login_endpoint"], auth)
        self.user = f"users/{quote(self.account)}"
        self.public_key = _public_key(params)
        self.read()

    def read(self) -> None:
        """Read the profile: who the account is on a machine, and the key, {} without one. Raises GceError."""
        try:
            query = {"projectId": self.params["project"]}
            found = self.session.get(f"{self.user}/loginProfile", **query)
        except GceError as error:
            if error.status != NOT_FOUND:
                raise
            found = {}
        accounts = sorted(found.get("posixAccounts", []), key=lambda it: not it.get("primary"))
        self.username = accounts[0]["username"] if accounts else ""
        self.key: dict[str, Any] = next(
            (it for it in found.get("sshPublicKeys", {}).values() if self._ours(it["key"])), {}
        )

    def _ours(self, key: str) -> bool:
        return bool(self.public_key) and key.split()[:2] == self.public_key.split()[:2]

    @property
    def expires(self) -> int:
        """When the key expires, in seconds since 1970; 0 is never, or no key."""
        return int(self.key.get("expirationTimeUsec", 0)) // MICRO

    def plan(self) -> list[_changes.Stage]:
        """Return the change that is needed, if any. Raises SpecError."""
        valid = duration("valid_for", self.params["valid_for"])
        if self.params["state"] == "absent":
            action: Literal["create", "update", "delete"] = "delete"
            if not self.key:
                return []
        elif not self.key:
            action = "create"
        elif self.expires and self.expires < time.time() + valid / 2:
            action = "update"
        else:
            return []
        before = {"expires": self.expires} if self.key else {}
        after = {"valid_for": self.params["valid_for"]} if action != "delete" else {}
        return [[_changes.Change("os_login_key", self.account, action, before, after)]]

    def act(self, stage: _changes.Stage) -> None:
        """Do it. Raises GceError."""
        for change in stage:
            if change.action == "delete":
                self.session.ask("DELETE", f"{self.user}/sshPublicKeys/{self.key['fingerprint']}")
            else:
                until = int((time.time() + duration("valid_for", self.params["valid_for"])) * MICRO)
                self.session.ask(
                    "POST",
                    f"{self.user}:importSshPublicKey",
                    {"key": self.public_key, "expirationTimeUsec": str(until)},
                    projectId=self.params["project"],
                )
        self.read()


def _public_key(params: dict[str, Any]) -> str:
    """Return the public key; "" where there is none, which a check mode run may be before. Raises SpecError."""
    path = Path(params["public_key_file"])
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"public_key_file: wanted a public key in {path}, found '{error}'."
        ) from None
    if len(text.split()) < 2 or "PRIVATE" in text:
        raise SpecError(f"public_key_file: wanted a public key in {path}, found none.")
    return text


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ACCESS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "public_key_file": {"type": "path", "required": True},
            "account": {"type": "str"},
            "valid_for": {"type": "str", "default": "4h"},
            "os_login_endpoint": {
                "type": "str",
                "default": "https://oslogin.googleapis.com",
                "fallback": (env_fallback, ["FLUX_BURST_OS_LOGIN_ENDPOINT"]),
            },
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        profile = Profile(with_project(module.params))
        if module.params["state"] == "present" and not (profile.public_key or module.check_mode):
            raise SpecError(
                f"public_key_file: wanted a public key in {module.params['public_key_file']}, found no file."
            )
        result = _changes.apply(profile.plan(), profile.act, check=module.check_mode)
        module.exit_json(
            **result, account=profile.account, username=profile.username, expires=profile.expires
        )


if __name__ == "__main__":
    main()
