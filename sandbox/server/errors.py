# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as Compute Engine words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


class ApiError(Exception):
    """A request that fails: HTTP code, Google's reason (notFound, invalid, ...) and message.

    retry_after is how many seconds the client is asked to wait, 0 where it is not asked.
    """

    def __init__(self, code: int, reason: str, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the answer."""
        error: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "errors": [{"message": self.message, "domain": "global", "reason": self.reason}],
        }
        if self.code in STATUS_WORDS:
            error["status"] = STATUS_WORDS[self.code]
        if self.retry_after:
            error["details"] = [{"@type": RETRY_INFO, "retryDelay": f"{self.retry_after}s"}]
        return {"error": error}


class OperationError(Exception):
    """An operation that fails after it was accepted: error code, message, HTTP status, further entries of its error."""

    def __init__(
        self,
        code: str,
        message: str,
        http_status: int = 400,
        more: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.http_status, self.more = code, message, http_status, more


def not_found(path: str) -> ApiError:
    """A resource that is not there; path begins with projects/."""
    return ApiError(404, "notFound", f"The resource '{path}' was not found")


def already_exists(path: str) -> ApiError:
    """A resource that is there already."""
    return ApiError(409, "alreadyExists", f"The resource '{path}' already exists")


def invalid(field: str, value: object, why: str) -> ApiError:
    """A field or a parameter with a value that Google refuses."""
    return ApiError(400, "invalid", f"Invalid value for field '{field}': '{value}'. {why}")


def required(field: str) -> ApiError:
    """A field that has to be there."""
    return ApiError(400, "required", f"Required field '{field}' not specified")


def not_ready(path: str) -> ApiError:
    """A resource that is still being made or deleted."""
    return ApiError(400, "resourceNotReady", f"The resource '{path}' is not ready")


def in_use(kind: str, path: str, user: str) -> ApiError:
    """A resource that cannot be deleted because another one uses it."""
    return ApiError(
        400,
        "resourceInUseByAnotherResource",
        f"The {kind} resource '{path}' is already being used by '{user}'",
    )


def forbidden(permission: str, path: str) -> ApiError:
    """A permission that the caller has not."""
    return ApiError(403, "forbidden", f"Required '{permission}' permission for '{path}'")


def stale(what: str) -> ApiError:
    """A fingerprint that is not the current one."""
    return ApiError(
        412, "conditionNotMet", f"{what} fingerprint either invalid or resource labels have changed"
    )
