# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The RPCs on ranks: who is there, who is drained, what the overlay says, and the store."""

from __future__ import annotations

import asyncio
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
        """What jobs have, for the owner."""
        self.lead.owner_only(uid)
        return await self.rpc_resource_sched_status(payload, uid)

    async def rpc_resource_sched_status(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """What jobs have, for all."""
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
        numbers = text.replace("-", "").replace(",", "").strip("[]").isdigit()
        ranks = lists.ids(text) if numbers else []
        # What is out of order is no idset, and so are names.
        if not ranks or ranks != sorted(set(ranks)):
            hosts = [member.host for member in self.lead.members]
            unknown = [name for name in lists.expand(text) if name not in hosts]
            if unknown:
                raise fail(errno.EINVAL, f"invalid targets: invalid hosts: {lists.fold(unknown)}")
            ranks = [hosts.index(name) for name in lists.expand(text)]
        if any(rank not in self.lead.resources.nodes for rank in ranks):
            raise fail(errno.EINVAL, "idset is out of range")
        return ranks

    def _nodelist(self, ranks: list[int]) -> str:
        return lists.fold(self.lead.members[rank].host for rank in ranks)

    async def rpc_resource_drain(self, payload: dict[str, Any], uid: int) -> None:
        """Keep jobs away from ranks; as "overwrite" and "update" also from those that are drained."""
        self.lead.owner_only(uid)
        ranks, drained = self._targets(payload["targets"]), self.lead.resources.drained
        mode, reason = payload.get("mode", ""), payload.get("reason")
        overwrite = {"overwrite": 1, "force-overwrite": 2}.get(mode, 0)
        if not overwrite and mode not in ("", "update"):
            raise fail(errno.EINVAL, "Invalid mode specified")
        already = [rank for rank in ranks if rank in drained]
        if already and not mode:
            raise fail(errno.EEXIST, f"{_named(already)} already drained")
        for rank in ranks:
            old = drained.get(rank, {})
            if overwrite or not old.get("reason"):
                # The first time stays; Flux rounds it here, and not in the journal.
                when = float(round(time.time()))
                kept = when if overwrite == 2 else old.get("timestamp", when)
                drained[rank] = {"timestamp": kept, "reason": reason or ""}
        more = {} if reason is None else {"reason": reason}
        names = self._nodelist(ranks)
        self.lead.journal.note(
            "drain", idset=lists.idset(ranks), nodelist=names, **more, overwrite=overwrite
        )

    async def rpc_resource_undrain(self, payload: dict[str, Any], uid: int) -> None:
        """Let jobs in again."""
        self.lead.owner_only(uid)
        ranks, drained = self._targets(payload["targets"]), self.lead.resources.drained
        if "mode" in payload:
            raise fail(errno.EINVAL, f"invalid undrain mode '{payload['mode']}' specified")
        missing = [rank for rank in ranks if rank not in drained]
        if missing:
            raise fail(errno.EEXIST, f"{_named(missing)} not drained")
        for rank in ranks:
            del drained[rank]
        names = self._nodelist(ranks)
        self.lead.journal.note("undrain", idset=lists.idset(ranks), nodelist=names, overwrite=0)
        self.lead.changed.set()

    async def rpc_overlay_health(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """What the lead knows of each member; the tree is flat."""
        children = []
        for rank in range(1, len(self.lead.members)):
            status, error, since = self.lead.peers.get(rank, ("offline", "", self.lead.started))
            row = {"rank": rank, "status": status, "duration": time.time() - since}
            children.append({**row, "error": error} if error else row)
        states = {row["status"] for row in children}
        duration = time.time() - self.lead.started
        status = "degraded" if "lost" in states else "partial" if "offline" in states else "full"
        return {"rank": 0, "status": status, "duration": duration, "children": children}

    async def rpc_overlay_topology(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """The tree, which is flat."""
        size = len(self.lead.members)
        if payload["rank"] not in range(size):
            raise fail(errno.ENOENT, "requested rank is not this broker or its direct child")
        ranks = range(1, size) if payload["rank"] == 0 else range(0)
        children = [{"rank": rank, "size": 1, "children": []} for rank in ranks]
        return {"rank": payload["rank"], "size": 1 + len(children), "children": children}

    async def rpc_overlay_disconnect_subtree(self, payload: dict[str, Any], uid: int) -> None:
        """Hear a member no more."""
        self.lead.owner_only(uid)
        rank = payload["rank"]
        if rank not in range(1, len(self.lead.members)):
            raise fail(errno.ENOENT, "requested rank is not this broker's direct child")
        if rank not in self.lead.link.peers:
            status = self.lead.peers.get(rank, ("offline",))[0]
            raise fail(errno.EINVAL, f"rank {rank} is already {status}")
        # Its broker ends with that, and joins again where systemd starts it again.
        farewell = {"type": "reject", "reason": "parent update: overlay disconnect"}
        await self.lead.link.send(rank, farewell)
        self.lead.gone(rank, "administrative disconnect", "lost", "disconnected by request")

    async def rpc_log_dmesg(self, payload: dict[str, Any], uid: int) -> AsyncIterator[str]:
        """What was logged so far, and with follow what will be."""
        self.lead.owner_only(uid)
        return journal.lines(payload["follow"], not payload["nobacklog"])

    async def rpc_kvs_commit(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Change the store."""
        self._store_only(uid)
        if "flags" not in payload:
            raise fail(errno.EPROTO)
        return self.lead.store.commit(payload["namespace"], payload["ops"])

    async def rpc_kvs_lookup(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Read the store."""
        self._store_only(uid)
        return {
            "val": self.lead.store.lookup(payload["namespace"], payload["key"], payload["flags"])
        }

    def _store_only(self, uid: int) -> None:
        if uid not in (0, self.lead.owner):
            raise fail(errno.EPERM)

    async def rpc_standin_exec(self, payload: dict[str, Any], uid: int) -> dict[str, Any]:
        """Run a command on ranks as the owner, on all at once."""
        self.lead.owner_only(uid)
        every = range(len(self.lead.members))
        ranks = [*every] if payload["ranks"] == "all" else lists.ids(payload["ranks"])
        if any(rank not in every for rank in ranks):
            raise fail(errno.EINVAL, f"One or more invalid --ranks specified: {payload['ranks']}")
        runs = (self.lead.execute(rank, payload["command"], payload["given"]) for rank in ranks)
        found = await asyncio.gather(*runs)
        return {str(rank): said for rank, said in zip(ranks, found, strict=True)}


def _named(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {lists.idset(ranks)}"
