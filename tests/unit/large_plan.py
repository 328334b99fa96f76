# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A queue and an instance of thousands, for the test of the plan and for its bench."""

from __future__ import annotations

from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._plan import Request

Row = dict[str, Any]
LARGE = {"name": "large", "cores": 4, "memory_mb": 16000, "gpus": 1, "price_per_hour": 2.0}


def large_plan(number: int = 5000) -> tuple[list[Row], list[Row], Request]:
    """Return so many jobs, so many ranks of which all but 1000 may be booted, and what may be booted."""
    allowed = [f"b-{place}" for place in range(1, number - 999)]
    ranks: list[Row] = [
        {
            **{"rank": place, "host": f"w-{place}", "state": "allocated" if place % 2 else "free"},
            **{"cores": 2, "gpus": 0, "free_cores": place % 2 or 2, "drain_reason": None},
        }
        for place in range(number - len(allowed))
    ]
    ranks += [
        {
            **{"rank": number + place, "host": host, "state": "down", "cores": 2 + place % 3},
            **{"gpus": 0, "drain_reason": None, "properties": [f"p{place % 4}"]},
        }
        for place, host in enumerate(allowed)
    ]
    asked = {"urgency": 16, "cores_per_slot": 1, "gpus_per_slot": 0}
    jobs: list[Row] = [
        {
            **{"id": f"f{place:04}", "nodes": 1, "slots": 1, "duration": 60.0, **asked},
            "constraints": {"properties": [f"p{place % 4}"]},
        }
        if place % 2
        else {"id": f"f{place:04}", "nodes": 0, "slots": 2, "duration": float(place + 1), **asked}
        for place in range(number)
    ]
    return (
        jobs,
        ranks,
        Request(allowed, machine_types=[LARGE], max_hosts=2500, max_run_seconds=9000),
    )
