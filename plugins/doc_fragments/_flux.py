# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the broker is."""

from __future__ import annotations


class ModuleDocFragment:
    """Kept in sync with ARGUMENTS of module_utils/_flux.py."""

    DOCUMENTATION = r"""
options:
  uri:
    description: URI of the broker's local socket.
    type: str
    default: local:///run/flux/local
  rpc_timeout:
    description: How long the broker may take to answer one request, in seconds.
    type: float
    default: 30.0
requirements:
  - flux-core 0.88 or newer with its Python bindings, on the machine where the module runs
notes:
  - Run it as the instance's owner, or as root where the broker has C(allow-root-owner = true).
"""
