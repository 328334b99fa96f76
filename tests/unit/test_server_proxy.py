# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proxy leads Google's names into the sandbox and refuses every other."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sandbox.server.proxy import Proxy, target


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("CONNECT compute.googleapis.com:443 HTTP/1.1", 1),
        ("CONNECT www.googleapis.com:443 HTTP/1.1", 1),
        ("CONNECT googleapis.com:443 HTTP/1.1", 1),
        ("CONNECT tunnel.cloudproxy.app:443 HTTP/1.1", 2),
        ("CONNECT compute.googleapis.com:80 HTTP/1.1", None),
        ("CONNECT example.com:443 HTTP/1.1", None),
        ("CONNECT compute.googleapis.com.example.com:443 HTTP/1.1", None),
        ("GET http://compute.googleapis.com:443/ HTTP/1.1", None),
        ("", None),
    ],
)
def test_only_googles_names_lead_anywhere(line: str, port: int | None) -> None:
    assert target(line, 1, 2) == port


async def test_what_is_said_through_the_proxy_arrives_and_the_end_of_it_too() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    backend = await asyncio.start_server(echo, "127.0.0.1", 0)
    bound = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(backend.sockets[0].getsockname()[1], 1)
    await proxy.start(bound)
    reader, writer = await asyncio.open_connection(*bound.getsockname())
    writer.write(b"CONNECT compute.googleapis.com:443 HTTP/1.1\r\nHost: x\r\n\r\nhello")
    writer.write_eof()
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert await reader.read() == b"hello"
    writer.close()
    await proxy.stop()
    backend.close()


async def test_another_name_is_refused() -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(1, 1)
    await proxy.start(bound)
    reader, writer = await asyncio.open_connection(*bound.getsockname())
    writer.write(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
    writer.close()
    await proxy.stop()
