# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read everything of a lead that a burst depends on, each part by itself."""

from __future__ import annotations

DOCUMENTATION = r"""
module: flux_lead_info
short_description: Read everything of a lead that a burst depends on, each part by itself
version_added: 0.1.0
description:
  - What M(flux.burst.flux_identity_info) and M(flux.burst.flux_resource_info) read, and the files of munge and of the
    broker beside it. A part that cannot be read, for instance because no broker runs, is told as a problem and does not
    keep the others from being read. It judges nothing; M(flux.burst.burst_doctor_info) does.
author:
  - flux.burst contributors (@flux-framework)
options:
  munge_key:
    description: Path of the munge key.
    type: path
    default: /etc/munge/munge.key
  address:
    description: Where machines at Google reach the lead, to be tried from the lead itself. Without it nothing is tried.
    type: str
  port:
    description: Port there.
    type: int
  port_timeout:
    description: How long to wait for an answer there, in seconds.
    type: float
    default: 5.0
extends_documentation_fragment:
  - flux.burst._flux
  - flux.burst._attributes.info
"""

EXAMPLES = r"""
- name: Read what a burst depends on
  flux.burst.flux_lead_info:
    address: 34.171.113.254
    port: 30093
  register: checked_lead
"""

RETURN = r"""
time:
  description: The lead's clock, in seconds since the epoch.
  returned: success
  type: float
  sample: 1795517778.879
munge:
  description: What is wrong with munge, empty where it decodes what it encoded.
  returned: success
  type: str
  sample: ""
munge_key:
  description: The munge key's file, without its content.
  returned: success
  type: dict
  sample: &file
    path: /etc/munge/munge.key
    problem: ""
    mode: "0400"
    owner: munge
    size: 128
    changed: 1795510000.0
munge_started:
  description: When munged began to listen, in seconds since the epoch; null where it does not.
  returned: success
  type: float
  sample: 1795510100.0
installed:
  description: What the C(flux) command that is found first says of itself; texts are empty where it says nothing.
  returned: success
  type: dict
  sample:
    version: 0.88.0
    security_version: 0.15.0
    exec_path: /usr/libexec/flux/cmd
    module_path: /usr/lib/flux/modules
broker:
  description: Why the broker was not asked, empty where it answers.
  returned: success
  type: str
  sample: ""
identity:
  description: What the broker says of itself, empty where it does not answer. The user is empty for a uid without one,
    and the time of its start null where the broker does not tell.
  returned: success
  type: dict
  sample:
    rank: 0
    version: 0.88.0
    security_version: 0.15.0
    uid: 1004
    user: flux
    hosts: [flux-sample-0, flux-sample-1, gffw-compute-a-001]
    bootstrap:
      curve_cert: /etc/flux/system/curve.cert
    imp: /usr/libexec/flux/flux-imp
    plugin_path: /usr/lib/flux/shell/plugins
    started: 1795510101.0
certificate:
  description: The curve certificate's file, as RV(munge_key), with its fingerprint; empty where none is configured.
  returned: success
  type: dict
  sample: {}
imp:
  description: The IMP's file, as RV(munge_key); empty where none is configured.
  returned: success
  type: dict
  sample: {}
ranks:
  description: Ranks, as RV(flux.burst.flux_resource_info#module:ranks).
  returned: success
  type: list
  elements: dict
  sample: []
ranks_problem:
  description: Why there are none.
  returned: success
  type: str
  sample: ""
port:
  description: What is wrong with O(port) at O(address) as seen from the lead, empty where a broker answers; null where
    it was not tried.
  returned: success
  type: str
  sample: ""
"""

