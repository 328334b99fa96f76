# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Kubernetes API with one pod whose commands run on this machine, so that exec can be driven without machines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from kube_cluster import Kubectl, kubeconfig

from sandbox.server import tls
from sandbox.server.kube.app import KubeApp
from sandbox.server.kube.controllers import containers, fill, ready_conditions
from sandbox.server.kube.kinds import KINDS, Object
from sandbox.server.kube.store import Store
from sandbox.server.oauth import Tokens

POD = "here"


class Here:
    """Runs a pod's commands as they are."""

    async def command(self, pod: Object, words: list[str]) -> list[str]:
        """Return the command itself."""
        return words

    async def log(self, pod: Object) -> str:
        """Return a line."""
        return "a line\n"


def _store() -> Store:
    store, pods = Store(fill), KINDS["", "pods"]
    store.create(KINDS["", "namespaces"], "", {"metadata": {"name": "default"}})
    body = {"metadata": {"name": POD}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    pod = store.create(pods, "default", body)
    store.set_status(
        pods, pod, {"phase": "Running", "conditions": ready_conditions(), **containers(pod)}
    )
    return store


@contextmanager
def serving_here(state: Path) -> Iterator[Kubectl]:
    """Serve in a thread, with files in a directory; yield a kubectl that is pointed there."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, str]:
        tokens = Tokens("http://127.0.0.1/token")
        tokens.write(state)
        app = KubeApp(_store(), Here(), tokens.good)
        runner = web.AppRunner(app.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls.make(state)).start()
        return runner, f"127.0.0.1:{runner.addresses[0][1]}"

    runner, endpoint = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield kubeconfig(state / "config", endpoint, state / "ca.pem", state / "access_token")
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
