# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Curve certificates (flux-keygen(1)) by the part of them that is no secret."""

from __future__ import annotations

import hashlib
import re

from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError


def fingerprint(path: str) -> str:
    """Return the SHA-256 of a certificate's public key. Raises FluxError for a file that cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(r'^\s*public-key\s*=\s*"(.*)"', file.read(), re.MULTILINE)
    except OSError as error:
        raise FluxError(
            f"wanted a curve certificate at {path}, found '{error.strerror}': run as root or as the "
            "instance's owner, on its host."
        ) from None
    if not found:
        raise FluxError(
            f"wanted a curve certificate at {path}, found no public-key in it: make one with flux keygen."
        )
    return hashlib.sha256(found[1].encode()).hexdigest()


def known_fingerprint(path: str) -> str:
    """Return the fingerprint, "" where there is no certificate that could be read."""
    try:
        return fingerprint(path)
    except FluxError:
        return ""
