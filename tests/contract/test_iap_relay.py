# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The relay speaks the IAP tunnel protocol, byte by byte."""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from compute_server import ComputeServer
from echo_relay import EchoRelay

CONNECTED, RECONNECTED, DATA, ACK = 0x0001, 0x0002, 0x0004, 0x0007
HEADERS = {"Origin": "bot:iap-tunneler"}
PROTOCOL = ("relay.tunnel.cloudproxy.app",)


class Client:
    """One WebSocket to the relay; data is what came so far."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.data, self.acked, self.frames = socket, b"", 0, [0]

    async def first(self) -> tuple[int, bytes]:
        """Return tag and rest of a message."""
        message = await asyncio.wait_for(self.socket.receive(), 10)
        assert message.type == aiohttp.WSMsgType.BINARY, (message, self.socket.close_code)
        return int.from_bytes(message.data[:2], "big"), message.data[2:]

    async def send(self, data: bytes) -> None:
        """Send data in messages as large as they may be."""
        for start in range(0, len(data), 16384):
            part = data[start : start + 16384]
            await self.socket.send_bytes(struct.pack(">HI", DATA, len(part)) + part)

    async def ack(self, count: int) -> None:
        """Acknowledge bytes."""
        await self.socket.send_bytes(struct.pack(">HQ", ACK, count))

    async def receive(self, count: int) -> bytes:
        """Return data when there are so many bytes of it."""
        while len(self.data) < count:
            tag, rest = await self.first()
            if tag == ACK:
                self.acked = int.from_bytes(rest, "big")
            else:
                assert tag == DATA and int.from_bytes(rest[:4], "big") == len(rest) - 4
                self.frames.append(len(rest) - 4)
                self.data += rest[4:]
        return self.data

    async def closed(self) -> int | None:
        """Return the code with which the relay closes."""
        while (await asyncio.wait_for(self.socket.receive(), 10)).type not in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.CLOSING,
        ):
            pass
        return self.socket.close_code


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession() as made:
        yield made


async def dial(session: aiohttp.ClientSession, relay: Any, path: str, **changes: Any) -> Client:
    """Open a WebSocket to a relay."""
    headers = {**HEADERS, "Authorization": f"Bearer {relay.access_token}"}
    options = {"headers": headers, "protocols": PROTOCOL, **changes}
    context = ssl.create_default_context(cafile=str(relay.ca_file))
    url = f"{relay.iap_endpoint}/v4/{path}"
    return Client(await session.ws_connect(url, ssl=context, autoping=False, **options))


async def connect(session: aiohttp.ClientSession, relay: EchoRelay) -> tuple[Client, str]:
    """Connect to the machine that echoes; return the client and its session's id."""
    client = await dial(session, relay, f"connect?{relay.query}&newWebsocket=True")
    tag, rest = await client.first()
    assert tag == CONNECTED and int.from_bytes(rest[:4], "big") == len(rest) - 4
    return client, rest[4:].decode()


def resume(sid: str, ack: int) -> str:
    """Return the path that goes on with a session."""
    return f"reconnect?sid={sid}&ack={ack}&newWebsocket=True&zone=us-central1-a"


