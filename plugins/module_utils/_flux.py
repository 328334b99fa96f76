# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to a Flux broker, by Flux's own Python bindings on the machine where the module runs."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _flux_answers
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError, printable

# Kept in sync with doc_fragments/_flux.py.
ARGUMENTS: dict[str, Any] = {
    "uri": {"type": "str", "default": "local:///run/flux/local"},
    "rpc_timeout": {"type": "float", "default": 30.0},
}
IN_FLIGHT = 500
# More than any instance has, and few enough to be counted out without harm.
MOST_HOSTS = 1_000_000
ANY_RANK = 0xFFFFFFFF
STREAMING = 2
POLLIN = 1
EPERM = 1
ENOENT = 2
ENODATA = 61
EAGAIN = 11
ETIMEDOUT = 110


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

    def __init__(self, uri: str, timeout: float = 30.0) -> None:
        """Connect; raises FluxError where no broker answers at the URI within `timeout` seconds."""
        self.uri, self.timeout = uri, timeout
        where = f"wanted a Flux broker at {uri}"
        path = uri.removeprefix("local://")
        flux = bindings("flux")
        try:
            if path != uri:
                _greeted(where, path, timeout)
            self.handle = flux.Flux(uri)
        except OSError as error:
            raise _explain(where, error) from None
        self._same_version()

    @classmethod
    def of(cls, params: dict[str, Any]) -> FluxClient:
        """Connect as a module's ARGUMENTS say."""
        return cls(params["uri"], params["rpc_timeout"])

    def _same_version(self) -> None:
        """Bindings that another Flux left behind read messages wrongly; MAJOR.MINOR must be the same."""
        raw = bindings("flux.core.inner").raw
        mine = raw.flux_core_version_string()
        mine = mine.decode() if isinstance(mine, bytes) else str(mine)
        theirs = self.attribute("version")
        if mine.split(".")[:2] != theirs.split(".")[:2]:
            raise FluxError(
                f"wanted Flux's Python bindings of the broker's version {theirs}, found {mine} for "
                f"{sys.executable}: remove those (pip uninstall flux-python), or install the broker's version."
            )

    def rpc(
        self, topic: str, payload: dict[str, Any] | None = None, rank: int = ANY_RANK
    ) -> dict[str, Any]:
        """Ask one thing. Raises FluxError with Flux's own errno and text."""
        try:
            future = self.handle.rpc(topic, payload, nodeid=rank)
            return self._answer(topic, payload, future)
        except OSError as error:
            raise self._unanswered(topic, error) from None

    def rpc_each(
        self, topic: str, payloads: Iterable[dict[str, Any]]
    ) -> Iterator[dict[str, Any] | None]:
        """Ask one thing of many, IN_FLIGHT at a time; None stands for ENOENT.

        Jobs end while one asks about them, and that is no error.
        """
        waiting = list(payloads)
        for start in range(0, len(waiting), IN_FLIGHT):
            asked = waiting[start : start + IN_FLIGHT]
            futures = [self.handle.rpc(topic, payload) for payload in asked]
            for payload, future in zip(asked, futures, strict=True):
                try:
                    yield self._answer(topic, payload, future)
                except OSError as error:
                    if error.errno != ENOENT:
                        raise self._unanswered(topic, error) from None
                    yield None

    def stream(self, topic: str, payload: dict[str, Any] | None = None) -> Stream:
        """Ask for a stream of responses."""
        return Stream(self, topic, payload)

    def attribute(self, name: str) -> str:
        """Return a broker attribute, see flux-broker-attributes(7)."""
        return printable(self.rpc("attr.get", {"name": name})["value"])

    def _answer(self, topic: str, payload: dict[str, Any] | None, future: Any) -> dict[str, Any]:
        """Return the answer that a future brings. Raises OSError, and FluxError for one that Flux does not give."""
        future.wait_for(self.timeout)
        try:
            answer = future.get()
        except (ValueError, RecursionError) as error:
            raise self._unread(topic, _flux_answers.no_json(error)) from None
        # Who has nothing to say answers without a payload.
        return self._checked(topic, payload, {} if answer is None else answer)

    def read(self, topic: str, text: str) -> dict[str, Any]:
        """Return one response of a stream. Raises FluxError for one that Flux does not give."""
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._unread(topic, _flux_answers.no_json(error)) from None
        return self._checked(topic, None, answer)

    def _checked(self, topic: str, asked: dict[str, Any] | None, answer: Any) -> dict[str, Any]:
        wrong = _flux_answers.wrong(topic, asked or {}, answer)
        if wrong:
            raise self._unread(topic, wrong)
        checked: dict[str, Any] = answer
        return checked

    def _unread(self, topic: str, found: str) -> FluxError:
        return FluxError(
            f"wanted an answer to {topic} from {self.uri} as Flux gives it, found that {found}: see that the broker is "
            "flux-core 0.88 or newer, and flux dmesg on that machine."
        )

    def _unanswered(self, topic: str, error: OSError) -> FluxError:
        return _explain(f"wanted an answer to {topic} from {self.uri}", error, self.timeout)


