# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A refusal of Compute Engine is one line that says what to do, and is asked again only where that may help."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import (
    Refusal,
    explain,
    from_answer,
    missing_permissions,
    role,
)

ZONE = {"zone": "us-central1-a"}
ME = "service account me@p.iam.gserviceaccount.com (key.json)"
NO_ACT_AS = (
    "The user does not have access to service account 'me@p'. User: 'you@p.iam.gserviceaccount.com'. Ask a project "
    "owner to grant you the iam.serviceAccountUser role on the service account"
)
CREATE = "Required 'compute.instances.create' permission for 'projects/p/zones/z/instances/i'"


def refusal(status: int, *codes: str, message: str = "no\nmore.") -> Refusal:
    """Return a refusal with one message."""
    return Refusal(status, tuple((code, message) for code in codes or ("",)))


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            refusal(503, "ZONE_RESOURCE_POOL_EXHAUSTED"),
            "HTTP 503 ZONE_RESOURCE_POOL_EXHAUSTED (no more): us-central1-a has none left; "
            "add zones to burst_zones or types to burst_machine_types.",
        ),
        (
            refusal(403, "quotaExceeded"),
            "HTTP 403 quotaExceeded (no more): raise the quota, or lower burst_max_hosts.",
        ),
        (
            refusal(400, "invalid"),
            "HTTP 400 invalid (no more): put that right and run again; what exists already is kept.",
        ),
        (
            refusal(401, "authError"),
            f"HTTP 401 authError (no more): Google does not take {ME}; get new credentials.",
        ),
        (
            refusal(403, "forbidden", message=CREATE),
            f"HTTP 403 forbidden ({CREATE}): give {ME} compute.instances.create "
            "(in roles/compute.instanceAdmin.v1).",
        ),
        (
            refusal(403, "accessNotConfigured"),
            "HTTP 403 accessNotConfigured (no more): enable the API there "
            "(gcloud services enable compute.googleapis.com).",
        ),
        (
            refusal(403),
            f"HTTP 403 (no more): give {ME} roles/compute.admin in the project, or roles with less that suffice.",
        ),
        (
            refusal(503, "backendError"),
            "HTTP 503 backendError (no more): asked again for up to 60 s; run again later.",
        ),
        (
            refusal(503, message=""),
            "HTTP 503 (no message): asked again for up to 60 s; run again later.",
        ),
        (
            Refusal(503, (("A", "one."), ("STOCKOUT", "two"), ("", "three")), operation=True),
            "A (one); STOCKOUT (two); HTTP 503 (three): us-central1-a has none left; "
            "add zones to burst_zones or types to burst_machine_types.",
        ),
        (
            Refusal(403, (("PERMISSIONS_ERROR", CREATE),), operation=True),
            f"PERMISSIONS_ERROR ({CREATE}): give {ME} compute.instances.create "
            "(in roles/compute.instanceAdmin.v1).",
        ),
        (
            Refusal(400, (("SERVICE_ACCOUNT_ACCESS_DENIED", NO_ACT_AS),), operation=True),
            f"SERVICE_ACCOUNT_ACCESS_DENIED ({NO_ACT_AS}): give {ME} iam.serviceAccounts.actAs "
            "(in roles/iam.serviceAccountUser).",
        ),
    ],
)
def test_a_refusal_says_what_was_wanted_what_was_found_and_what_to_do(
    found: Refusal, text: str
) -> None:
    assert explain("create 3 instances", found, ZONE, ME) == (
        f"wanted to create 3 instances, found {text}"
    )


