# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a burst."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_instances
short_description: The machines of a burst
version_added: 0.1.0
description:
  - Creates the machines that are missing in one bulk request, all of them or none, and waits until each one has
    published its SSH host keys, which it does at boot.
  - They have no public address, boot from one image, and end by themselves after O(max_run_duration).
  - Labels and metadata of machines that exist are put right.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: V(absent) deletes every machine of the burst, by its label, in whatever zone it is.
    type: str
    choices: [present, absent]
    default: present
  zone:
    description: Zone of the machines. Needed for O(state=present), as are O(hosts) to O(ssh_public_key).
    type: str
  hosts:
    description:
      - Names of the machines that must exist. Others of the burst are left alone.
      - With O(state=absent), the machines to delete; without it, all of the burst.
    type: list
    elements: str
  machine_type:
    description: Machine type.
    type: str
  image:
    description: Boot image, as C(projects/PROJECT/global/images/IMAGE) or C(.../images/family/FAMILY).
    type: str
  disk_size_gb:
    description: Size of the boot disk in GB.
    type: int
    default: 20
  labels:
    description: Labels beside our own.
    type: dict
    default: {}
  max_run_duration:
    description: After this time Compute Engine deletes a machine. A number with s, m, h or d.
    type: str
    default: 4h
  ssh_user:
    description: User that is created for Ansible.
    type: str
    default: burst
  ssh_public_key:
    description: That user's public SSH key.
    type: str
  boot_timeout:
    description: How long a machine may take until its host keys are published, in seconds.
    type: int
    default: 300
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._gce.burst
  - flux.burst._attributes
"""

EXAMPLES = r"""
- name: Create the machines
  flux.burst.gce_instances:
    burst: flux-burst
    project: my-project
    zone: us-central1-a
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    machine_type: n2-standard-4
    image: projects/my-project/global/images/family/flux-fw-bursted-x86-64
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/burst.pub') }}"

- name: Delete every machine of the burst
  flux.burst.gce_instances:
    state: absent
    burst: flux-burst
    project: my-project
"""

RETURN = r"""
instances:
  description: The machines that exist of those asked for; none for O(state=absent).
  returned: success
  type: list
  elements: dict
  sample:
    - name: gffw-compute-a-001
      id: "4611686018427387904"
      zone: us-central1-a
      status: RUNNING
      machine_type: n2-standard-4
      internal_ip: 10.10.0.2
      host_keys:
        ssh-ed25519: AAAAC3NzaC1lZDI1NTE5AAAA
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: instance
      name: gffw-compute-a-001
      action: create
