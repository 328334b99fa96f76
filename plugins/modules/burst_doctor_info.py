# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say what is right and what is wrong with a burst before it is made."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_doctor_info
short_description: Say what is right and what is wrong with a burst before it is made
version_added: 0.1.0
description:
  - Makes every check that can be made without spending, of the controller, the specification, the lead and what Google
    tells, and goes on where one finds something. It asks Google and changes nothing there; the lead is read before, by
    M(flux.burst.flux_lead_info).
  - It does not fail for what it finds; see RV(ok).
author:
  - flux.burst contributors (@flux-framework)
options:
  specification:
    description: The C(burst_*) variables, as M(flux.burst.burst_spec) takes them. What they say of project, credentials
      and endpoint goes before the options here.
    type: dict
    required: true
  options:
    description: The options of the argument specification of P(flux.burst.burst#role).
    type: dict
    required: true
  permissions:
    description: The permissions of C(docs/iam-role.yaml). Those that the specification needs are tested.
    type: list
    elements: str
    default: []
  leads:
    description: The hosts of the inventory group flux_lead.
    type: list
    elements: str
    default: []
  lead:
    description: What M(flux.burst.flux_lead_info) returned on the first of them, or how that failed.
    type: dict
    default: {}
requirements:
  - ClusterShell
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Examine a burst
  flux.burst.burst_doctor_info:
    specification: "{{ dict(names | zip(query('ansible.builtin.vars', *names))) }}"
    options: "{{ (lookup('ansible.builtin.file', spec_file) | from_yaml).argument_specs.main.options }}"
    permissions: "{{ (lookup('ansible.builtin.file', 'docs/iam-role.yaml') | from_yaml).includedPermissions }}"
    leads: "{{ groups.flux_lead }}"
    lead: "{{ checked_lead }}"
  vars:
    names: "{{ query('ansible.builtin.varnames', '^burst_') }}"
    spec_file: roles/burst/meta/argument_specs.yml
  register: doctor
"""

RETURN = r"""
ok:
  description: Whether nothing is wrong. What could not be looked at is not wrong.
  returned: success
  type: bool
  sample: false
findings:
  description: What each check found; one that found several things is there as often.
  returned: success
  type: list
  elements: dict
  sample:
    - check: clock
      ok: false
      wanted: the lead's within 120 s of the controller's
      found: it 600 s behind it
      remedy: set both by NTP, as Compute Engine's machines are
  contains:
    check:
      description: What was checked.
      type: str
    ok:
      description: Whether it is right; null where it could not be looked at, and RV(findings[].found) says why.
      type: bool
    wanted:
      description: What would be right; empty where it is.
      type: str
    found:
      description: What is there.
      type: str
    remedy:
      description: What to do; empty where nothing is.
      type: str
table:
  description: The findings as lines for people.
  returned: success
  type: list
  elements: str
  sample:
    - "WRONG  clock        wanted the lead's within 120 s of the controller's, found it 600 s behind it"
    - "                    -> set both by NTP, as Compute Engine's machines are"
summary:
  description: The findings as one line.
  returned: success
  type: str
  sample: "1 are wrong: clock; 28 checks are right"
"""

import ipaddress
import shutil
import time
from importlib.util import find_spec
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _doctor, _zmtp
from ansible_collections.flux.burst.plugins.module_utils._doctor_google import Reader
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS

PACKAGES = {
    "google-auth": "google.auth",
    "requests": "requests",
    "google-cloud-compute": "google.cloud.compute_v1",
    "ClusterShell": "ClusterShell",
}
SAID_BY_SPEC = ("project", "credentials_file", "impersonate_service_account", "compute_endpoint")
PORT_SECONDS = 5.0
# Addresses that no router carries (RFC 5737); the sandbox's lead has one, which only its own machines reach.
NOWHERE = [
    ipaddress.ip_network(text) for text in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
]


def lacking() -> list[str]:
    """Return what the controller has not, without importing it."""
    return [name for name, module in PACKAGES.items() if not importable(module)] + (
        [] if shutil.which("ssh") else ["ssh"]
    )


def importable(module: str) -> bool:
    """Return whether there is such a Python module."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def from_here(spec: dict[str, Any], lead: dict[str, Any]) -> str | None:
    """Return what is wrong with the lead's port as seen from the controller; None where there is no need to look."""
    if not lead.get("port"):
        return None
    address = spec["burst_lead_address"]
    try:
        if any(ipaddress.ip_address(address) in network for network in NOWHERE):
            return None
    except ValueError:
        # A name.
        pass
    return _zmtp.problem(address, spec["burst_lead_port"], PORT_SECONDS)


def read(params: dict[str, Any]) -> _doctor.Facts:
    """Return all that there is to know."""
    now, lead = time.time(), params["lead"]
    spec, problems = _doctor.known(params["specification"], params["options"])
    faulty = {line.partition(":")[0] for line in problems}
    access = dict(params)
    for name in SAID_BY_SPEC:
        access[name] = spec[f"burst_{name}"] or params[name]
    reader = Reader(access, spec, faulty, params["permissions"])
    return _doctor.Facts(
        google=reader.read(),
        spec=reader.spec,
        problems=problems,
        leads=params["leads"],
        lead=lead,
        missing=lacking(),
        permissions=params["permissions"],
        from_here=from_here(spec, lead),
        now=now,
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ACCESS,
            "specification": {"type": "dict", "required": True},
            "options": {"type": "dict", "required": True},
            "permissions": {"type": "list", "elements": "str", "default": []},
            "leads": {"type": "list", "elements": "str", "default": []},
            "lead": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        findings = _doctor.examine(read(module.params))
        module.exit_json(
            changed=False,
            ok=_doctor.is_right(findings),
            findings=_doctor.shown(findings),
            table=_doctor.table(findings),
            summary=_doctor.summary(findings),
        )


if __name__ == "__main__":
    main()
