# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What burst_diagnostics does is in the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: burst_diagnostics
short_description: Keep what is known of machines that failed, without its secrets
version_added: 0.1.0
description:
  - Writes a directory on the controller for one run of a burst, with what was found of each machine as JSON, its logs,
    and its serial console as Compute Engine has it, which is there too when nobody can log in.
  - What is a secret by its form (a private key, a CURVE secret key, a munge credential, an access token) is left out,
    and so are O(secrets) in whatever form. They are compared in memory; this runs as an action on the controller, and
    no argument of it is written to a disk.
  - A console that cannot be read says why in its file, and fails nothing.
author:
  - flux.burst contributors (@flux-framework)
options:
  burst:
    description: Name of the burst.
    type: str
    required: true
  hosts:
    description: The machines that failed.
    type: list
    elements: str
    required: true
  directory:
    description:
      - Directory with one for each burst, which has one for each run, named after O(run). They are made for their
        owner alone (mode C(0700), the files C(0600)).
    type: path
    required: true
  run:
    description: Name of the run, for instance when it was, as C(20261126-160500).
    type: str
    required: true
  findings:
    description: What was found, as M(flux.burst.flux_nodes) returns it.
    type: list
    elements: dict
    default: []
  reports:
    description: What the tasks of each machine said, by hostname, as P(flux.burst.join_reports#filter) makes it.
    type: dict
    default: {}
  logs:
    description: Logs of each machine by hostname, texts by their names, as M(flux.burst.flux_broker_info) returns them.
    type: dict
    default: {}
  secrets:
    description: Secrets that are known, as they are or in base64.
    type: list
    elements: str
    default: []
attributes:
  idempotent:
    support: none
    details: It reads the consoles again.
seealso:
  - module: flux.burst.flux_broker_info
  - module: flux.burst.flux_nodes
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Keep what is known of the machines that failed
  flux.burst.burst_diagnostics:
    burst: flux-burst
    project: my-project
    hosts: [gffw-compute-a-001]
    directory: ~/.ansible/flux_burst/_diagnostics
    run: "{{ now().strftime('%Y%m%d-%H%M%S') }}"
  register: kept
"""

RETURN = r"""
path:
  description: The directory of this run; empty where no machine failed.
  returned: success
  type: str
  sample: /root/.ansible/flux_burst/_diagnostics/flux-burst/20261126-160500
files:
  description: Names of the files in it.
  returned: success
  type: list
  elements: str
  sample: [gffw-compute-a-001.json, gffw-compute-a-001.serial.log]
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: diagnostics
      name: /root/.ansible/flux_burst/_diagnostics/flux-burst/20261126-160500
      action: create
"""
