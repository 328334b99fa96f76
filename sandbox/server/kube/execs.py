# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command for `kubectl exec`: the channels of its WebSocket, and the process behind them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
"""The channels, by the first byte of a message; CLOSE came with version 5."""
CHUNK = 1 << 15


@dataclass(frozen=True)
class Streams:
    """Which of a process's streams the client wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def ended(code: int) -> dict[str, Any]:
    """Return the Status that the error channel carries for an exit code."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    shell = code if code > 0 else 128 - code
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {shell}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(shell)}]},
    }


def failed(message: str) -> dict[str, Any]:
    """Return the Status of a command that could not be started."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "code": 500,
    }


class Session:
    """One command of one client."""

    def __init__(self, socket: web.WebSocketResponse, streams: Streams) -> None:
        self.socket, self.streams = socket, streams

    async def refuse(self, message: str) -> None:
        """Tell the client that there is no such command to run, and end."""
        await self._end(failed(message))

    async def run(self, command: Sequence[str]) -> None:
        """Run a command to its end, or until the client leaves."""
        # An empty message tells the client that the connection stands.
        await self._send(STDOUT if self.streams.stdout else ERROR, b"")
        master, slave = os.openpty() if self.streams.tty else (-1, -1)
        pipe = asyncio.subprocess.PIPE
        closed = asyncio.subprocess.DEVNULL
        if self.streams.tty:
            ends = (slave, slave, slave)
        else:
            ends = (
                pipe if self.streams.stdin else closed,
                pipe if self.streams.stdout else closed,
                pipe if self.streams.stderr else closed,
            )
        words = ["setsid", "--ctty", "--wait", *command] if self.streams.tty else list(command)
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=ends[0],
                stdout=ends[1],
                stderr=ends[2],
                start_new_session=not self.streams.tty,
            )
        except OSError as error:
            await self._end(failed(f"error executing command in container: {error}"))
            return
        finally:
            if slave >= 0:
                os.close(slave)
        await self._serve(process, master)

    async def _serve(self, process: asyncio.subprocess.Process, master: int) -> None:
        reading = asyncio.ensure_future(self._read(process, master))
        if master >= 0:
            outputs = [self._copy_terminal(master)]
        else:
            pairs = ((STDOUT, process.stdout), (STDERR, process.stderr))
            outputs = [self._copy(channel, stream) for channel, stream in pairs if stream]
        try:
            done = asyncio.ensure_future(self._finish(process, outputs))
            await asyncio.wait({done, reading}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                await self._end(ended(done.result()))
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGHUP)
                    process.kill()
                await done
        finally:
            reading.cancel()
            if master >= 0:
                os.close(master)

    @staticmethod
    async def _finish(process: asyncio.subprocess.Process, outputs: Sequence[Any]) -> int:
        await asyncio.gather(*outputs)
        return await process.wait()

    async def _read(self, process: asyncio.subprocess.Process, master: int) -> None:
        """Take what the client sends until it leaves."""
        async for message in self.socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT) or not message.data:
                continue
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            channel, rest = data[0], data[1:]
            with contextlib.suppress(ConnectionError, OSError):
                if channel == RESIZE and master >= 0:
                    size = json.loads(rest)
                    packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
                    fcntl.ioctl(master, termios.TIOCSWINSZ, packed)
                elif channel == STDIN and master >= 0:
                    await asyncio.to_thread(os.write, master, rest)
                elif channel == STDIN and process.stdin:
                    process.stdin.write(rest)
                    await process.stdin.drain()
                elif channel == CLOSE and rest[:1] == bytes([STDIN]) and process.stdin:
                    process.stdin.close()

    async def _copy(self, channel: int, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(CHUNK):
            await self._send(channel, data)

    async def _copy_terminal(self, master: int) -> None:
        # A terminal whose last process is gone reads as an error.
        with contextlib.suppress(OSError):
            while data := await asyncio.to_thread(os.read, master, CHUNK):
                await self._send(STDOUT, data)

    async def _send(self, channel: int, data: bytes) -> None:
        # A client that left is told nothing; the process's output is read to its end all the same.
        with contextlib.suppress(ConnectionError):
            await self.socket.send_bytes(bytes([channel]) + data)

    async def _end(self, status: dict[str, Any]) -> None:
        await self._send(ERROR, json.dumps(status).encode())
        await self.socket.close()