@pytest.mark.parametrize(
    ("found", "passes"),
    [
        (refusal(429, "rateLimitExceeded"), True),
        (refusal(500), True),
        (refusal(502), True),
        (refusal(503, "backendError"), True),
        (refusal(504), True),
        (refusal(403, "rateLimitExceeded"), True),
        (refusal(403, "userRateLimitExceeded"), True),
        (refusal(403, "forbidden"), False),
        (refusal(403, "quotaExceeded"), False),
        (refusal(429, "QUOTA_EXCEEDED"), False),
        (refusal(503, "ZONE_RESOURCE_POOL_EXHAUSTED"), False),
        (refusal(503, "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"), False),
        (refusal(401, "authError"), False),
        (refusal(404, "notFound"), False),
        (refusal(409, "alreadyExists"), False),
        (refusal(412, "conditionNotMet"), False),
        (refusal(501), False),
    ],
)
def test_what_may_pass_is_asked_again(found: Refusal, passes: bool) -> None:
    assert found.passes is passes


@pytest.mark.parametrize(
    ("body", "after", "found"),
    [
        (
            {"error": {"message": "m", "errors": [{"reason": "notFound", "message": "m"}]}},
            None,
            Refusal(404, (("notFound", "m"),)),
        ),
        (
            {
                "error": {
                    "message": "m",
                    "details": [{"reason": "SERVICE_DISABLED"}, {"@type": "x"}],
                }
            },
            "7",
            Refusal(404, (("SERVICE_DISABLED", "m"),), 7.0),
        ),
        ({"error": "invalid_grant"}, None, Refusal(404, (("", "invalid_grant"),))),
        ({}, "Wed, 25 Nov 2026 20:00:00 GMT", Refusal(404, (("", "Not Found"),))),
        (None, "", Refusal(404, (("", "Not Found"),))),
        ({"error": {}}, None, Refusal(404, (("", "Not Found"),))),
    ],
)
def test_an_answer_is_read_whoever_wrote_it(body: Any, after: str | None, found: Refusal) -> None:
    assert from_answer(404, body, "Not Found", after) == found


@pytest.mark.parametrize(
    ("message", "permissions"),
    [
        (CREATE, ("compute.instances.create",)),
        ('Required "compute.networks.get" permission for "projects/p"', ("compute.networks.get",)),
        (
            f"{CREATE}, Required 'compute.disks.create' permission; {CREATE}",
            ("compute.instances.create", "compute.disks.create"),
        ),
        (
            "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
            ("iam.serviceAccounts.getAccessToken",),
        ),
        (NO_ACT_AS, ("iam.serviceAccounts.actAs",)),
        ("gcloud services enable compute.googleapis.com of www.googleapis.com", ()),
        ("no", ()),
    ],
)
def test_missing_permissions_are_read_from_googles_wording(
    message: str, permissions: tuple[str, ...]
) -> None:
    assert missing_permissions(message) == permissions


@pytest.mark.parametrize(
    ("permission", "name"),
    [
        ("compute.instances.create", "roles/compute.instanceAdmin.v1"),
        ("compute.instances.setMetadata", "roles/compute.instanceAdmin.v1"),
        ("compute.disks.create", "roles/compute.instanceAdmin.v1"),
        ("compute.instances.list", "roles/compute.viewer"),
        ("compute.zoneOperations.get", "roles/compute.viewer"),
        ("compute.networks.create", "roles/compute.networkAdmin"),
        ("compute.routers.update", "roles/compute.networkAdmin"),
        ("compute.subnetworks.use", "roles/compute.networkUser"),
        ("compute.networks.updatePolicy", "roles/compute.securityAdmin"),
        ("compute.firewalls.create", "roles/compute.securityAdmin"),
        ("compute.images.useReadOnly", "roles/compute.imageUser"),
        ("compute.images.create", "roles/compute.storageAdmin"),
        ("compute.reservations.create", "roles/compute.admin"),
        ("iap.tunnelInstances.accessViaIAP", "roles/iap.tunnelResourceAccessor"),
        ("iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser"),
        ("iam.serviceAccounts.getAccessToken", "roles/iam.serviceAccountTokenCreator"),
        ("serviceusage.services.use", "roles/serviceusage.serviceUsageConsumer"),
        ("resourcemanager.projects.get", "roles/browser"),
        ("iam.roles.create", "a role with it"),
    ],
)
def test_a_permission_is_in_a_role(permission: str, name: str) -> None:
    assert role(permission) == name
