# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as a Kubernetes API server words them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class KubeError(Exception):
    """A request that fails: HTTP code, reason (NotFound, Conflict, ...), message and details."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> dict[str, Any]:
        """Return the Status object that is the answer."""
        found = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return {**found, "details": self.details} if self.details else found


def bad_request(message: str) -> KubeError:
    """A request that cannot be read."""
    return KubeError(400, "BadRequest", message)


def not_found(resource: str, name: str) -> KubeError:
    """An object that is not there."""
    details = {"name": name, "kind": resource}
    return KubeError(404, "NotFound", f'{resource} "{name}" not found', details)


def already_exists(resource: str, name: str) -> KubeError:
    """An object that is there already."""
    details = {"name": name, "kind": resource}
    return KubeError(409, "AlreadyExists", f'{resource} "{name}" already exists', details)


def conflict(
    resource: str, name: str, why: str, causes: Sequence[dict[str, str]] = ()
) -> KubeError:
    """A change of an object that has changed in the meantime, or that another manager holds."""
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    details: dict[str, Any] = {"name": name, "kind": resource}
    if causes:
        details["causes"] = list(causes)
    return KubeError(409, "Conflict", message, details)


def invalid(kind: str, name: str, problems: Sequence[tuple[str, str]]) -> KubeError:
    """An object with wrong fields: (path, what is wrong) of each."""
    text = ", ".join(f"{path}: {why}" for path, why in problems)
    causes = [
        {"reason": "FieldValueInvalid", "message": why, "field": path} for path, why in problems
    ]
    details = {"name": name, "kind": kind, "causes": causes}
    return KubeError(422, "Invalid", f'{kind} "{name}" is invalid: {text}', details)


def unsupported(found: str, wanted: Sequence[str]) -> KubeError:
    """A body of a type that is not read."""
    words = ", ".join(wanted)
    message = f"the body of the request was in an unknown format - accepted media types include: {words}; found {found}"
    return KubeError(415, "UnsupportedMediaType", message)
