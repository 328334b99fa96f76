# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The broker's local socket: one line of JSON each way, and who is asking known from the kernel."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

DEFAULT = "local:///run/flux/local"
CREDENTIALS = struct.Struct("3i")

Handler = Callable[[str, dict[str, Any], int], Awaitable[dict[str, Any] | None]]
"""Answers a topic and payload of a user id. Raises OSError with errno and text."""


class Client:
    """Asks the local broker."""

    def __init__(self, uri: str | None = None) -> None:
        """Connect. Raises OSError."""
        self.path = (uri or os.environ.get("FLUX_URI") or DEFAULT).removeprefix("local://")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self.path)
        self._file = self._socket.makefile("rw")

    def ask(self, topic: str, payload: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the response. Raises OSError with Flux's errno and text."""
        self._file.write(json.dumps({"topic": topic, "payload": payload or {}}) + "\n")
        self._file.flush()
        line = self._file.readline()
        if not line:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        answer = json.loads(line)
        if answer["errno"]:
            raise OSError(answer["errno"], answer["text"])
        response: dict[str, Any] | None = answer["payload"]
        return response


async def serve(path: str, handler: Handler) -> asyncio.Server:
    """Listen on a UNIX socket that everybody may connect to."""
    if os.path.exists(path):
        os.unlink(path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        _pid, uid, _gid = CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
        while line := await reader.readline():
            question = json.loads(line)
            reply: dict[str, Any] = {"errno": 0, "text": "", "payload": None}
            try:
                reply["payload"] = await handler(question["topic"], question["payload"], uid)
            except OSError as error:
                reply["errno"], reply["text"] = error.errno or errno.EINVAL, error.strerror
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, path, limit=16 * 1024 * 1024)
    os.chmod(path, 0o777)
    return server


def fail(number: int, text: str = "") -> OSError:
    """Return the error of an RPC."""
    return OSError(number, text or os.strerror(number))
