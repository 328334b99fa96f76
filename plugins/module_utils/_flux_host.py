# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says of its Flux and its munge, whether or not a broker runs there."""

from __future__ import annotations

import re
import subprocess


def said(*words: str) -> str:
    """Return what a flux command prints, "" where it cannot."""
    try:
        done = subprocess.run(["flux", *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def core_version(text: str) -> str:
    """Return flux-core's version from the output of `flux version`."""
    found = re.search(r"^commands:\s*([0-9.]+)", text, re.MULTILINE)
    return found[1] if found else ""


def security_version(text: str) -> str:
    """Return flux-security's version from the output of `flux version`."""
    found = re.search(r"^libflux-security:\s*([0-9.]+)", text, re.MULTILINE)
    return found[1] if found else ""


def munge() -> str:
    """Return what is wrong with munge on this machine."""
    try:
        made = subprocess.run(["munge", "-n"], capture_output=True, text=True, check=False)
        read = subprocess.run(
            ["unmunge"], input=made.stdout, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"no munge ({error.strerror})"
    return made.stderr.strip() or (read.stderr.strip() if read.returncode else "")
