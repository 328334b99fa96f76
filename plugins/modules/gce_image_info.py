# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images there are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gce_image_info
short_description: Which images a project has
version_added: 0.1.0
description:
  - Lists a project's images, the newest first, those among them that are deprecated or not ready yet.
author:
  - flux.burst contributors (@flux-framework)
options:
  family:
    description: Only images of this family.
    type: str
  filter:
    description: Only images that this filter of Compute Engine finds, such as C(labels.flux-burst-image=flux-burst).
    type: str
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes.info
seealso:
  - module: flux.burst.gce_image
"""

EXAMPLES = r"""
- name: See the images of a family
  flux.burst.gce_image_info:
    project: my-project
    family: flux-fw-bursted-x86-64
  register: found

- name: See the images that were made for a burst
  flux.burst.gce_image_info:
    project: my-project
    filter: labels.flux-burst-image=flux-burst
"""

RETURN = r"""
images:
  description: The images, the newest first.
  returned: success
  type: list
  elements: dict
  sample:
    - name: flux-fw-bursted-x86-64-20261125-201500
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
  contains:
    name:
      description: Its name.
      type: str
    id:
      description: Its id.
      type: str
    link:
      description: What O(flux.burst.gce_instances#module:image) takes to boot this one.
      type: str
    family:
      description: Its family; empty without one.
      type: str
    architecture:
      description: V(X86_64) or V(ARM64); empty where Compute Engine does not say.
      type: str
    status:
      description: V(READY), V(PENDING), V(FAILED) or V(DELETING).
      type: str
    deprecated:
      description: V(DEPRECATED), V(OBSOLETE) or V(DELETED); empty for one that is in use.
      type: str
    description:
      description: What was said of it.
      type: str
    labels:
      description: Its labels.
      type: dict
    source_disk:
      description: Name of the disk that it was made of; empty for another source.
      type: str
    created:
      description: When it was made, as RFC 3339 has it.
      type: str
    disk_size_gb:
      description: Size of the smallest boot disk that takes it, in GB.
      type: int
    archive_bytes:
      description: What is stored and paid for, in bytes.
      type: int
newest:
  description:
    - Name of the image that a machine gets which boots from O(family), which is the newest one that is ready and not
      deprecated. Empty without O(family) and where there is none.
  returned: success
  type: str
  sample: flux-fw-bursted-x86-64-20261125-201500
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _gce_image
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={**ACCESS, "family": {"type": "str"}, "filter": {"type": "str"}},
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        session = GceSession.from_params(params)
        test = _gce_image.list_filter(params["family"], params["filter"])
        path = f"projects/{params['project']}/global/images"
        found = session.listed(path, _gce_image.IMAGE_FIELDS, **({"filter": test} if test else {}))
        rows = [_gce_image.row(image) for image in _gce_image.newest_first(found)]
        newest = _gce_image.newest(rows) if params["family"] else ""
        module.exit_json(changed=False, images=rows, newest=newest)


if __name__ == "__main__":
    main()
