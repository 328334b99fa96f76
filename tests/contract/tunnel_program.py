# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel as the program that ssh runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from echo_relay import EchoRelay

PROGRAM = (
    Path(__file__).resolve().parents[2]
    / ".cache/collections/ansible_collections/flux/burst/plugins/module_utils/_iap.py"
)


def command(options: Mapping[str, str]) -> list[str]:
    """Return the command line of a tunnel."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-P", str(PROGRAM), *words]


def options(relay: EchoRelay, **changes: str) -> dict[str, str]:
    """Return the options that lead to the machine that echoes, or elsewhere."""
    return {
        "project": "sandbox-site",
        "zone": "us-central1-a",
        "instance": "echo-0",
        "endpoint": relay.iap_endpoint,
        "ca-file": str(relay.ca_file),
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }


def environment(token: str | None = None, **changes: str) -> dict[str, str]:
    """Return an environment without credentials and proxies but those given."""
    apart = ("FLUX_BURST_", "GOOGLE_", "HTTP_", "HTTPS_", "NO_", "ALL_")
    kept = {name: it for name, it in os.environ.items() if not name.upper().startswith(apart)}
    return {**kept, **({"FLUX_BURST_ACCESS_TOKEN": token} if token else {}), **changes}


@contextmanager
def running(
    relay: EchoRelay, env: dict[str, str] | None = None, **changes: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a tunnel with pipes; it is killed if it has not ended by itself."""
    with subprocess.Popen(
        command(options(relay, **changes)),
        env=env or environment(relay.access_token),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def peak(process: subprocess.Popen[bytes]) -> float:
    """Return the most memory that a process has had, in MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
