# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lead that the role lead_gke made: its pod, and the rule that lets the burst in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testinfra.host import Host

LEAD = "flux-molecule-0"


def test_its_pod_runs_under_the_name_that_the_minicluster_gives_it(
    machine: Callable[[str], Host],
) -> None:
    assert machine(LEAD).check_output("hostname") == LEAD


def test_the_burst_and_nobody_else_reaches_its_port(
    compute: Callable[[str], dict[str, Any]],
) -> None:
    (rule,) = [
        it for it in compute("global/firewalls")["items"] if "30093" in str(it.get("allowed"))
    ]
    assert rule["sourceRanges"] == ["203.0.113.20/32"]
    assert rule["targetTags"] == ["molecule-gke"]
