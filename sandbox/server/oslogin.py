# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of the OS Login API that lets an account's SSH keys in, until they expire, on machines that look there.

A profile belongs to the account of the sandbox's credentials. Of Google's limits, that of key operations is here.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import deque

from sandbox.server.errors import ApiError
from sandbox.server.operations import USER
from sandbox.server.state import Resource

OPERATIONS_PER_MINUTE = 60
FIRST_UID = 20_000_000


class Logins:
    """The profiles of the accounts that have imported keys."""

    def __init__(self, per_minute: int = OPERATIONS_PER_MINUTE) -> None:
        self.per_minute = per_minute
        self._keys: dict[str, dict[str, Resource]] = {}
        self._operations: deque[float] = deque()

    def profile(self, user: str) -> Resource:
        """Return an account's loginProfile. Raises ApiError for one that is another's."""
        _check(user)
        number = zlib.crc32(user.encode())
        uid = str(FIRST_UID + number % 10_000_000)
        account = {
            "name": f"users/{user}/projects/sandbox-project",
            "accountId": "sandbox-project",
            "username": f"sa_{number}",
            "uid": uid,
            "gid": uid,
            "homeDirectory": f"/home/sa_{number}",
            "shell": "/bin/bash",
            "operatingSystemType": "LINUX",
            "primary": True,
        }
        keys = self._keys.get(user, {})
        return {
            "name": user,
            "posixAccounts": [account],
            **({"sshPublicKeys": keys} if keys else {}),
        }

    def add(self, user: str, body: object) -> Resource:
        """Import a key, or set another time for one that is there, and return the profile. Raises ApiError."""
        _check(user)
        self._count()
        words = str(body.get("key", "")).split() if isinstance(body, dict) else []
        expires = str(body.get("expirationTimeUsec", "")) if isinstance(body, dict) else ""
        if len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-")):
            raise ApiError(400, "badRequest", "Request contains an invalid argument.")
        if expires and int(expires) < time.time() * 1e6:
            raise ApiError(400, "badRequest", "Expiration time must be in the future.")
        found = hashlib.sha256(" ".join(words[:2]).encode()).hexdigest()
        key = {
            "key": " ".join(words),
            "fingerprint": found,
            "name": f"users/{user}/sshPublicKeys/{found}",
            **({"expirationTimeUsec": expires} if expires else {}),
        }
        self._keys.setdefault(user, {})[found] = key
        return {"loginProfile": self.profile(user)}

    def drop(self, user: str, fingerprint: str) -> Resource:
        """Delete a key. Raises ApiError."""
        _check(user)
        self._count()
        if self._keys.get(user, {}).pop(fingerprint, None) is None:
            raise ApiError(404, "notFound", "Requested entity was not found.")
        return {}

    def let_in(self) -> tuple[tuple[str, str], ...]:
        """Return (user, public key) of every key that has not expired."""
        now = time.time() * 1e6
        return tuple(
            (self.profile(user)["posixAccounts"][0]["username"], key["key"])
            for user, keys in self._keys.items()
            for key in keys.values()
            if int(key.get("expirationTimeUsec", now + 1)) > now
        )

    def _count(self) -> None:
        now = time.monotonic()
        while self._operations and self._operations[0] < now - 60:
            self._operations.popleft()
        if len(self._operations) >= self.per_minute:
            wait = int(self._operations[0] + 60 - now) + 1
            raise ApiError(
                429, "RATE_LIMIT_EXCEEDED", "Quota exceeded for quota metric 'Write'.", wait
            )
        self._operations.append(now)


def _check(user: str) -> None:
    if user != USER:
        raise ApiError(403, "forbidden", "The caller does not have permission")