class Stream:
    """The responses to one streaming RPC, each as its JSON text."""

    def __init__(self, client: FluxClient, topic: str, payload: dict[str, Any] | None) -> None:
        self.client, self.topic = client, topic
        # A connection of its own: closing it is how Flux is told that nobody listens any more.
        self.handle = bindings("flux").Flux(client.uri)
        self.future = self.handle.rpc(topic, payload, flags=STREAMING)
        self._first = True

    def next(self, limit: float | None = None) -> str | None:
        """Return the next response; None at the stream's end, and where none came in `limit` seconds.

        Without a limit, none within the client's timeout is an error. Raises FluxError.
        """
        try:
            if not self._first:
                self.future.reset()
            self._first = False
            # Of thousands of responses most are there already, and asking that is cheaper than waiting.
            if not self.handle.pollevents() & POLLIN:
                self.future.wait_for(self.client.timeout if limit is None else max(limit, 0.001))
            text: str = self.future.get_str()
            return text
        except OSError as error:
            if error.errno == ENODATA:
                return None
            if error.errno == ETIMEDOUT and limit is not None:
                self._first = True
                return None
            raise self.client._unanswered(self.topic, error) from None


def hosts(hostlists: Iterable[str]) -> list[str]:
    """Return the names of some hostlists (RFC 29), in their order."""
    text = ",".join(hostlists)
    try:
        found = bindings("flux.hostlist").decode(text)
    except (OSError, ValueError) as error:
        raise FluxError(
            f"wanted hostlists from the lead, found {text[:80]!r} ({error}): see flux resource list there."
        ) from None
    if len(found) > MOST_HOSTS:
        raise FluxError(
            f"wanted at most {MOST_HOSTS} hosts from the lead, found {len(found)} in {text[:80]!r}: see flux resource "
            "list there."
        )
    return list(found)


def hostlist(names: Iterable[str]) -> str:
    """Return names as one hostlist, in their order."""
    return str(bindings("flux.hostlist").Hostlist(list(names)).encode())


def _greeted(where: str, path: str, timeout: float) -> None:
    """Raise where no broker greets at the socket; libflux itself would wait for that without end."""
    if not os.path.exists(path):
        raise FluxError(
            f"{where}, found no socket there: start flux on this machine, or set the URI of the "
            "broker that runs."
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(timeout)
        try:
            probe.connect(path)
            greeting = probe.recv(1)
        except TimeoutError:
            raise OSError(ETIMEDOUT, f"no answer within {timeout:g} s") from None
    if greeting != b"\0":
        raise OSError(EPERM, os.strerror(EPERM))


def _explain(wanted: str, error: OSError, timeout: float = 0.0) -> FluxError:
    text = error.strerror or str(error)
    advice = "see flux dmesg on that machine."
    if wanted.startswith("wanted a Flux broker"):
        advice = "see whether flux runs on this machine, and whether the URI is its broker's."
    if error.errno == EPERM:
        advice = (
            "run as the instance's owner, or set allow-root-owner = true in [access] of its "
            "configuration."
        )
    if error.errno == ETIMEDOUT:
        text = f"none within {timeout:g} s" if timeout else text
        advice = "the broker runs but does not answer; see systemctl status flux on that machine."
    return FluxError(f"{wanted}, found '{text}': {advice}", errno=error.errno or 0)
