# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that is killed at one of its calls to Flux: before it is sent, or when it is answered. A program.

Arguments: "request" or "answer", which call (from 0 on), the module.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from itertools import count
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _flux

ANSWERED = 30.0


def main(moment: str, index: int, module: str) -> None:
    """Be the module."""
    flux = _flux.bindings("flux")
    connect, number = flux.Flux, count()

    def connected(*arguments: Any) -> Any:
        handle = connect(*arguments)
        rpc = handle.rpc

        def call(*arguments: Any, **options: Any) -> Any:
            here = next(number) == index
            if here and moment == "request":
                os.kill(os.getpid(), signal.SIGKILL)
            future = rpc(*arguments, **options)
            if here:
                future.wait_for(ANSWERED)
                os.kill(os.getpid(), signal.SIGKILL)
            return future

        handle.rpc = call
        return handle

    flux.Flux = connected
    sys.argv = [module]
    runpy.run_module(module, None, "__main__")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
