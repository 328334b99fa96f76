# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a refusal of Compute Engine means: whether it passes, who lacks which permission, what to do.

Nothing here asks anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BUSY = (429, 500, 502, 503, 504)
SLOW_DOWN = ("rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED")
"""What Google also says with 403 to who asks too often."""
UNAUTHORIZED, FORBIDDEN = 401, 403
DISABLED = ("accessNotConfigured", "SERVICE_DISABLED")
RETRY_SECONDS = 60.0
"""How long to go on asking when Compute Engine says "later"."""
PERMISSION = re.compile(
    r"\b(?:compute|container|iam|iap|resourcemanager|serviceusage)\.(?!googleapis|gserviceaccount)[a-zA-Z]+\.[a-zA-Z]+\b"
)
ACT_AS = re.compile(r"does not have access to service account|iam\.serviceAccountUser", re.I)
"""How Compute Engine words a missing iam.serviceAccounts.actAs."""
# The first pattern that fits; from cloud.google.com/iam/docs/roles-permissions, the narrowest role for a controller.
ROLES = (
    (r"iap\.tunnelInstances\.", "roles/iap.tunnelResourceAccessor"),
    (r"iam\.serviceAccounts\.actAs", "roles/iam.serviceAccountUser"),
    (r"iam\.serviceAccounts\.getAccessToken", "roles/iam.serviceAccountTokenCreator"),
    (r"serviceusage\.", "roles/serviceusage.serviceUsageConsumer"),
    (r"resourcemanager\.projects\.get", "roles/browser"),
    (r"container\.\w+\.(get|list)$", "roles/container.clusterViewer"),
    (r"container\.", "roles/container.admin"),
    (r"compute\.images\.(useReadOnly|get|list|getFromFamily)", "roles/compute.imageUser"),
    (r"compute\.(images|snapshots)\.", "roles/compute.storageAdmin"),
    (r"compute\.(networks|subnetworks|addresses)\.use", "roles/compute.networkUser"),
    (r"compute\.\w+\.(get|list|aggregatedList)$", "roles/compute.viewer"),
    (
        r"compute\.(firewalls|firewallPolicies|networks\.updatePolicy)",
        "roles/compute.securityAdmin",
    ),
    (r"compute\.(networks|subnetworks|routers|routes|addresses)\.", "roles/compute.networkAdmin"),
    (r"compute\.(instances|disks|resourcePolicies|projects)\.", "roles/compute.instanceAdmin.v1"),
    (r"compute\.", "roles/compute.admin"),
)


@dataclass(frozen=True)
class Refusal:
    """An HTTP status with what Google tells of it: pairs of its code, which may be "", and its message.

    retry_after is how many seconds it asks to wait, 0 where it does not.
    """

    status: int
    told: tuple[tuple[str, str], ...]
    retry_after: float = 0.0
    operation: bool = False
    """Whether it is the error of an operation, which was accepted, and not of the request."""

    @property
    def codes(self) -> tuple[str, ...]:
        """Google's codes, each once, in its order."""
        return tuple(dict.fromkeys(code for code, _message in self.told if code))

    @property
    def message(self) -> str:
        """All that Google says, without the codes."""
        return "; ".join(dict.fromkeys(one_line(message) for _code, message in self.told))

    @property
    def passes(self) -> bool:
        """Whether the same request may be answered otherwise in a moment. A stockout or a quota is not."""
        if any(is_stockout(code) or is_quota(code) for code in self.codes):
            return False
        slow_down = self.status == FORBIDDEN and any(code in SLOW_DOWN for code in self.codes)
        return self.status in BUSY or slow_down

    @property
    def found(self) -> str:
        """The refusal in words: every error of an operation, or the status of a request and what is said of it."""
        if self.operation:
            return "; ".join(
                f"{code or f'HTTP {self.status}'} ({one_line(message)})"
                for code, message in self.told
            )
        return f"{' '.join([f'HTTP {self.status}', *self.codes[:1]])} ({self.message})"


def one_line(message: str) -> str:
    """Return a message without line breaks and full stop."""
    return " ".join(message.split()).rstrip(".") or "no message"


def is_stockout(code: str) -> bool:
    """Return whether a code says that a zone has no such machine left."""
    return "RESOURCE_POOL_EXHAUSTED" in code or "STOCKOUT" in code


def is_quota(code: str) -> bool:
    """Return whether a code says that a quota of resources is used up."""
    return "QUOTA" in code.upper() or code == "limitExceeded"


def from_answer(status: int, body: Any, phrase: str, retry_after: str | None) -> Refusal:
    """Return the refusal that an HTTP answer is.

    body is its JSON, Google's or not; phrase is used where that says nothing; retry_after is the header.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return Refusal(status, (("", str(error or phrase)),), seconds(retry_after))
    message = str(error.get("message") or phrase)
    lists = [error.get(name) for name in ("details", "errors")]
    entries = [each for rows in lists if isinstance(rows, list) for each in rows]
    codes = [
        str(each["reason"]) for each in entries if isinstance(each, Mapping) and each.get("reason")
    ]
    return Refusal(status, tuple((code, message) for code in codes or [""]), seconds(retry_after))


def seconds(retry_after: str | None) -> float:
    """Return a Retry-After header in seconds; a date, which Google does not send, counts as none."""
    return float(retry_after) if retry_after and retry_after.isdecimal() else 0.0


def missing_permissions(message: str) -> tuple[str, ...]:
    """Return the permissions that a message says are missing, each once."""
    found = PERMISSION.findall(message)
    if not found and ACT_AS.search(message):
        found = ["iam.serviceAccounts.actAs"]
    return tuple(dict.fromkeys(found))


def role(permission: str) -> str:
    """Return a predefined role that carries a permission."""
    return next(
        (name for pattern, name in ROLES if re.match(pattern, permission)), "a role with it"
    )


def grant(permissions: Iterable[str], who: str) -> str:
    """Return the advice that gives somebody permissions."""
    wanted = [f"{permission} (in {role(permission)})" for permission in permissions]
    return f"give {who} {' and '.join(wanted)}"


def explain(
    what: str,
    refusal: Refusal,
    place: Mapping[str, str],
    who: str,
    otherwise: str = "put that right and run again; what exists already is kept",
) -> str:
    """Return a refusal as one line: what was wanted, what was found, what to do.

    place holds the zone or region of the request; who is whose credentials it was made with; otherwise is the advice
    where the refusal itself gives none.
    """
    advice = _advice(refusal, place, who) or otherwise
    return f"wanted to {what}, found {refusal.found}: {advice}."


def _advice(refusal: Refusal, place: Mapping[str, str], who: str) -> str:
    if any(map(is_stockout, refusal.codes)):
        where = place.get("zone", "the zone")
        return f"{where} has none left; add zones to burst_zones or types to burst_machine_types"
    if any(map(is_quota, refusal.codes)):
        return "raise the quota, or lower burst_max_hosts"
    if refusal.status == UNAUTHORIZED:
        return f"Google does not take {who}; get new credentials"
    if refusal.passes:
        return f"asked again for up to {RETRY_SECONDS:.0f} s; run again later"
    # That one an operation finds missing, and with HTTP status 400.
    if refusal.status != FORBIDDEN and not ACT_AS.search(refusal.message):
        return ""
    permissions = missing_permissions(refusal.message)
    if permissions:
        return grant(permissions, who)
    if any(code in DISABLED for code in refusal.codes):
        return "enable the API there (gcloud services enable compute.googleapis.com)"
    return f"give {who} roles/compute.admin in the project, or roles with less that suffice"
