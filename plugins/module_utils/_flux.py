# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to a Flux broker, by Flux's own Python bindings on the machine where the module runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError

# Kept in sync with doc_fragments/_flux.py.
ARGUMENTS: dict[str, Any] = {
    "uri": {"type": "str", "default": "local:///run/flux/local"},
}
IN_FLIGHT = 500
ENOENT = 2
EPERM = 1


def bindings(name: str) -> Any:
    """Import one of Flux's modules, from where the installed Flux keeps them.

    They often lie outside the interpreter's path; `flux env` knows where. Raises FluxError.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    try:
        found = subprocess.run(
            ["flux", "env", "printenv", "PYTHONPATH"], capture_output=True, text=True, check=False
        ).stdout.strip()
        sys.path.extend(path for path in found.split(os.pathsep) if path)
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise FluxError(
            f"wanted Flux's Python bindings for {sys.executable}, found none ({error}): "
            "install flux-core with its bindings for this interpreter, or set ansible_python_interpreter."
        ) from None


class FluxClient:
    """RPCs to one broker. A payload and a response are JSON objects (dict)."""

    def __init__(self, uri: str) -> None:
        """Connect; raises FluxError where no broker answers at the URI."""
        self.uri = uri
        where = f"wanted a Flux broker at {uri}"
        path = uri.removeprefix("local://")
        if path != uri and not os.path.exists(path):
            raise FluxError(
                f"{where}, found no socket there: start flux on this machine, or set the URI of the "
                "broker that runs."
            )
        flux = bindings("flux")
        try:
            self.handle = flux.Flux(uri)
        except OSError as error:
            raise _explain(where, error) from None

    def rpc(self, topic: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask one thing. Raises FluxError with Flux's own errno and text."""
        try:
            response: dict[str, Any] | None = self.handle.rpc(topic, payload).get()
        except OSError as error:
            raise _explain(f"wanted an answer to {topic} from {self.uri}", error) from None
        return response or {}

    def rpc_each(self, topic: str, payloads: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Ask one thing of many, IN_FLIGHT at a time; an answer of ENOENT is left out.

        Jobs end while one asks about them, and that is no error.
        """
        waiting = list(payloads)
        for start in range(0, len(waiting), IN_FLIGHT):
            futures = [self.handle.rpc(topic, p) for p in waiting[start : start + IN_FLIGHT]]
            for future in futures:
                try:
                    yield future.get()
                except OSError as error:
                    if error.errno != ENOENT:
                        raise _explain(
                            f"wanted an answer to {topic} from {self.uri}", error
                        ) from None

    def attribute(self, name: str) -> str:
        """Return a broker attribute, see flux-broker-attributes(7)."""
        return str(self.rpc("attr.get", {"name": name})["value"])


def hosts(hostlists: Iterable[str]) -> list[str]:
    """Return the names of some hostlists (RFC 29), in their order."""
    return list(bindings("flux.hostlist").decode(",".join(hostlists)))


def hostlist(names: Iterable[str]) -> str:
    """Return names as one hostlist, in their order."""
    return str(bindings("flux.hostlist").Hostlist(list(names)).encode())


def _explain(wanted: str, error: OSError) -> FluxError:
    text = error.strerror or str(error)
    advice = "see flux dmesg on that machine."
    if wanted.startswith("wanted a Flux broker"):
        advice = "see whether flux runs on this machine, and whether the URI is its broker's."
    if error.errno == EPERM:
        advice = (
            "run as the instance's owner, or set allow-root-owner = true in [access] of its "
            "configuration."
        )
    return FluxError(f"{wanted}, found '{text}': {advice}", errno=error.errno or 0)
