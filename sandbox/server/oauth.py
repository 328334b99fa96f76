# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OAuth token endpoint and the credentials that fit it."""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sandbox.server import catalog
from sandbox.server.operations import USER

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
GOOGLES_OWN = "https://oauth2.googleapis.com/token"
"""The audience that google-auth writes, whatever the token_uri is."""
LIFETIME = 3600
"""Seconds that a token is good for."""


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads, in place of what is there."""
    handle = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


class TokenError(Exception):
    """A token request that is refused: an OAuth error code and what is wrong."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code, self.description = code, description


class Tokens:
    """Issues access tokens and knows which ones are good."""

    def __init__(self, token_uri: str) -> None:
        self.token_uri = token_uri
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._key_id = secrets.token_hex(20)
        self._good: dict[str, float] = {}
        self._fixed = self._new()

    def write(self, state: Path) -> None:
        """Write credentials.json (a service account) and access_token (for gcloud)."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        account = {
            "type": "service_account",
            "project_id": catalog.PROJECT,
            "private_key_id": self._key_id,
            "private_key": pem,
            "client_email": USER,
            "client_id": catalog.fixed_id(USER),
            "token_uri": self.token_uri,
            "universe_domain": "googleapis.com",
        }
        write_secret(state / "credentials.json", json.dumps(account, indent=2) + "\n")
        write_secret(state / "access_token", self._fixed)

    @staticmethod
    def _new() -> str:
        return f"ya29.sandbox-{secrets.token_urlsafe(32)}"

    def issue(self, form: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a token request. Raises TokenError."""
        if form.get("grant_type") != GRANT:
            raise TokenError(
                "unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}"
            )
        self._check(str(form.get("assertion", "")))
        token = self._new()
        self._good[token] = time.monotonic() + LIFETIME
        return {"access_token": token, "expires_in": LIFETIME - 1, "token_type": "Bearer"}

    def _check(self, assertion: str) -> None:
        try:
            signed, _unused, signature = assertion.rpartition(".")
            claims = json.loads(_decode(signed.split(".")[1]))
            public = self._key.public_key()
            public.verify(_decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError, IndexError):
            raise TokenError("invalid_grant", "Invalid JWT Signature.") from None
        if claims.get("iss") != USER or claims.get("aud") not in (self.token_uri, GOOGLES_OWN):
            raise TokenError("invalid_grant", "Invalid JWT: iss or aud is not ours.")
        if float(claims.get("exp", 0)) < time.time():
            raise TokenError("invalid_grant", "Invalid JWT: it has expired.")

    def good(self, authorization: str | None) -> bool:
        """Return whether an Authorization header has a token that was issued here and lives."""
        kind, _unused, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            return False
        if hmac.compare_digest(token.strip().encode(), self._fixed.encode()):
            return True
        return self._good.get(token.strip(), 0.0) > time.monotonic()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
