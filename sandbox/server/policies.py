# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource policies, of which the sandbox has group placement only."""

from __future__ import annotations

from sandbox.server import catalog, changes
from sandbox.server.api import Call, serve
from sandbox.server.errors import in_use, invalid
from sandbox.server.state import Resource


@serve("resourcePolicies.insert", "POST", "regions/{region}/resourcePolicies")
async def insert_policy(call: Call) -> Resource:
    """Make a compact placement."""
    key, placement = call.vacant(), call.body.get("groupPlacementPolicy")
    if not placement or placement.get("collocation") != "COLLOCATED":
        why = "The sandbox has groupPlacementPolicy with collocation COLLOCATED only."
        raise invalid("resource.groupPlacementPolicy", placement or "", why)
    fields = {
        "groupPlacementPolicy": placement,
        "region": f"{catalog.BASE}/projects/{call.project}/{call.scope}",
        "status": "READY",
        **({"description": call.body["description"]} if "description" in call.body else {}),
    }
    return changes.insert(call, key, call.cloud.new(key, "resourcePolicy", fields))


@serve("resourcePolicies.delete", "DELETE", "regions/{region}/resourcePolicies/{resourcePolicy}")
async def delete_policy(call: Call) -> Resource:
    """Delete a policy that no instance has."""
    key, _unused = call.settled()
    for user, instance in call.cloud.table(call.project, "instances").items():
        if key.link in instance.get("resourcePolicies", ()):
            raise in_use("resource_policy", key.path, user.path)
    return changes.delete(call, key)
