# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The RPCs on ranks: who is there, who is drained, what the overlay says, and the store."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from . import journal, lists
from .local import fail

if TYPE_CHECKING:
    from .broker import Leader


class ResourceMethods:
    """Answers of the resource module, the scheduler, the overlay, the log, the store and exec."""

    def __init__(self, lead: Leader) -> None:
        self.lead = lead

    async def rpc_resource_status(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Every rank."""
        return self.lead.resources.status()

    async def rpc_sched_resource_status(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """What jobs have."""
        resources = self.lead.resources
        every = set(resources.nodes)
        return {
            "all": resources.as_r(every),
            "allocated": resources.as_r(resources.allocated, nodelist=False, used=True),
            "down": resources.as_r(every - resources.online, nodelist=False),
        }

    async def rpc_resource_journal(
        self, payload: dict[str, Any], uid: int
    ) -> AsyncIterator[dict[str, Any]]:
        """What happened to the ranks, and what happens."""
        self.lead.owner_only(uid)
        return self.lead.journal.follow()

    def _targets(self, text: str) -> list[int]:
        if text.replace("-", "").replace(",", "").strip("[]").isdigit():
            ranks = lists.ids(text)
        else:
            hosts = [member.host for member in self.lead.members]
            unknown = [name for name in lists.expand(text) if name not in hosts]
            if unknown:
                raise fail(errno.EINVAL, f"invalid targets: {unknown[0]}")
            ranks = [hosts.index(name) for name in lists.expand(text)]
        if any(rank not in self.lead.resources.nodes for rank in ranks):
            raise fail(errno.EINVAL, "idset is out of range")
        return ranks

    def _nodelist(self, ranks: list[int]) -> str:
        return lists.fold(self.lead.members[rank].host for rank in ranks)

    async def rpc_resource_drain(self, payload: dict[str, Any], uid: int) -> None:
        """Keep jobs away from ranks."""
        self.lead.owner_only(uid)
        ranks, drained = self._targets(payload["targets"]), self.lead.resources.drained
        already = [rank for rank in ranks if rank in drained]
        if already:
            raise fail(errno.EEXIST, f"ranks {lists.idset(already)} already drained")
        reason = payload.get("reason", "")
        for rank in ranks:
            drained[rank] = {"timestamp": time.time(), "reason": reason}
        names = self._nodelist(ranks)
        self.lead.journal.note(
            "drain", idset=lists.idset(ranks), nodelist=names, reason=reason, overwrite=0
        )

    async def rpc_resource_undrain(self, payload: dict[str, Any], uid: int) -> None:
        """Let jobs in again."""
        self.lead.owner_only(uid)
        ranks, drained = self._targets(payload["targets"]), self.lead.resources.drained
        missing = [rank for rank in ranks if rank not in drained]
        if missing:
            raise fail(errno.EEXIST, f"ranks {lists.idset(missing)} not drained")
        for rank in ranks:
            del drained[rank]
        self.lead.journal.note("undrain", idset=lists.idset(ranks), nodelist=self._nodelist(ranks))
        self.lead.changed.set()

    async def rpc_overlay_health(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """What the lead knows of each member; the tree is flat."""
        children = []
        for rank in range(1, len(self.lead.members)):
            status, error, since = self.lead.peers.get(rank, ("offline", "", self.lead.started))
            row = {"rank": rank, "status": status, "duration": time.time() - since}
            children.append({**row, "error": error} if error else row)
        whole = all(row["status"] == "full" for row in children)
        duration = time.time() - self.lead.started
        status = "full" if whole else "partial"
        return {"rank": 0, "status": status, "duration": duration, "children": children}

    async def rpc_overlay_topology(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """The tree, which is flat."""
        size = len(self.lead.members)
        if payload["rank"] not in range(size):
            raise fail(errno.ENOENT)
        ranks = range(1, size) if payload["rank"] == 0 else range(0)
        children = [{"rank": rank, "size": 1, "children": []} for rank in ranks]
        return {"rank": payload["rank"], "size": 1 + len(children), "children": children}

    async def rpc_overlay_disconnect_subtree(self, payload: dict[str, Any], uid: int) -> None:
        """Hear a member no more; it joins again by itself."""
        self.lead.owner_only(uid)
        if payload["rank"] not in self.lead.link.peers:
            raise fail(errno.ENOENT, "requested rank is not this broker's direct child")
        self.lead.gone(payload["rank"], "administrative disconnect", "lost")

    async def rpc_log_dmesg(self, payload: dict[str, Any], uid: int) -> AsyncIterator[str]:
        """What was logged so far."""
        self.lead.owner_only(uid)
        return journal.lines()

    async def rpc_kvs_commit(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Change the store."""
        self.lead.owner_only(uid)
        self.lead.store.commit(payload["ops"])
        return {"rootref": "sha1-0", "rootseq": 1}

    async def rpc_kvs_lookup(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Read the store."""
        self.lead.owner_only(uid)
        return {"val": self.lead.store.lookup(payload["key"], payload["flags"])}

    async def rpc_standin_exec(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Run a command on ranks as the owner; one that is not there has no answer."""
        self.lead.owner_only(uid)
        ranks = lists.ids(payload["ranks"])
        if any(rank not in range(len(self.lead.members)) for rank in ranks):
            raise fail(errno.EINVAL, f"One or more invalid --ranks specified: {payload['ranks']}")
        return {
            str(rank): await self.lead.execute(rank, payload["command"], payload["given"])
            for rank in ranks
        }
