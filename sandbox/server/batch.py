# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Google's batch requests: several calls in one multipart/mixed POST, as gcloud sends them."""

from __future__ import annotations

import email
import email.policy
import http
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox.server.errors import ApiError

Perform = Callable[[str, str, bytes], Awaitable[tuple[int, Any]]]
"""Performs one call: verb, path with query, body -> status, JSON answer or None."""


def split(content_type: str, body: bytes) -> list[tuple[str, str, str, bytes]]:
    """Return content id, verb, path with query, and body of each call. Raises ApiError."""
    text = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    message = email.message_from_bytes(text, policy=email.policy.HTTP)
    if not message.is_multipart():
        raise ApiError(400, "badRequest", "Failed to parse batch request: wanted multipart/mixed")
    calls = []
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        data = payload if isinstance(payload, bytes) else b""
        head, _unused, rest = data.replace(b"\r\n", b"\n").partition(b"\n\n")
        words = head.split(b"\n")[0].decode("latin-1").split()
        if len(words) < 2:
            raise ApiError(400, "badRequest", "Failed to parse batch request: wanted VERB PATH")
        calls.append((str(part.get("Content-ID", "")).strip(), words[0], words[1], rest))
    return calls


async def perform(content_type: str, body: bytes, one: Perform) -> tuple[str, bytes]:
    """Perform the calls in turn; return content type and body of the answer. Raises ApiError."""
    boundary = f"batch_{uuid.uuid4().hex}"
    parts = []
    for content_id, verb, path, data in split(content_type, body):
        status, answer = await one(verb, path, data)
        inner = "" if answer is None else json.dumps(answer)
        identity = content_id.replace("<", "<response-", 1)
        parts.append(
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {identity}\r\n\r\n"
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"Content-Type: application/json; charset=UTF-8\r\n\r\n{inner}\r\n"
        )
    return f"multipart/mixed; boundary={boundary}", (
        "".join(parts) + f"--{boundary}--\r\n"
    ).encode()