async def test_data_comes_back_in_small_frames(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, _unused = await connect(session, echo_relay)
    sent = os.urandom(200_000)
    await client.send(sent)
    assert await client.receive(len(sent)) == sent
    assert max(client.frames) <= 16384
    assert client.acked > len(sent) - 2 * 32768
    await client.socket.close()


async def test_few_bytes_are_acknowledged_when_it_is_quiet(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, _unused = await connect(session, echo_relay)
    await client.send(b"hello")
    await client.receive(5)
    assert client.acked == 0
    assert await client.first() == (ACK, struct.pack(">Q", 5))
    await client.socket.close()


async def test_the_end_of_the_backend_closes_in_order_after_its_data(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, sid = await connect(session, echo_relay)
    await client.send(b"last words, quit")
    assert await client.receive(16) == b"last words, quit"
    assert await client.closed() == 1000
    again = await dial(session, echo_relay, resume(sid, 16))
    assert await again.closed() == 4001


async def test_a_dropped_session_goes_on_where_it_was(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, sid = await connect(session, echo_relay)
    sent = os.urandom(100_000)
    await client.send(sent[:40_000])
    got = (await client.receive(30_000))[:20_000]
    transport = client.socket.get_extra_info("socket")
    assert transport is not None
    client.socket._response.connection.transport.abort()  # type: ignore[union-attr]
    again = await dial(session, echo_relay, resume(sid, len(got)))
    tag, rest = await again.first()
    received = int.from_bytes(rest, "big")
    assert tag == RECONNECTED and received <= 40_000
    await again.send(sent[received:])
    assert got + await again.receive(len(sent) - len(got)) == sent
    await again.socket.close()


async def test_a_second_websocket_takes_over_from_one_that_hangs(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, sid = await connect(session, echo_relay)
    await client.send(b"one")
    await client.receive(3)
    again = await dial(session, echo_relay, resume(sid, 3))
    assert await again.first() == (RECONNECTED, struct.pack(">Q", 3))
    await again.send(b"two")
    assert await again.receive(3) == b"two"
    await again.socket.close()


async def test_a_session_that_the_client_closed_is_over(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, sid = await connect(session, echo_relay)
    await client.socket.close()
    await asyncio.sleep(0.1)
    assert await (await dial(session, echo_relay, resume(sid, 0))).closed() == 4001


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (struct.pack(">HQ", ACK, 1), 4006),
        (struct.pack(">HI", DATA, 3) + b"four", 4013),
        (struct.pack(">HI", DATA, 16385) + bytes(16385), 4013),
        (struct.pack(">HI", 0x0099, 0), 4008),
    ],
)
async def test_a_wrong_message_is_fatal(
    session: aiohttp.ClientSession, echo_relay: EchoRelay, message: bytes, code: int
) -> None:
    client, sid = await connect(session, echo_relay)
    await client.socket.send_bytes(message)
    assert await client.closed() == code
    assert await (await dial(session, echo_relay, resume(sid, 0))).closed() == 4001


async def test_an_ack_that_goes_back_is_fatal(
    session: aiohttp.ClientSession, echo_relay: EchoRelay
) -> None:
    client, _unused = await connect(session, echo_relay)
    await client.send(b"hello")
    await client.receive(5)
    await client.ack(5)
    await client.ack(4)
    assert await client.closed() == 4005


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("port=22", "port=80", 4003),
        ("echo-0", "deaf-0", 4003),
        ("echo-0", "nobody", 4047),
        ("us-central1-a", "us-central1-b", 4047),
    ],
)
async def test_what_cannot_be_reached_says_so(
    session: aiohttp.ClientSession, echo_relay: EchoRelay, old: str, new: str, code: int
) -> None:
    query = echo_relay.query.replace(old, new)
    assert await (await dial(session, echo_relay, f"connect?{query}")).closed() == code


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": HEADERS}, 401),
        ({"headers": {**HEADERS, "Authorization": "Bearer ya29.made-up"}}, 401),
        ({"protocols": ("other",)}, 400),
    ],
)
async def test_who_may_not_connect_is_refused_before_the_upgrade(
    session: aiohttp.ClientSession, echo_relay: EchoRelay, changes: Any, status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await dial(session, echo_relay, f"connect?{echo_relay.query}", **changes)
    assert caught.value.status == status


async def test_the_server_has_a_relay_too(
    session: aiohttp.ClientSession, compute_server: ComputeServer
) -> None:
    query = "project=sandbox-project&zone=us-central1-a&instance=no&interface=nic0&port=22"
    assert await (await dial(session, compute_server, f"connect?{query}")).closed() == 4047
