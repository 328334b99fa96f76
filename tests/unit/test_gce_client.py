# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure of Compute Engine is one line that says what to do."""

from __future__ import annotations

import pytest
from ansible_collections.flux.burst.plugins.module_utils._gce_client import explain


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", "us-central1-a has none left; add zones to burst_zones"),
        ("QUOTA_EXCEEDED", "raise the quota"),
        ("HTTP 403", "give the credentials roles/compute.admin"),
        ("HTTP 400", "put that right and run again"),
    ],
)
def test_an_error_is_what_was_wanted_what_was_found_and_what_to_do(code: str, advice: str) -> None:
    text = explain("create 3 instances", code, "no\nmore.", {"zone": "us-central1-a"})
    assert text.startswith(f"wanted to create 3 instances, found {code} (no more): {advice}")
    assert "\n" not in text
