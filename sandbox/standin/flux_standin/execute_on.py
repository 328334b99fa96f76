# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""flux exec."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys

from . import lists
from .local import Client
from .run import Said

# Exit codes of a command that does not start; as in a shell, and EX_NOHOST.
CODES = {errno.EPERM: 126, errno.EACCES: 126, errno.ENOENT: 127, errno.EHOSTUNREACH: 68}


def main(options: argparse.Namespace) -> int:
    """Run a command on ranks, with standard input for each; its lines carry the rank with -l."""
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        print("Usage: flux-exec [OPTIONS]...", file=sys.stderr)
        return 1
    try:
        ranks = options.rank if options.rank == "all" else lists.idset(lists.ids(options.rank))
    except ValueError:
        problem = f"failed to decode idset '{options.rank}': Invalid argument"
        print(f"flux-exec: {problem}", file=sys.stderr)
        return 1
    given = "" if sys.stdin.isatty() else sys.stdin.read()
    payload = {"ranks": ranks, "command": words, "given": given}
    answers = Client().ask("standin.exec", payload) or {}
    worst = 0
    ends: dict[str, list[int]] = {}
    for rank, answer in answers.items():
        said = Said(*answer)
        label = f"{rank}: " if options.label_io else ""
        sys.stdout.write(_labeled(said.output, label))
        sys.stderr.write(_labeled(said.errors, label))
        code = 128 - said.code if said.code < 0 else said.code
        if said.error:
            text = os.strerror(said.error)
            if said.error != errno.EHOSTUNREACH:
                text = f"error launching process: {text}"
            print(f"flux-exec: Error: rank {rank}: {words[0]}: {text}", file=sys.stderr)
            code = CODES.get(said.error, 1)
        elif code:
            end = signal.strsignal(-said.code) if said.code < 0 else f"Exit {code}"
            ends.setdefault(end or "", []).append(int(rank))
        worst = max(worst, code)
    for end, those in ends.items():
        text = lists.idset(those)
        print(f"[{text}]: {end}" if len(those) > 1 else f"{text}: {end}", file=sys.stderr)
    return worst


def _labeled(text: str, label: str) -> str:
    return "".join(f"{label}{line}" for line in text.splitlines(keepends=True))
