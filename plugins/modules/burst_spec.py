# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the specification of a burst."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_spec
short_description: Check the whole specification of a burst
version_added: 0.1.0
description:
  - Checks every C(burst_*) variable against the argument specification of P(flux.burst.burst#role), and what
    Compute Engine demands of names, ranges and durations, before anything is read or made.
  - All that is wrong is said at once, a line each, with the variable, what is wanted and what was found.
author:
  - flux.burst contributors (@flux-framework)
options:
  specification:
    description: The C(burst_*) variables.
    type: dict
    required: true
  options:
    description: The options of the role's argument specification.
    type: dict
    required: true
requirements:
  - ClusterShell
extends_documentation_fragment:
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Check the specification
  flux.burst.burst_spec:
    specification: "{{ dict(names | zip(query('ansible.builtin.vars', *names))) }}"
    options: "{{ (lookup('ansible.builtin.file', spec_file) | from_yaml).argument_specs.main.options }}"
  vars:
    names: "{{ query('ansible.builtin.varnames', '^burst_') }}"
    spec_file: roles/burst/meta/argument_specs.yml
"""

RETURN = r"""
specification:
  description: Every C(burst_*) variable with its type and default, and what follows from them, such as C(burst_region).
  returned: success
  type: dict
  sample:
    burst_name: flux-burst
    burst_zones: [us-central1-a]
    burst_region: us-central1
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _spec
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "specification": {"type": "dict", "required": True},
            "options": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        checked = _spec.specification(module.params["specification"], module.params["options"])
        module.exit_json(changed=False, specification=checked)


if __name__ == "__main__":
    main()
