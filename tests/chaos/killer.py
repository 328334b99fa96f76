# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of a controller at a chosen call to Compute Engine, and what is told of kills."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from compute_server import ComputeServer


class Killer:
    """Kills a module's process when the server is at the chosen call, and remembers that it did.

    moment is "request", before the call does anything, or "answer", when all is done and only the answer has not come.
    Other faults may hold besides.
    """

    def __init__(
        self,
        server: ComputeServer,
        index: int,
        moment: str,
        others: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.server, self.killed = server, False
        rule = {"method": "*", "at": moment, "after": index, "times": 1}
        server.faults({**rule, "seconds": 5.0, "status": 0}, *others)

    def __call__(self, process: BaseProcess) -> None:
        while process.is_alive() and not self.killed:
            with urllib.request.urlopen(f"{self.server.compute_endpoint}/sandbox/faults") as answer:
                self.killed = bool(json.load(answer)["faults"][0]["fired"])
            time.sleep(0.005)
        if self.killed:
            process.kill()


def survived(what: str, rows: list[tuple[str, int]], where: str = "a call") -> None:
    """Say what was survived; pytest shows it with -rP, and make chaos at the end."""
    print(f"\n{what}, killed at {where}, then run again:")
    for moment, count in rows:
        print(f"  {moment:40} {count:4} kills, {count:4} converged")
