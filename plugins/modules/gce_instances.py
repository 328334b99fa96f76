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
  - Creates the machines that are missing in one bulk request, all of them or none, and waits until Compute Engine says
    that they run. The connection plugin waits for their SSH host keys, which they publish at boot.
  - They have no public address unless they are given one (O(public_address)), boot from one image, and end by
    themselves after O(max_run_duration).
  - Labels and metadata of machines that exist are put right.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: V(absent) deletes every machine of the burst, by its label, in whatever zone it is.
    type: str
    choices: [present, absent]
    default: present
  zones:
    description:
      - Zones of one region, in order of preference. Needed for O(state=present), as are O(hosts), O(machine_types),
        O(image) and O(ssh_public_key).
      - All machines of one run come from one zone, the first that has them; machines that are missing come first from
        where the others are.
    type: list
    elements: str
    aliases: [zone]
  hosts:
    description:
      - Names of the machines that must exist. Others of the burst are left alone.
      - With O(state=absent), the machines to delete; without it, all of the burst.
    type: list
    elements: str
  machine_types:
    description:
      - Machine types in order of preference. The second is tried where no zone has the first, or its quota does not
        suffice.
    type: list
    elements: str
    aliases: [machine_type]
  image:
    description: Boot image, as C(projects/PROJECT/global/images/IMAGE) or C(.../images/family/FAMILY).
    type: str
  disk_size_gb:
    description: Size of the boot disk in GB.
    type: int
    default: 20
  disk_type:
    description: Type of the boot disk.
    type: str
    default: pd-balanced
  subnetwork:
    description:
      - Subnetwork of the machines, as C(projects/PROJECT/regions/REGION/subnetworks/NAME). By default the one that
        M(flux.burst.gce_network) makes for the burst.
    type: str
  public_address:
    description: Give each machine a public address, for SSH that does not go through the Identity-Aware Proxy.
    type: bool
    default: false
  tags:
    description: Network tags.
    type: list
    elements: str
    default: []
  service_account:
    description: Service account of the machines, its e-mail. By default they have none and can ask nothing of Google.
    type: str
  service_account_scopes:
    description: What the service account may be used for; its roles say the rest.
    type: list
    elements: str
    default: [https://www.googleapis.com/auth/cloud-platform]
  accelerator_type:
    description: GPUs to add to each machine, for instance C(nvidia-tesla-t4). Some machine types have theirs already.
    type: str
  accelerator_count:
    description: How many GPUs to add to each machine.
    type: int
    default: 1
  spot:
    description: Take spot machines, which cost less and which Compute Engine may take away at any time.
    type: bool
    default: false
  compact:
    description: Place the machines near one another, by a policy that is made and removed with them.
    type: bool
    default: false
  reservation:
    description:
      - V(any) uses reservations that fit, V(none) uses none; otherwise the name of the reservation that must be used.
    type: str
    default: any
  min_cpu_platform:
    description: The oldest CPU that will do, for instance C(Intel Ice Lake).
    type: str
  shielded:
    description: Demand secure boot beside the virtual TPM and integrity monitoring. The image must be signed for it.
    type: bool
    default: false
  best_effort:
    description:
      - Keep the machines that could be had when not all could, and tell which are RV(missing). Without it, it is all of
        them or none.
    type: bool
    default: false
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
    description: That user's public SSH key. Not needed with O(os_login).
    type: str
  os_login:
    description:
      - Let in whom OS Login lets in (see M(flux.burst.gce_os_login)), instead of O(ssh_user).
    type: bool
    default: false
  boot_timeout:
    description: How long the machines may take until Compute Engine says that they run, in seconds.
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
    zones: [us-central1-a]
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    machine_types: [n2-standard-4]
    image: projects/my-project/global/images/family/flux-fw-bursted-x86-64
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/burst.pub') }}"

- name: Create spot machines that are near one another, wherever there are any
  flux.burst.gce_instances:
    burst: flux-burst
    project: my-project
    zones: [us-central1-a, us-central1-b, us-central1-c]
    hosts: [gffw-compute-a-001, gffw-compute-a-002]
    machine_types: [c2-standard-8, n2-standard-8]
    image: projects/my-project/global/images/family/flux-fw-bursted-x86-64
    spot: true
    compact: true
    ssh_public_key: "{{ lookup('ansible.builtin.file', '~/.ssh/burst.pub') }}"
  register: made

- name: Say which places did not do
  ansible.builtin.debug:
    msg: "{{ item.machine_type }} in {{ item.zone }}: {{ item.codes | join(', ') }}"
  loop: "{{ made.attempts }}"

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
      external_ip: ""
project:
  description: Their project, which the credentials tell where O(project) is not given.
  returned: success
  type: str
  sample: my-project
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: instance
      name: gffw-compute-a-001
      action: create
attempts:
  description: The places that did not do, in the order in which they were tried or ruled out.
  returned: always when machines were to be created
  type: list
  elements: dict
  sample:
    - zone: us-central1-a
      machine_type: n2-standard-4
      codes: [ZONE_RESOURCE_POOL_EXHAUSTED]
      error: The zone does not have enough resources available
  contains:
    zone:
      description: The zone.
      type: str
    machine_type:
      description: The machine type.
      type: str
    codes:
      description:
        - Compute Engine's error codes. C(NO_SUCH_MACHINE_TYPE) and C(QUOTA_TOO_SMALL) are of the check before the first
          request.
      type: list
      elements: str
    error:
      description: What was said.
      type: str
drift:
  description: What differs from what was asked for and cannot change while a machine runs. Nothing is done about it.
  returned: success
  type: list
  elements: dict
  sample:
    - name: gffw-compute-a-001
      field: machine_types
      wanted: [n2-standard-8]
      found: n2-standard-4
  contains:
    name:
      description: The machine.
      type: str
    field:
      description: The option that it differs from.
      type: str
    wanted:
      description: What was asked for.
      type: raw
    found:
      description: What the machine has.
      type: raw
lost:
  description: The machines that were preempted or died, and are created again.
  returned: success
  type: list
  elements: dict
  sample:
    - name: gffw-compute-a-002
      why: was preempted at 2026-11-25T19:14:49.000-08:00 and deleted
  contains:
    name:
      description: The machine.
      type: str
    why:
      description: What happened to it.
      type: str
missing:
  description: The machines that no place had, with O(best_effort=true).
  returned: success
  type: list
  elements: str
  sample: []
"""

import time
import uuid
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import (
    _changes,
    _gce_creation,
    _gce_instances,
    _gce_network,
    _gce_place,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    GceError,
    SpecError,
    failing_module,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import (
    ARGUMENTS,
    GceClient,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    GceSession,
    last_part,
    machine,
)
from ansible_collections.flux.burst.plugins.module_utils._spec import one_region

NEEDED = ("zones", "hosts", "machine_types", "image")
POLL = 1.0
Start = Callable[[], Any]
"""Begins a change and returns it as Started, or None where there is nothing left to do."""


class Machines:
    """A burst's machines as they are, and the changes to them."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.session = GceSession.from_params(params)
        self.existing = self._read()
        self.creation = _gce_creation.Creation(params, self.session)
        self.missing: list[str] = []

    @cached_property
    def client(self) -> GceClient:
        """Made for the first change only."""
        return GceClient.from_params(self.params)

    def _read(self) -> dict[str, dict[str, Any]]:
        found = self.session.instances(
            self.params["project"], self.params["burst"], _gce_instances.FIELDS
        )
        return {instance["name"]: instance for instance in found}

    def _names(self) -> set[str]:
        self.existing = self._read()
        return set(self.existing)

    def plan_present(self) -> list[_changes.Stage]:
        """Return the stages to what is asked for. Raises GceError where no place has what is missing."""
        dead, changes = _gce_instances.plan_present(self.params, self.existing)
        created = [change.name for change in changes if change.action == "create"]
        if created:
            self.creation.check(created)
        placement = []
        if created and self.params["compact"] and not self._placements():
            region = one_region(self.params["zones"])
            placement = [_gce_instances.placement(self.params["burst"], region, "create")]
        return [[*dead, *placement], changes]

    def plan_absent(self) -> list[_changes.Stage]:
        """Return the stages to nothing, or to none of the hosts that are named."""
        hosts = self.params["hosts"]
        gone = _gce_instances.plan_absent(self.existing, hosts)
        return [gone, [] if hosts is not None else self._placements()]

    def _placements(self) -> list[_changes.Change]:
        """Return the deletions of the burst's placements; there is one at most in a region."""
        burst = self.params["burst"]
        found = self.session.aggregated(
            self.params["project"],
            "resourcePolicies",
            "name,region",
            filter=f'description = "{_gce_network.description(burst)}"',
        )
        return [
            _gce_instances.placement(burst, last_part(row.get("region", "")), "delete")
            for row in found
        ]

    def losses(self) -> list[dict[str, str]]:
        """Return which machines were there and are no more, and why."""
        present = [host for host in self.params["hosts"] if host in self.existing]
        whole = len(present) == len(self.params["hosts"])
        dead = [it for it in present if self.existing[it]["status"] in _gce_instances.DEAD]
        if not present or (whole and not dead):
            return []
        preemptions = self.session.aggregated(
            self.params["project"],
            "operations",
            "targetLink,insertTime",
            filter=f'operationType = "{_gce_instances.PREEMPTED}"',
        )
        return _gce_instances.losses(self.params, self.existing, preemptions)

    def act(self, stage: _changes.Stage) -> None:
        """Do every change: the creations as one request, the others beside one another."""
        created = [it.name for it in stage if (it.kind, it.action) == ("instance", "create")]
        others = [change for change in stage if change.name not in created]
        self.client.together(start for change in others for start in self._starts(change))
        if created:
            self._create(created)

    def _starts(self, change: _changes.Change) -> list[Start]:
        client = self.client
        if change.kind == "policy":
            region = (change.after or change.before)["region"]
            if change.action == "delete":
                return [partial(client.delete, "policy", change.name, region=region)]
            body = _gce_instances.placement_body(self.params["burst"])
            return [partial(client.insert, "policy", body, str(uuid.uuid4()), region=region)]
        if change.action == "delete":
            zone = change.before["zone"]
            return [partial(client.delete, "instance", change.name, zone=zone)]
        return self._updates(change)

    def _create(self, hosts: Sequence[str]) -> None:
        near = [last_part(instance["zone"]) for instance in self.existing.values()]
        try:
            self.missing = self.creation.create(self.client, hosts, near, self._names)
        except GceError:
            if not self._names():
                self.act(self._placements())
            raise

    def _updates(self, change: _changes.Change) -> list[Start]:
        instance = self.existing[change.name]
        zone, client = last_part(instance["zone"]), self.client
        starts: list[Start] = []
        if "labels" in change.after:
            body = _gce_instances.labels_body(instance, change.after["labels"])
            starts.append(partial(client.set_labels, change.name, body, zone))
        if "metadata" in change.after:
            body = _gce_instances.metadata_body(instance, change.after["metadata"])
            starts.append(partial(client.set_metadata, change.name, body, zone))
        return starts

    def running(self) -> list[dict[str, Any]]:
        """Wait until the machines run that exist, and return them. Raises GceError."""
        deadline = time.monotonic() + self.params["boot_timeout"]
        while True:
            rows = [
                machine(self.existing[host])
                for host in self.params["hosts"]
                if host in self.existing
            ]
            late = [f"{row['name']} {row['status']}" for row in rows if row["status"] != "RUNNING"]
            if not late:
                return rows
            if time.monotonic() > deadline:
                raise GceError(
                    f"stage boot: wanted every machine RUNNING within {self.params['boot_timeout']} s, found "
                    f"{', '.join(late)}: see gcloud compute operations list, or raise burst_boot_timeout.",
                    stage="boot",
                )
            time.sleep(POLL)
            self._names()


def present(machines: Machines, module: AnsibleModule) -> dict[str, Any]:
    """Bring the machines about and return what exit_json takes. Raises GceError."""
    params = machines.params
    lost = machines.losses()
    drift = _gce_instances.drift(params, machines.existing)
    for row in lost:
        module.warn(f"{row['name']} {row['why']}; it is created again.")
    for row in drift:
        module.warn(
            f"{row['name']}: wanted {row['field']} {row['wanted']}, found {row['found']}: it keeps that until a "
            "teardown."
        )
    result = _changes.apply(machines.plan_present(), machines.act, check=module.check_mode)
    if result["changed"] and not module.check_mode:
        machines.existing = machines._read()
    return {
        **result,
        "diff": [*result["diff"], *map(_gce_instances.drift_diff, drift)],
        "instances": machines.running(),
        "project": params["project"],
        "attempts": _gce_place.shown(machines.creation.attempts),
        "drift": drift,
        "lost": lost,
        "missing": machines.missing,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "zones": {"type": "list", "elements": "str", "aliases": ["zone"]},
            "hosts": {"type": "list", "elements": "str"},
            "machine_types": {"type": "list", "elements": "str", "aliases": ["machine_type"]},
            "image": {"type": "str"},
            "disk_size_gb": {"type": "int", "default": 20},
            "disk_type": {"type": "str", "default": "pd-balanced"},
            "subnetwork": {"type": "str"},
            "public_address": {"type": "bool", "default": False},
            "tags": {"type": "list", "elements": "str", "default": []},
            "service_account": {"type": "str"},
            "service_account_scopes": {
                "type": "list",
                "elements": "str",
                "default": ["https://www.googleapis.com/auth/cloud-platform"],
            },
            "accelerator_type": {"type": "str"},
            "accelerator_count": {"type": "int", "default": 1},
            "spot": {"type": "bool", "default": False},
            "compact": {"type": "bool", "default": False},
            "reservation": {"type": "str", "default": "any"},
            "min_cpu_platform": {"type": "str"},
            "shielded": {"type": "bool", "default": False},
            "best_effort": {"type": "bool", "default": False},
            "labels": {"type": "dict", "default": {}},
            "max_run_duration": {"type": "str", "default": "4h"},
            "ssh_user": {"type": "str", "default": "burst"},
            "ssh_public_key": {"type": "str", "no_log": False},
            "os_login": {"type": "bool", "default": False},
            "boot_timeout": {"type": "int", "default": 300},
        },
        required_if=[("state", "present", NEEDED)],
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        needed = NEEDED if params["os_login"] else (*NEEDED, "ssh_public_key")
        missing = [name for name in needed if params[name] is None]
        if params["state"] == "present" and missing:
            # A variable that is null counts as given for required_if.
            raise SpecError(f"{', '.join(missing)}: wanted a value for state=present, found null.")
        machines = Machines(params)
        if params["state"] == "absent":
            stages = machines.plan_absent()
            result = _changes.apply(stages, machines.act, check=module.check_mode)
            module.exit_json(**result, instances=[], project=params["project"])
        module.exit_json(**present(machines, module))


if __name__ == "__main__":
    main()
