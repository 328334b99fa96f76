# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a machine has booted: it has when it has published its SSH host keys."""

from __future__ import annotations

import time

from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import missing_permissions
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession

# Seconds between two looks, at first and at the most.
SHORT, LONG = 0.3, 2.0
SERIAL_LINES = 3


def host_keys(
    session: GceSession, project: str, zone: str, instance: str, timeout: float
) -> dict[str, str]:
    """Return the SSH host keys that a machine publishes at boot, by type, within `timeout` seconds.

    Raises GceError, with the last words of its console.
    """
    deadline, pause = time.monotonic() + timeout, SHORT
    while not (keys := session.host_keys(project, zone, instance)):
        if time.monotonic() >= deadline:
            raise GceError(
                f"stage boot: wanted the SSH host keys of {instance} within {timeout:g} s, found none among its guest "
                f"attributes (console: {_console(session, project, zone, instance)}): see the serial console, whether "
                "the metadata has enable-guest-attributes=TRUE, or raise burst_boot_timeout.",
                stage="boot",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, LONG)
    return keys


def _console(session: GceSession, project: str, zone: str, instance: str) -> str:
    try:
        lines = session.serial_lines(project, zone, instance, SERIAL_LINES)
    except GceError as error:
        # It must not hide which machine did not boot.
        missing = [f"{permission} is missing" for permission in missing_permissions(str(error))]
        return ", ".join(["unreadable", f"HTTP {error.status}", *missing])
    return " | ".join(lines) or "empty"