import os
import pwd
import stat
import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils import (
    _curve,
    _flux,
    _flux_host,
    _flux_resource,
    _zmtp,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, failing_module

# Where munged listens unless it was built otherwise, see munged(8).
MUNGE_SOCKET = "/run/munge/munge.socket.2"


def user_of(uid: int) -> str:
    """Return the name of a user, "" where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def file_of(path: str) -> dict[str, Any]:
    """Return what is known of a file without its content; problem says why it is nothing."""
    made: dict[str, Any] = {"path": path, "problem": ""}
    try:
        found = os.stat(path)
    except OSError as error:
        return {**made, "problem": error.strerror}
    if not stat.S_ISREG(found.st_mode):
        return {**made, "problem": "no regular file"}
    return {
        **made,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "owner": user_of(found.st_uid) or str(found.st_uid),
        "size": found.st_size,
        "changed": found.st_mtime,
    }


def certificate_of(path: str) -> dict[str, Any]:
    """Return what is known of a curve certificate, without its secret key."""
    found = {**file_of(path), "fingerprint": _curve.known_fingerprint(path)}
    if not found["problem"] and not found["fingerprint"]:
        found["problem"] = "no public-key in it"
    return found


def started(path: str) -> float | None:
    """Return when a socket was made."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None


def installed() -> dict[str, Any]:
    """Return what the first flux of the PATH says."""
    said = _flux_host.said
    core = said("version")
    paths = {name: said("config", "builtin", name) for name in ("exec_path", "module_path")}
    return {
        "version": _flux_host.core_version(core),
        "security_version": _flux_host.security_version(core),
        **paths,
    }


def attribute(client: _flux.FluxClient, name: str) -> str:
    """Return a broker attribute, "" where the broker has none of that name."""
    try:
        return client.attribute(name)
    except FluxError:
        return ""


def identity_of(client: _flux.FluxClient) -> dict[str, Any]:
    """Return what the broker says of itself. Raises FluxError."""
    config = client.rpc("config.get")
    bootstrap = config.get("bootstrap") or {}
    uid = int(client.attribute("security.owner"))
    at = attribute(client, "broker.starttime")
    return {
        "rank": int(client.attribute("rank")),
        "version": client.attribute("version").split("-")[0],
        "uid": uid,
        "user": user_of(uid),
        "hosts": _flux.hosts(entry["host"] for entry in bootstrap.get("hosts") or []),
        "bootstrap": bootstrap,
        "imp": (config.get("exec") or {}).get("imp", ""),
        "plugin_path": attribute(client, "conf.shell_pluginpath"),
        "started": float(at) if at else None,
    }


def broker_parts(params: dict[str, Any]) -> dict[str, Any]:
    """Return what has to be asked of the broker."""
    parts: dict[str, Any] = {"broker": "", "identity": {}, "ranks": [], "ranks_problem": ""}
    try:
        client = _flux.FluxClient.of(params)
        parts["identity"] = identity_of(client)
    except FluxError as error:
        return {**parts, "broker": str(error), "ranks_problem": str(error)}
    try:
        parts["ranks"] = [asdict(rank) for rank in _flux_resource.read_all(client)]
    except FluxError as error:
        parts["ranks_problem"] = str(error)
    return parts


def read(params: dict[str, Any]) -> dict[str, Any]:
    """Return all parts."""
    parts = broker_parts(params)
    identity, host = parts["identity"], installed()
    if identity:
        identity["security_version"] = host["security_version"]
    certificate = identity.get("bootstrap", {}).get("curve_cert", "")
    imp = identity.get("imp", "")
    tried = params["address"] and params["port"]
    return {
        **parts,
        "munge": _flux_host.munge(),
        "munge_key": file_of(params["munge_key"]),
        "munge_started": started(MUNGE_SOCKET),
        "installed": host,
        "certificate": certificate_of(certificate) if certificate else {},
        "imp": file_of(imp) if imp else {},
        "port": _zmtp.problem(params["address"], params["port"], params["port_timeout"])
        if tried
        else None,
        "time": time.time(),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **_flux.ARGUMENTS,
            "munge_key": {"type": "path", "default": "/etc/munge/munge.key", "no_log": False},
            "address": {"type": "str"},
            "port": {"type": "int"},
            "port_timeout": {"type": "float", "default": 5.0},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        module.exit_json(changed=False, **read(module.params))


if __name__ == "__main__":
    main()
