# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make this machine a member of a Flux instance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_broker
short_description: Make a machine a member of a Flux instance, in one execution
version_added: 0.1.0
description:
  - Checks what the machine must have in common with the lead, puts the files of the broker in place, runs munge and the
    broker, and waits until the broker has joined.
  - The files are looked at before one is replaced (TOML, munge's key, the CURVE certificate, the form of units). They
    land all or none, each whole and with its owner and mode from its first byte; a directory that is missing is made
    for root with mode C(0755). Only the units that a change concerns are restarted.
  - What a file must be is told by its name. C(*.toml) is Flux's configuration, C(munge.key) munge's key, C(*.cert)
    and what the configuration calls C(curve_cert) the broker's certificate, and what lies in C(/etc/systemd/system) a
    unit or, in a directory C(UNIT.d), a drop-in for one. A C(*.service) that is neither O(service) nor
    O(munge_service) runs beside the broker, and restarts with the files that it names.
  - Everything comes through the module's standard input. No argument of a process, no environment and no temporary
    file holds a secret.
  - A failure names the stage (base, file, munge, certificate, configuration, overlay) and what the machine itself said.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description:
      - V(joined) makes the machine a member. V(absent) stops and disables the broker, then munge, and removes the
        files that O(files) and O(secret_files) name, with the certificate that a configuration among them names.
    type: str
    choices: [joined, absent]
    default: joined
  hostname:
    description: The name under which the lead knows this machine. The kernel's hostname must be exactly this.
    type: str
  user:
    description: User that owns the instance.
    type: str
  uid:
    description: Its uid on the lead.
    type: int
  gid:
    description: Its primary gid on the lead.
    type: int
  flux_version:
    description: Version of flux-core on the lead. MAJOR.MINOR must be the same here.
    type: str
  imp:
    description: The IMP, which must be setuid root.
    type: path
    default: /usr/libexec/flux/flux-imp
  security_version:
    description: Version of flux-security on the lead. MAJOR.MINOR must be the same here. Empty compares nothing.
    type: str
    default: ""
  exec_path:
    description: What C(flux config builtin exec_path) says on the lead; so must it here. Empty compares nothing.
    type: str
    default: ""
  module_path:
    description: What C(flux config builtin module_path) says on the lead; so must it here. Empty compares nothing.
    type: str
    default: ""
  lead_address:
    description:
      - Address or name of the lead as this machine sees it, or of O(parent) where that is another. Before anything is
        changed a broker must answer there. Empty checks nothing.
    type: str
    default: ""
  lead_port:
    description: TCP port at O(lead_address).
    type: int
    default: 8050
  parent:
    description: Hostname of the machine that is this one's parent in the overlay. Empty where that is the lead.
    type: str
    default: ""
  munge_credential:
    description:
      - Output of C(munge -n) on the lead, not older than five minutes. When munge runs here it must decode it, which
        takes the lead's key and a right clock. Empty checks nothing.
    type: str
    default: ""
  time:
    description:
      - The controller's clock when the task was sent, in seconds since the epoch. This machine's may be at most
        O(max_clock_skew) behind it, and five minutes ahead, as the task takes its time to get here. V(0) compares
        nothing.
    type: float
    default: 0
  max_clock_skew:
    description: How far this machine's clock may be from O(time), in seconds.
    type: int
    default: 60
  files:
    description: Files to put in place.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The text. Only with O(state=absent) it may be left out.
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode in octal.
        type: str
        default: "0644"
  secret_files:
    description: Files that hold a secret. No output ever shows their content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content_b64:
        description: The content in base64. Only with O(state=absent) it may be left out.
        type: str
      owner:
        description: Owner.
        type: str
        default: root
      group:
        description: Group.
        type: str
        default: root
      mode:
        description: Mode in octal.
        type: str
        default: "0400"
  service:
    description: Unit of the broker. It must not begin with C(flux-), which flux-security takes for a job's cgroup.
    type: str
    default: flux.service
  munge_service:
    description: Unit of munge.
    type: str
    default: munge.service
  timeout:
    description: How long the broker may take to join, in seconds.
    type: int
    default: 60
extends_documentation_fragment:
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Join the lead
  flux.burst.flux_broker:
    hostname: "{{ inventory_hostname }}"
    user: flux
    uid: 1004
    gid: 1004
    flux_version: 0.88.0
    files:
      - path: /etc/flux/system/conf.d/system.toml
        content: "{{ lookup('ansible.builtin.template', 'system.toml.j2') }}"
    secret_files:
      - path: /etc/munge/munge.key
        content_b64: "{{ munge_key_b64 }}"
        owner: munge
        group: munge
      - path: /etc/flux/system/curve.cert
        content_b64: "{{ curve_cert_b64 }}"
        owner: flux
        group: flux
        mode: "0600"

- name: Leave it
  flux.burst.flux_broker:
    state: absent
    files:
      - path: /etc/flux/system/conf.d/system.toml
    secret_files:
      - path: /etc/munge/munge.key
      - path: /etc/flux/system/curve.cert
"""

RETURN = r"""
status_text:
  description: What the broker says of itself to systemd; empty for O(state=absent) and in check mode.
  returned: success
  type: str
  sample: Running as member of 5 node Flux instance
timings:
  description:
    - How long each step took, in milliseconds. Steps are C(base) (what must be the same here as on the lead),
      C(compare), C(stage) and C(commit) of the files, C(reload) of systemd, C(restart), C(join) and C(stop). A step
      that was not needed is left out.
  returned: success
  type: dict
  sample:
    base: 210
    compare: 24
    stage: 12
    commit: 3
    reload: 95
    restart: 160
    join: 240
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: file
      name: /etc/flux/system/conf.d/system.toml
      action: update
    - kind: unit
      name: flux.service
      action: update
"""

import base64
import binascii
from dataclasses import fields
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _broker, _files
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, failing_module


def files(params: dict[str, Any]) -> list[_files.File]:
    """Return the files that are asked for. Raises BurstError for a mode or content that cannot be read."""
    found = []
    for secret, kind, key in ((False, "files", "content"), (True, "secret_files", "content_b64")):
        for row in params[kind]:
            given = row[key]
            if params["state"] == "absent":
                given = ""
            elif given is None or (secret and not given):
                raise BurstError(
                    f"{row['path']}: wanted {key}, found nothing: read it from the lead, or render it."
                )
            try:
                content = base64.b64decode(given, validate=True) if secret else given.encode()
                mode = int(row["mode"], 8)
            except (binascii.Error, ValueError):
                raise BurstError(
                    f"{row['path']}: wanted an octal mode such as 0644, and base64 for content_b64; found "
                    f"mode {row['mode']} or a content that is not base64."
                ) from None
            found.append(
                _files.File(row["path"], content, row["owner"], row["group"], mode, secret)
            )
    return found


def main() -> None:
    """Run the module."""
    common = {
        "path": {"type": "path", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["joined", "absent"], "default": "joined"},
            "hostname": {"type": "str"},
            "user": {"type": "str"},
            "uid": {"type": "int"},
            "gid": {"type": "int"},
            "flux_version": {"type": "str"},
            "imp": {"type": "path", "default": "/usr/libexec/flux/flux-imp"},
            "security_version": {"type": "str", "default": ""},
            "exec_path": {"type": "str", "default": ""},
            "module_path": {"type": "str", "default": ""},
            "lead_address": {"type": "str", "default": ""},
            "lead_port": {"type": "int", "default": 8050},
            "parent": {"type": "str", "default": ""},
            "munge_credential": {"type": "str", "default": "", "no_log": True},
            "time": {"type": "float", "default": 0},
            "max_clock_skew": {"type": "int", "default": 60},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **common,
                    "content": {"type": "str"},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "secret_files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    **common,
                    "content_b64": {"type": "str", "no_log": True},
                    "mode": {"type": "str", "default": "0400"},
                },
            },
            "service": {"type": "str", "default": "flux.service"},
            "munge_service": {"type": "str", "default": "munge.service"},
            "timeout": {"type": "int", "default": 60},
        },
        required_if=[
            ("state", "joined", ("hostname", "user", "uid", "gid", "flux_version")),
        ],
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        broker = _broker.Broker(
            params["service"],
            params["munge_service"],
            files(params),
            params["user"] or "",
            params["parent"],
        )
        if params["state"] == "absent":
            module.exit_json(**broker.leave(check=module.check_mode))
        names = [field.name for field in fields(_broker.Base)]
        with broker.timings.step("base"):
            _broker.check_base(_broker.Base(**{name: params[name] for name in names}))
        result = broker.join(params["timeout"], check=module.check_mode)
        if not module.check_mode:
            _broker.check_munge(params["munge_credential"])
        module.exit_json(**result)


if __name__ == "__main__":
    main()
