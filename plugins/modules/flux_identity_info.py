# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read who a Flux instance is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_identity_info
short_description: Read what bursted machines must have in common with the lead
version_added: 0.1.0
description:
  - Reads the owner, the version and the configuration of the instance from its lead broker (rank 0).
author:
  - flux.burst contributors (@flux-framework)
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read the lead's identity
  flux.burst.flux_identity_info:
  register: lead
"""

RETURN = r"""
uri:
  description: The URI that was asked.
  returned: success
  type: str
  sample: local:///run/flux/local
hostname:
  description: Name of the lead's host, as Flux knows it.
  returned: success
  type: str
  sample: flux-sample-0
user:
  description: User that owns the instance.
  returned: success
  type: str
  sample: flux
uid:
  description: Its uid.
  returned: success
  type: int
  sample: 1004
gid:
  description: Its primary gid.
  returned: success
  type: int
  sample: 1004
version:
  description: Version of flux-core, MAJOR.MINOR.PATCH.
  returned: success
  type: str
  sample: 0.88.0
security_version:
  description: Version of flux-security, MAJOR.MINOR.PATCH; empty where Flux was built without.
  returned: success
  type: str
  sample: 0.15.0
exec_path:
  description: Where Flux's commands are, as C(flux config builtin) says; it shows the prefix.
  returned: success
  type: str
  sample: /usr/libexec/flux/cmd
module_path:
  description: Where Flux's modules are, as C(flux config builtin) says; it shows the library directory.
  returned: success
  type: str
  sample: /usr/lib/flux/modules
cert_fingerprint:
  description: SHA-256 of the public key in the curve certificate, in hexadecimal. It is no secret.
  returned: success
  type: str
  sample: 5b0e7b9a4f1c3d2e8a7f6c5d4b3a29180716253443526170f9e8d7c6b5a49382
munge:
  description: What is wrong with munge on the lead, empty where it decodes what it encoded.
  returned: success
  type: str
  sample: ""
time:
  description: The lead's clock, in seconds since the epoch.
  returned: success
  type: float
  sample: 1795517778.879
hosts:
  description: Hosts of the instance by rank.
  returned: success
  type: list
  elements: str
  sample: [flux-sample-0, flux-sample-1, gffw-compute-a-001]
config:
  description: The lead's whole configuration, a table for each section. It holds no secret.
  returned: success
  type: dict
  sample:
    tbon:
      tcp_user_timeout: 20s
bootstrap:
  description: Section C([bootstrap]) of it.
  returned: success
  type: dict
  sample:
    curve_cert: /etc/flux/system/curve.cert
"""

import pwd
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import _flux
from ansible_collections.flux.burst.plugins.module_utils._curve import fingerprint
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._flux_host import (
    munge,
    said,
    security_version,
)


def read(client: _flux.FluxClient) -> dict[str, Any]:
    """Return the identity. Raises FluxError where this is not a lead that others can join."""
    rank = client.attribute("rank")
    if rank != "0":
        raise FluxError(
            f"wanted the lead broker (rank 0) at {client.uri}, found rank {rank}: "
            "put the lead's host into the inventory group flux_lead."
        )
    config = client.rpc("config.get")
    bootstrap = config.get("bootstrap") or {}
    for key in ("hosts", "curve_cert"):
        if not bootstrap.get(key):
            raise FluxError(
                f"wanted {key} in [bootstrap] of the lead's configuration, found none: a machine joins "
                "only where the lead lists it in hosts and shares a certificate with it."
            )
    uid = client.attribute("security.owner")
    try:
        owner = pwd.getpwuid(int(uid))
    except KeyError:
        raise FluxError(
            f"wanted a user with uid {uid}, which owns the instance at {client.uri}, found none on this "
            "machine: add it to the lead's passwd, as the bursted machines must have it too."
        ) from None
    hosts = _flux.hosts(entry["host"] for entry in bootstrap["hosts"])
    return {
        "uri": client.uri,
        "hostname": hosts[0],
        "user": owner.pw_name,
        "uid": owner.pw_uid,
        "gid": owner.pw_gid,
        "version": client.attribute("version").split("-")[0],
        "security_version": security_version(said("version")),
        "exec_path": said("config", "builtin", "exec_path"),
        "module_path": said("config", "builtin", "module_path"),
        "cert_fingerprint": fingerprint(bootstrap["curve_cert"]),
        "munge": munge(),
        "time": time.time(),
        "hosts": hosts,
        "config": config,
        "bootstrap": bootstrap,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={**_flux.ARGUMENTS}, supports_check_mode=True)
    with failing_module(module):
        module.exit_json(changed=False, **read(_flux.FluxClient.of(module.params)))


if __name__ == "__main__":
    main()
