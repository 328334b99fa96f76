# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The broker's local socket: lines of JSON each way, and who is asking known from the kernel."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

DEFAULT = "local:///run/flux/local"
CREDENTIALS = struct.Struct("3i")
# What a broker sends to whoever may connect, before anything is asked.
GREETING = b"\0"
ENDED = errno.ENODATA
# What those say that are asked without the streaming flag.
STREAMS = {
    "resource.journal": "journal requires streaming RPC flag",
    "job-manager.events-journal": "job-manager.events requires streaming RPC flag",
}

Answer = dict[str, Any] | None | AsyncIterator[dict[str, Any] | str]
"""The response to an RPC, or the responses to a streaming one. A text is a payload that is no JSON."""
Handler = Callable[[str, dict[str, Any] | None, int], Awaitable[Answer]]
"""Answers a topic and payload of a user id. Raises OSError with errno and text."""


class Client:
    """Asks the local broker. Many requests may be in flight, each with a number of its own."""

    def __init__(self, uri: str | None = None) -> None:
        """Connect. Raises OSError."""
        self.path = (uri or os.environ.get("FLUX_URI") or DEFAULT).removeprefix("local://")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self.path)
        if self._socket.recv(1) != GREETING:
            raise fail(errno.EPERM)
        self._heard = b""
        self._replies: dict[int, list[dict[str, Any]]] = {}
        self._last = 0

    def send(self, topic: str, payload: dict[str, Any] | None = None, stream: bool = False) -> int:
        """Ask, and return the request's number."""
        self._last += 1
        self._replies[self._last] = []
        question = {"id": self._last, "topic": topic, "payload": payload, "stream": stream}
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        return self._last

    def wait(self, number: int, timeout: float | None = None) -> None:
        """Wait until a reply to a request is there. Raises OSError."""
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        while not self._replies[number]:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            self._socket.settimeout(left or (0.0001 if left is not None else None))
            try:
                part = self._socket.recv(1 << 20)
            except (TimeoutError, BlockingIOError):
                raise fail(errno.ETIMEDOUT) from None
            finally:
                self._socket.settimeout(None)
            if not part:
                raise fail(errno.ECONNRESET)
            *lines, self._heard = (self._heard + part).split(b"\n")
            for line in lines:
                reply = json.loads(line)
                self._replies[reply["id"]].append(reply)

    def payload(self, number: int) -> Any:
        """Return the payload of the first reply to a request that was not dropped. Raises OSError with Flux's errno."""
        self.wait(number)
        reply = self._replies[number][0]
        if reply["errno"]:
            raise OSError(reply["errno"], reply["text"])
        return reply["payload"]

    def drop(self, number: int) -> None:
        """Go on to the next reply to a streaming request."""
        self._replies[number].pop(0)

    def ask(self, topic: str, payload: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Return the response. Raises OSError with Flux's errno and text."""
        response: dict[str, Any] | None = self.payload(self.send(topic, payload))
        return response


async def _replies(handler: Handler, question: dict[str, Any], uid: int) -> AsyncIterator[Any]:
    """Yield errno, text and payload of each reply to a question."""
    try:
        answer = await handler(question["topic"], question["payload"], uid)
        if not isinstance(answer, AsyncIterator):
            # Who asked for a stream waits for more, which never comes.
            yield 0, "", answer
            return
        if not question["stream"]:
            raise fail(errno.EPROTO, STREAMS.get(question["topic"], ""))
        async for each in answer:
            yield 0, "", each
        raise fail(ENDED)
    except OSError as error:
        yield error.errno or errno.EINVAL, error.strerror, None
    except (LookupError, TypeError, ValueError, AttributeError):
        # A payload that is not as it should be; who asks must not wait for ever.
        yield errno.EPROTO, os.strerror(errno.EPROTO), None


async def serve(path: str, handler: Handler) -> asyncio.Server:
    """Listen on a UNIX socket that everybody may connect to."""
    if os.path.exists(path):
        os.unlink(path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        _pid, uid, _gid = CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
        writer.write(GREETING)
        tasks: set[asyncio.Task[None]] = set()

        async def reply(question: dict[str, Any]) -> None:
            async for number, text, payload in _replies(handler, question, uid):
                row = {"id": question["id"], "errno": number, "text": text, "payload": payload}
                writer.write(json.dumps(row).encode() + b"\n")
            if not writer.is_closing():
                await writer.drain()

        try:
            while line := await reader.readline():
                task = asyncio.create_task(reply(json.loads(line)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except ConnectionError:
            pass
        finally:
            for task in [*tasks]:
                task.cancel()
            writer.close()

    server = await asyncio.start_unix_server(answer, path, limit=16 * 1024 * 1024)
    os.chmod(path, 0o777)
    return server


def fail(number: int, text: str = "") -> OSError:
    """Return the error of an RPC."""
    return OSError(number, text or os.strerror(number))