"""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _gce_instances, _reconcile
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    GceError,
    SpecError,
    failing_module,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import (
    ARGUMENTS,
    GceClient,
    Started,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    READERS,
    GceSession,
    last_part,
    machine,
)

NEEDED = ("zone", "hosts", "machine_type", "image", "ssh_public_key")
POLL = 0.3
ATTEMPTS = 5
SERIAL_LINES = 3


class Machines:
    """A burst's machines as they are, and the changes to them."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.session = GceSession.from_params(params)
        self.existing = self._read()

    @cached_property
    def client(self) -> GceClient:
        """Made for the first change only."""
        return GceClient.from_params(self.params)

    def _read(self) -> dict[str, dict[str, Any]]:
        found = self.session.instances(self.params["project"], self.params["burst"])
        return {instance["name"]: instance for instance in found}

    def act(self, stage: _reconcile.Stage) -> None:
        """Do every change: the creations as one request, the others beside one another."""
        started: list[Started] = []
        for change in stage:
            if change.action == "delete":
                deletion = self.client.delete("instance", change.name, zone=change.before["zone"])
                started += [deletion] if deletion else []
            elif change.action == "update":
                started += self._update(change)
        for each in started:
            self.client.wait(each)
        created = [change.name for change in stage if change.action == "create"]
        if created:
            self._create(created)
        self.existing = self._read()

    def _create(self, hosts: list[str]) -> None:
        params = self.params
        network = self.session.get(
            f"projects/{params['project']}/global/networks/{params['burst']}-net", fields="id"
        )
        body = _gce_instances.bulk_body(params, hosts)
        for attempt in range(ATTEMPTS):
            request = _gce_instances.request_id(params["burst"], network["id"], body, attempt)
            started = self.client.bulk_insert(body, request, params["zone"])
            try:
                self.client.wait(started)
            except GceError:
                if not started.repeated or attempt == ATTEMPTS - 1:
                    raise
                continue
            if set(hosts) <= set(self._read()):
                return
        raise GceError(
            f"wanted {', '.join(hosts)} created, found them gone {ATTEMPTS} times after Compute Engine said they "
            "were: see its audit log for who deletes them."
        )

    def _update(self, change: _reconcile.Change) -> list[Started]:
        instance = self.existing[change.name]
        zone = last_part(instance["zone"])
        started = []
        if "labels" in change.after:
            body = _gce_instances.labels_body(instance, change.after["labels"])
            started.append(self.client.set_labels(change.name, body, zone))
        if "metadata" in change.after:
            body = _gce_instances.metadata_body(instance, change.after["metadata"])
            started.append(self.client.set_metadata(change.name, body, zone))
        return started

    def booted(self) -> list[dict[str, Any]]:
        """Wait for the host keys of the machines that exist, and return those machines. Raises GceError."""
        rows = [
            machine(self.existing[host]) for host in self.params["hosts"] if host in self.existing
        ]
        deadline = time.monotonic() + self.params["boot_timeout"]
        with ThreadPoolExecutor(READERS) as readers:
            while True:
                missing = [row for row in rows if not row.get("host_keys")]
                for row, keys in zip(missing, readers.map(self._host_keys, missing), strict=True):
                    row["host_keys"] = keys
                missing = [row for row in missing if not row["host_keys"]]
                if not missing:
                    return rows
                if time.monotonic() > deadline:
                    raise self._not_booted(missing)
                time.sleep(POLL)

    def _host_keys(self, row: dict[str, Any]) -> dict[str, str]:
        return self.session.host_keys(self.params["project"], row["zone"], row["name"])

    def _not_booted(self, missing: list[dict[str, Any]]) -> GceError:
        first = missing[0]
        try:
            lines = self.session.serial_lines(
                self.params["project"], first["zone"], first["name"], SERIAL_LINES
            )
        except GceError as error:
            # It must not hide which machines did not boot.
            lines = [f"unreadable, HTTP {error.status}"]
        return GceError(
            f"stage boot: wanted SSH host keys within {self.params['boot_timeout']} s, found none of "
            f"{', '.join(row['name'] for row in missing)} (console of {first['name']}: "
            f"{' | '.join(lines) or 'empty'}): see the serial console, or raise burst_boot_timeout.",
            stage="boot",
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "zone": {"type": "str"},
            "hosts": {"type": "list", "elements": "str"},
            "machine_type": {"type": "str"},
            "image": {"type": "str"},
            "disk_size_gb": {"type": "int", "default": 20},
            "labels": {"type": "dict", "default": {}},
            "max_run_duration": {"type": "str", "default": "4h"},
            "ssh_user": {"type": "str", "default": "burst"},
            "ssh_public_key": {"type": "str", "no_log": False},
            "boot_timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "present", NEEDED)],
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        missing = [name for name in NEEDED if params[name] is None]
        if params["state"] == "present" and missing:
            # A variable that is null counts as given for required_if.
            raise SpecError(f"{', '.join(missing)}: wanted a value for state=present, found null.")
        machines = Machines(params)
        if params["state"] == "absent":
            changes = _gce_instances.plan_absent(machines.existing, params["hosts"])
            result = _reconcile.apply([changes], machines.act, check=module.check_mode)
            module.exit_json(**result, instances=[])
        changes = _gce_instances.plan_present(params, machines.existing)
        for warning in _gce_instances.warnings(params, machines.existing):
            module.warn(warning)
        result = _reconcile.apply([changes], machines.act, check=module.check_mode)
        module.exit_json(**result, instances=machines.booted())


if __name__ == "__main__":
    main()
