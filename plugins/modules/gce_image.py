# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of a machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_image
short_description: An image of a machine that others boot from
version_added: 0.1.0
description:
  - Makes an image of a stopped machine's boot disk, or of a disk, and waits until it is ready. A machine that boots
    from its family gets the newest one that is ready and not deprecated.
  - An image of that name that exists keeps its content; its labels, family and description are put right. One that was
    made of another disk or for another architecture is an error, and is never replaced.
  - What must not be in an image (keys, logs, the machine's identity) is for the caller to remove before. The role
    P(flux.burst.image#role) does.
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: V(absent) deletes the image of that name. Machines that were booted from it go on.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the image.
    type: str
    required: true
  burst:
    description:
      - Name of the burst that the image is for. The image carries the label C(flux-burst-image) with this value, and
        not the label of the machines, because it outlives the burst. Needed for O(state=present).
    type: str
  source_instance:
    description: Name of the machine in O(zone) whose boot disk is the source.
    type: str
  zone:
    description: Zone of O(source_instance).
    type: str
  source_disk:
    description: The source as C(projects/PROJECT/zones/ZONE/disks/DISK), instead of O(source_instance).
    type: str
  stop_instance:
    description:
      - Shut O(source_instance) down first, where it runs. It stays stopped. Without this a machine that runs is an
        error, because an image of a disk in use may be inconsistent.
    type: bool
    default: false
  family:
    description: Image family that the image belongs to.
    type: str
  description:
    description: What the image is; it should say which version of Flux is in it.
    type: str
  labels:
    description: Labels beside our own.
    type: dict
    default: {}
  architecture:
    description: Architecture of the machines that can boot it. Without it that of the disk.
    type: str
    choices: [X86_64, ARM64]
  storage_locations:
    description: Region or multi-region where the image is kept. Without any, Compute Engine's choice.
    type: list
    elements: str
    default: []
  guest_os_features:
    description: Features of the guest system beside those of the disk, for instance V(GVNIC).
    type: list
    elements: str
    default: []
  keep:
    description:
      - How many images of O(family) that were made for O(burst) to keep, the new one among them. Older ones are
        deleted. Without it none is.
    type: int
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes
seealso:
  - module: flux.burst.gce_image_info
"""

EXAMPLES = r"""
- name: Make an image of the build machine
  flux.burst.gce_image:
    name: flux-fw-bursted-x86-64-20261125-201500
    burst: flux-burst
    project: my-project
    zone: us-central1-a
    source_instance: flux-burst-image
    stop_instance: true
    family: flux-fw-bursted-x86-64
    description: Flux 0.88.0 for flux-burst
    keep: 3

- name: Delete an image
  flux.burst.gce_image:
    state: absent
    name: flux-fw-bursted-x86-64-20261125-201500
    project: my-project
"""

RETURN = r"""
image:
  description: The image. In check mode one that would be created has only its name. Empty for O(state=absent).
  returned: success
  type: dict
  sample:
    name: flux-fw-bursted-x86-64-20261125-201500
    id: "4611686018427387904"
    link: projects/my-project/global/images/flux-fw-bursted-x86-64-20261125-201500
    family: flux-fw-bursted-x86-64
    architecture: X86_64
    status: READY
    deprecated: ""
    description: Flux 0.88.0 for flux-burst
    labels:
      flux-burst-image: flux-burst
    source_disk: flux-burst-image
    created: "2026-11-25T20:15:00.000-08:00"
    disk_size_gb: 20
    archive_bytes: 1073741824
resources:
  description: What was changed, or in check mode would be, in this order.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: image
      name: flux-fw-bursted-x86-64-20261125-201500
      action: create
"""

import time
import uuid
from functools import cached_property
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _changes, _gce_image
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import (
    ACCESS,
    GceClient,
    Started,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import NOT_FOUND, GceSession

POLL = 1.0
READY_SECONDS = 1800.0


class Image:
    """An image as it is, and the changes to it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.session = GceSession.from_params(params)
        self.images = f"projects/{params['project']}/global/images"
        self.existing = self.read()

    @cached_property
    def client(self) -> GceClient:
        """Made for the first change only."""
        return GceClient.from_params(self.params)

    def _found(self, path: str, fields: str) -> dict[str, Any] | None:
        try:
            return self.session.get(path, fields=fields)
        except GceError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def read(self) -> dict[str, Any] | None:
        """Return the image of that name."""
        return self._found(f"{self.images}/{self.params['name']}", _gce_image.IMAGE_FIELDS)

    def actual(self) -> _gce_image.Actual:
        """Return the image, what it is to be made of and, where older ones are to go, those."""
        params, instance, disk = self.params, None, params_disk(self.params)
        if params["source_instance"]:
            instance = self._found(
                f"projects/{params['project']}/zones/{params['zone']}/instances/{params['source_instance']}",
                "status,disks(source,boot)",
            )
            disk = _gce_image.boot_disk(instance) if instance else None
        ours: list[dict[str, Any]] = []
        if params["keep"] is not None:
            test = f"labels.{_gce_image.LABEL}={params['burst']}"
            ours = list(self.session.listed(self.images, _gce_image.IMAGE_FIELDS, filter=test))
        found = self._found(disk, "id,selfLink") if disk else None
        return _gce_image.Actual(self.existing, instance, found, ours)

    def act(self, stage: _changes.Stage) -> None:
        """Do one stage: start all of it, then wait for all of it."""
        self.client.wait_all([each for change in stage for each in self._start(change)])

    def _start(self, change: _changes.Change) -> list[Started]:
        if change.kind == "instance":
            return [self.client.stop(change.name, self.params["zone"])]
        if change.action == "delete":
            deletion = self.client.delete("image", change.name)
            return [deletion] if deletion else []
        if change.action == "create":
            return [self.client.insert("image", change.after, str(uuid.uuid4()))]
        return self._update(change)

    def _update(self, change: _changes.Change) -> list[Started]:
        fields = {key: value for key, value in change.after.items() if key != "labels"}
        started = [self.client.patch("image", change.name, fields)] if fields else []
        if "labels" in change.after:
            body = _gce_image.labels_body(self.existing or {}, change.after["labels"])
            started.append(self.client.label_image(change.name, body))
        return started

    def ready(self) -> dict[str, Any]:
        """Wait until the image can be booted; somebody else may be making it. Raises GceError."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            found = self.read()
            status = found["status"] if found else "gone"
            if found and status == "READY":
                return _gce_image.row(found)
            if status != "PENDING" or time.monotonic() > deadline:
                raise GceError(
                    f"wanted image {self.params['name']} READY, found it {status}: delete it and run again."
                )
            time.sleep(POLL)


def params_disk(params: dict[str, Any]) -> str | None:
    """Return the path of the disk that was asked for, where one was."""
    return _gce_image.disk_path(params["source_disk"]) if params["source_disk"] else None


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ACCESS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "burst": {"type": "str"},
            "source_instance": {"type": "str"},
            "zone": {"type": "str"},
            "source_disk": {"type": "str"},
            "stop_instance": {"type": "bool", "default": False},
            "family": {"type": "str"},
            "description": {"type": "str"},
            "labels": {"type": "dict", "default": {}},
            "architecture": {"type": "str", "choices": ["X86_64", "ARM64"]},
            "storage_locations": {"type": "list", "elements": "str", "default": []},
            "guest_os_features": {"type": "list", "elements": "str", "default": []},
            "keep": {"type": "int"},
        },
        required_if=[
            ("state", "present", ("burst",)),
            ("state", "present", ("source_instance", "source_disk"), True),
        ],
        required_by={"source_instance": "zone"},
        mutually_exclusive=[("source_instance", "source_disk")],
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        _gce_image.check(params)
        image = Image(params)
        if params["state"] == "absent":
            stages = _gce_image.plan_absent(image.existing)
            result = _changes.apply(stages, image.act, check=module.check_mode)
            module.exit_json(**result, image={})
        actual = image.actual()
        stages = _gce_image.plan_present(params, actual)
        result = _changes.apply(stages, image.act, check=module.check_mode)
        planned = _gce_image.row(actual.image) if actual.image else {"name": params["name"]}
        module.exit_json(**result, image=planned if module.check_mode else image.ready())


if __name__ == "__main__":
    main()
