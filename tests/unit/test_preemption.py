# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine is told by its metadata that it goes, and drains its own rank."""

from __future__ import annotations

import asyncio
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from sandbox.server.metadata import FLAVOR, PREEMPTED, Metadata

PROGRAM = Path(__file__).resolve().parents[2] / "roles/node/files/burst-preemption.py"
FLUX = """#!/bin/sh
echo "$*" >> "$LOG"
test "$1" != getattr || echo 7
test ! -e "$LOG.down" || { rm "$LOG.down"; exit 1; }
"""


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Metadata, str]]:
    """A machine's metadata server, and where it is."""
    bound = socket.create_server(("127.0.0.1", 0))
    server = Metadata(bound)
    await server.start()
    try:
        yield server, f"http://127.0.0.1:{bound.getsockname()[1]}{PREEMPTED}"
    finally:
        await server.stop()


async def test_who_waits_for_a_change_is_told_when_the_machine_is_preempted() -> None:
    async with serving() as (server, url), aiohttp.ClientSession(headers=FLAVOR) as client:

        async def ask(query: str = "") -> tuple[str, str]:
            async with client.get(url + query) as answer:
                return await answer.text(), answer.headers["ETag"]

        said, etag = await ask()
        assert said == "FALSE"
        waits = asyncio.ensure_future(ask(f"?wait_for_change=true&last_etag={etag}"))
        assert (await ask("?wait_for_change=true&timeout_sec=0.05"))[0] == "FALSE"
        assert not waits.done()
        server.preempt()
        assert (await waits)[0] == "TRUE"
        late = await ask(f"?wait_for_change=true&last_etag={etag}")
        assert late[0] == "TRUE", "what was missed is told at once"
        async with client.get(url, headers={"Metadata-Flavor": "x"}) as refused:
            assert refused.status == 403


def program(url: str, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start the machine's program with a Flux that only notes what it is told."""
    flux = folder / "flux"
    flux.write_text(FLUX)
    flux.chmod(0o755)
    text = PROGRAM.read_text()
    there = runpy.run_path(str(PROGRAM))["URL"]
    assert there in text
    copy = folder / "program.py"
    copy.write_text(text.replace(there, url))
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "LOG": str(folder / "log")}
    return subprocess.Popen([sys.executable, str(copy), *words], env=env)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, within some seconds."""
    return await asyncio.wait_for(asyncio.to_thread(process.wait), 20)


DRAINED = ["getattr rank", "resource drain 7 flux.burst preempted"]


async def test_the_program_waits_for_the_notice_and_drains_its_own_rank(tmp_path: Path) -> None:
    # A broker that is joining cannot be asked yet.
    (tmp_path / "log.down").touch()
    async with serving() as (server, url):
        process = program(url, tmp_path)
        await asyncio.sleep(0.5)
        assert process.poll() is None and not (tmp_path / "log").exists()
        server.preempt()
        assert await ended(process) == 0
    assert (tmp_path / "log").read_text().splitlines() == [DRAINED[0], *DRAINED]


@pytest.mark.parametrize("preempted", [True, False])
async def test_where_the_unit_is_stopped_it_drains_only_a_machine_that_goes(
    tmp_path: Path, preempted: bool
) -> None:
    async with serving() as (server, url):
        if preempted:
            server.preempt()
        assert await ended(program(url, tmp_path, "--now")) == 0
    log = tmp_path / "log"
    assert (log.read_text().splitlines() if log.exists() else []) == (DRAINED if preempted else [])


async def test_where_no_metadata_is_stopping_fails_nothing(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        assert await ended(program(url, tmp_path, "--now")) == 0
