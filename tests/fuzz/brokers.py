# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A broker that gives the answers it was told to, as JSON texts, behind Flux's bindings."""

from __future__ import annotations

import base64
import errno
import json
import os
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _flux, _flux_claim, _flux_queue
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand

JOBSPEC: dict[str, Any] = {
    "version": 1,
    "resources": [
        {
            "type": "node",
            "count": 4,
            "exclusive": True,
            "with": [
                {
                    "type": "slot",
                    "count": 1,
                    "label": "task",
                    "with": [
                        {"type": "core", "count": 1},
                        {"type": "gpu", "count": 1},
                        {"type": "memory", "count": 2, "unit": "GB"},
                    ],
                }
            ],
        }
    ],
    "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}],
    "attributes": {
        "system": {
            "burstable": {"zone": "a"},
            "cwd": "/tmp",
            "duration": 60.0,
            "constraints": {
                "and": [
                    {"properties": ["burst", "^gpu"]},
                    {"hostlist": ["b-[1-3]"]},
                    {"or": [{"ranks": ["2-4,7"]}, {"not": [{"properties": ["x"]}]}]},
                ]
            },
        }
    },
}
CLAIM = _flux_claim.line(_flux_claim.Claim("other", 4e9, "elsewhere"), 1.0)
ID = 8019509248
NAME = _flux_queue.f58(ID)
LISTED = {
    "id": ID,
    "userid": 1004,
    "urgency": 16,
    "priority": 16,
    "t_submit": 1795517778.879,
    "t_inactive": 1795517799.0,
    "state": 8,
    "name": "hostname",
    "queue": "",
    "ntasks": 4,
    "duration": 60.0,
    "dependencies": ["after:x"],
    "ranks": "1-2",
}
LITE = [{"rank": "0-1", "children": {"core": "0-3"}}, {"rank": "2-4", "children": {"core": "0-1"}}]
EXECUTION = {
    "R_lite": LITE,
    "nodelist": ["lead,worker,b-[1-3]"],
    "properties": {"burst": "2-4"},
    "starttime": 0.0,
    "expiration": 0.0,
}
HOSTS = ["lead", "worker", "b-1", "b-2", "b-3"]
EVENTS = [
    {"timestamp": 1.0, "name": "restart", "context": {"ranks": "0-4", "online": "0"}},
    {"timestamp": 2.0, "name": "online", "context": {"idset": "1-2"}},
    {"timestamp": 3.0, "name": "drain", "context": {"idset": "2", "reason": "x"}},
]
ANSWERS: dict[str, Any] = {
    "attr.get": {"value": "0"},
    "config.get": {
        "bootstrap": {
            "hosts": [{"host": "lead", "bind": "tcp://eth0:8050"}, {"host": "worker,b-[1-3]"}],
            "curve_cert": "/etc/flux/system/curve.cert",
        }
    },
    "job-info.lookup": {"id": ID, "jobspec": json.dumps(JOBSPEC)},
    "job-list.job-stats": {"job_states": {"depend": 0, "priority": 0, "sched": 1, "run": 0}},
    "job-list.list": {"jobs": [LISTED]},
    "job-list.list-id": {"job": LISTED},
    "job-manager.memo": {},
    "job-manager.queue-status": {"enable": True, "start": False},
    "kvs.commit": {},
    "kvs.lookup": {
        "val": {
            "ver": 1,
            "type": "dir",
            "data": {
                NAME: {
                    "ver": 1,
                    "type": "val",
                    "data": base64.b64encode(CLAIM.encode()).decode(),
                },
                "f2": {"ver": 1, "type": "valref", "data": ["sha1-0"]},
            },
        }
    },
    "overlay.health": {
        "rank": 0,
        "status": "partial",
        "children": [
            {"rank": 1, "status": "full"},
            {"rank": 2, "status": "lost", "error": "lost connection"},
        ],
    },
    "overlay.topology": {
        "rank": 0,
        "size": 5,
        "children": [{"rank": 1, "children": [{"rank": 2}]}],
    },
    "resource.status": {
        "R": {"version": 1, "execution": EXECUTION},
        "online": "0-2",
        "offline": "3-4",
        "exclude": "0",
        "torpid": "",
        "drain": {"2": {"timestamp": 3.0, "reason": "x"}},
    },
    "sched.resource-status": {"allocated": {"version": 1, "execution": EXECUTION}},
}
STREAMS: dict[str, list[Any]] = {
    "resource.journal": [{"events": EVENTS}, {"events": []}],
    "job-manager.events-journal": [
        {
            "id": ID,
            "events": [{"timestamp": 1.0, "name": "submit", "context": {}}],
            "jobspec": JOBSPEC,
        },
        {"id": -1, "events": []},
    ],
}
LOG = [
    "<28>1 2026-11-26T11:00:00.000000Z 0 broker 1 - - rejecting connection from b-1 (rank 2): mismatched config?",
    "<30>1 2026-11-26T11:00:00.000000Z 0 broker 1 - - hello",
]


class Future:
    """An answer that is there. Of a stream it is one after the other."""

    def __init__(self, texts: Iterator[str]) -> None:
        self.texts = texts

    def wait_for(self, _seconds: float) -> None:
        """It is there."""

    def reset(self) -> None:
        """The next one is there, too."""

    def get_str(self) -> str:
        """Return its text."""
        try:
            return next(self.texts)
        except StopIteration:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from None

    def get(self) -> Any:
        """Return what it says, as the bindings do."""
        text = self.get_str()
        return json.loads(text) if text else None


def client(answers: Mapping[str, str], streams: Mapping[str, list[str]]) -> _flux.FluxClient:
    """Return a client of a broker with these answers by topic."""

    class Handle:
        def __init__(self, _uri: str = "") -> None:
            """It answers at once."""

        def rpc(self, topic: str, _payload: Any = None, nodeid: int = 0, flags: int = 0) -> Future:
            """Ask."""
            if flags:
                return Future(iter(streams[topic]))
            return Future(iter([answers[topic]]))

        def pollevents(self) -> int:
            """Something is there."""
            return _flux.POLLIN

    made = object.__new__(_flux.FluxClient)
    made.uri, made.timeout, made.handle = "local:///run/flux/local", 5.0, Handle()
    modules = {
        "flux": SimpleNamespace(Flux=Handle),
        "flux.hostlist": SimpleNamespace(decode=_decode),
    }
    # What the bindings' own functions are is not what is tried here.
    _flux.bindings = modules.__getitem__
    return made


def _decode(text: str) -> list[str]:
    try:
        return expand(text)
    except SpecError as error:
        raise ValueError(str(error)) from None
