# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of their own. Those that are made with an instance are part of it, and are not listed."""

from __future__ import annotations

from sandbox.server import catalog, changes
from sandbox.server.api import Call, serve
from sandbox.server.state import Resource, check_labels, fingerprint


@serve("disks.insert", "POST", "zones/{zone}/disks")
async def insert_disk(call: Call) -> Resource:
    """Make an empty disk."""
    key, body = call.vacant(), call.body
    labels = check_labels(body.get("labels"))
    zone = f"{catalog.BASE}/projects/{call.project}/{call.scope}"
    fields = {
        "zone": zone,
        "type": f"{zone}/diskTypes/pd-balanced",
        "sizeGb": str(body.get("sizeGb", "100")),
        "status": "READY",
        "physicalBlockSizeBytes": "4096",
        "labelFingerprint": fingerprint(labels),
        **({"labels": labels} if labels else {}),
        **({"description": body["description"]} if "description" in body else {}),
    }
    return changes.insert(call, key, call.cloud.new(key, "disk", fields))


@serve("disks.delete", "DELETE", "zones/{zone}/disks/{disk}")
async def delete_disk(call: Call) -> Resource:
    """Delete a disk."""
    key, _unused = call.settled()
    return changes.delete(call, key)
