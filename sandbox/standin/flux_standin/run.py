# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one task of a job on this host, after the checks that a real broker's shell and IMP make."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, NamedTuple

INVALID = "flux-imp: Fatal: exec: signature validation failed: sign-munge-verify: munge_decode: "


async def munge(text: str) -> str:
    """Return a credential for a text. Raises OSError with munge's own words."""
    code, output, errors = await _call(["munge", "-s", text], b"")
    if code:
        raise OSError(code, errors.strip())
    return output.strip()


async def task(job: dict[str, Any]) -> tuple[int, str]:
    """Run a job's command here; return its exit code and what it printed.

    The owner's jobs are not signed, but the header's user id must be ours. Others' jobs carry a credential of munge,
    which must decode here; the stand-in cannot become another user, and runs them as the owner.
    """
    if job["credential"]:
        code, _unused, errors = await _call(["unmunge"], job["credential"].encode())
        if code:
            said = errors.strip().rpartition(": ")[2] or "Socket communication error"
            return 1, f"{INVALID}{said}\n"
    elif job["user_id"] != os.getuid():
        return 1, f"sign-none-verify: header userid {job['user_id']} != real {os.getuid()}\n"
    cwd, note = job["cwd"], ""
    if not os.path.isdir(cwd):
        note = f"Could not change dir to {cwd}: No such file or directory. Going to /tmp instead\n"
        cwd = "/tmp"
    try:
        code, output, errors = await _call(job["command"], b"", cwd)
    except OSError as error:
        return 127, f"{note}flux-shell: {job['command'][0]}: {error.strerror}\n"
    return code, note + output + errors


class Said(NamedTuple):
    """What a command of flux exec came to; `error` is the errno where it did not start."""

    error: int
    code: int = 0
    output: str = ""
    errors: str = ""


async def command(words: list[str], given: str) -> Said:
    """Run a command here as flux exec does; a signal's exit code is negative."""
    try:
        return Said(0, *await _call(words, given.encode()))
    except OSError as error:
        return Said(error.errno or errno.EINVAL)


async def _call(command: list[str], given: bytes, cwd: str | None = None) -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        if command[0] in ("munge", "unmunge"):
            return 1, "", f"{command[0]}: Error: {error.strerror}"
        raise
    output, errors = await process.communicate(given)
    return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")
