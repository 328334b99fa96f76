# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP to a machine through Google's Identity-Aware Proxy (IAP), as a library and as ssh's ProxyCommand.

The wire protocol is what gcloud's start-iap-tunnel speaks: a WebSocket whose binary messages carry a tag, big-endian
numbers and at most 16384 bytes of data. What was sent is kept until it is acknowledged, so that a connection that drops
is resumed where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

SUBPROTOCOL = "relay.tunnel.cloudproxy.app"
ORIGIN = "bot:iap-tunneler"
CONNECTED, RECONNECTED, DATA, ACK = 1, 2, 4, 7
FRAME = 16384
ACK_EVERY = 2 * FRAME
ACK_IDLE = 2.0
KEEP = 1024 * 1024
REAUTHENTICATE, NORMAL = 4004, 1000
UNREACHABLE = (
    "the machine does not listen there (yet), or no firewall allows the port from 35.235.240.0/20"
)
CLOSED = {
    4001: "the relay does not know the connection any more: run again",
    4003: UNREACHABLE,
    4033: "the credentials need iap.tunnelInstances.accessViaIAP (in roles/iap.tunnelResourceAccessor)",
    4047: "there is no such machine in that project and zone: see the inventory, or the machine's zone",
    4009: "the machine does not take data any more: see whether it still runs",
    4010: "the machine does not send data any more: see whether it still runs",
}
"""What a close code means to who gets it, and what to do."""
BACKOFF = (0.1, 0.3, 1.0, 3.0, 5.0)
OPEN_TIMEOUT = 30.0
"""Seconds for the relay to answer; how long a tunnel lives has no limit."""


class TunnelError(Exception):
    """What was wanted, what was found, what to do, in one line."""


@dataclass(frozen=True)
class Target:
    """A port of a machine, and the relay that leads to it. `ca_file` replaces the system's certificates."""

    project: str
    zone: str
    instance: str
    port: int
    endpoint: str
    ca_file: str | None = None

    @property
    def wanted(self) -> str:
        """How the target is called in messages."""
        return f"port {self.port} of {self.instance} (project {self.project}, zone {self.zone})"

    def connect_url(self) -> str:
        """Where a new connection begins."""
        query = {
            "project": self.project,
            "zone": self.zone,
            "instance": self.instance,
            "interface": "nic0",
            "port": self.port,
            "newWebsocket": "True",
        }
        return f"{self.endpoint}/v4/connect?{urlencode(query)}"

    def reconnect_url(self, sid: str, received: int) -> str:
        """Where a dropped connection goes on; received counts the bytes that came so far."""
        query = {"sid": sid, "ack": received, "zone": self.zone, "newWebsocket": "True"}
        return f"{self.endpoint}/v4/reconnect?{urlencode(query)}"


def data_frames(data: bytes) -> list[bytes]:
    """Return the messages that carry some data."""
    parts = [data[start : start + FRAME] for start in range(0, len(data), FRAME)]
    return [struct.pack(">HI", DATA, len(part)) + part for part in parts]


class Stream:
    """Both directions of a tunnel as numbers and bytes: nothing here waits or sends.

    `unacked` is what the relay has not acknowledged, which begins at byte `acked` of all that was sent.
    """

    def __init__(self) -> None:
        self.sid = ""
        self.unacked = bytearray()
        self.acked = 0
        self.received = 0
        self.told = 0

    def send(self, data: bytes) -> list[bytes]:
        """Keep data until it is acknowledged and return the messages that carry it."""
        self.unacked += data
        return data_frames(data)

    def acknowledge(self) -> bytes:
        """Return the message that tells the relay what has been received."""
        self.told = self.received
        return struct.pack(">HQ", ACK, self.received)

    @property
    def owes(self) -> int:
        """How many received bytes the relay was not told of."""
        return self.received - self.told

    def receive(self, message: bytes) -> bytes:
        """Take one message in; return the data that it carries. Raises TunnelError where the relay breaks the rules."""
        try:
            (tag,) = struct.unpack_from(">H", message)
            if tag == CONNECTED:
                (size,) = struct.unpack_from(">I", message, 2)
                if not size or len(message) != 6 + size:
                    raise TunnelError(_broken("a session id cut short"))
                self.sid = message[6:].decode()
            elif tag in (RECONNECTED, ACK):
                self._forget(struct.unpack_from(">Q", message, 2)[0])
            elif tag == DATA:
                (size,) = struct.unpack_from(">I", message, 2)
                if not self.sid or len(message) != 6 + size or size > FRAME:
                    raise TunnelError(_broken(f"{len(message)} bytes of data out of place"))
                self.received += size
                return message[6:]
        except (struct.error, UnicodeDecodeError):
            raise TunnelError(_broken("a message cut short")) from None
        return b""

    def _forget(self, upto: int) -> None:
        if not self.acked <= upto <= self.acked + len(self.unacked):
            raise TunnelError(
                _broken(f"{upto} bytes acknowledged of {self.acked + len(self.unacked)}")
            )
        del self.unacked[: upto - self.acked]
        self.acked = upto


def _broken(what: str) -> str:
    return f"wanted the IAP relay's protocol, found {what}: check that the endpoint is an IAP relay"


Token = Callable[[], Awaitable[str]]


class Tunnel:
    """Carries a reader's bytes to the target and the target's bytes to a writer."""

    def __init__(self, target: Target, token: Token) -> None:
        self.target = target
        self.token = token
        self.stream = Stream()
        self.room = asyncio.Event()
        self.room.set()

    async def run(self, reader: asyncio.StreamReader, writer: Any) -> None:
        """Carry until either side closes. Raises TunnelError."""
        import aiohttp

        ended = asyncio.Event()
        source = _Source(reader, ended)
        limit = aiohttp.ClientTimeout(total=OPEN_TIMEOUT)
        async with aiohttp.ClientSession(timeout=limit) as session:
            tries = 0
            while True:
                before = self.stream.received + self.stream.acked
                try:
                    socket = await self._open(session)
                except (aiohttp.ClientError, TimeoutError) as error:
                    if not self.stream.sid or tries >= len(BACKOFF):
                        raise self._refused(error) from None
                    code = 0
                else:
                    async with socket:
                        code = await self._carry(socket, source, writer)
                if code == NORMAL or ended.is_set():
                    return
                self._check_code(code)
                tries = 0 if self.stream.received + self.stream.acked > before else tries + 1
                if tries > len(BACKOFF):
                    raise TunnelError(
                        f"wanted the tunnel to {self.target.wanted} resumed, found it dropped {tries} times "
                        "in a row: check the network, then run again."
                    )
                await asyncio.sleep(BACKOFF[max(tries - 1, 0)])

    async def _open(self, session: Any) -> Any:
        stream = self.stream
        url = (
            self.target.reconnect_url(stream.sid, stream.received)
            if stream.sid
            else self.target.connect_url()
        )
        return await session.ws_connect(
            url,
            protocols=(SUBPROTOCOL,),
            origin=ORIGIN,
            headers={"Authorization": f"Bearer {await self.token()}"},
            ssl=_tls(self.target),
            max_msg_size=2 * FRAME,
            autoping=True,
            compress=0,
        )

    async def _carry(self, socket: Any, source: _Source, writer: Any) -> int:
        """Carry over one WebSocket until it closes; return its close code, 0 where it just dropped."""
        first = asyncio.Event()
        sending = asyncio.create_task(self._send(socket, source, first))
        try:
            while True:
                try:
                    message = await socket.receive(timeout=ACK_IDLE if self.stream.owes else None)
                except TimeoutError:
                    await socket.send_bytes(self.stream.acknowledge())
                    continue
                if not isinstance(message.data, bytes):
                    return int(socket.close_code or 0)
                data = self.stream.receive(message.data)
                if self.stream.sid:
                    first.set()
                if len(self.stream.unacked) < KEEP:
                    self.room.set()
                if data and not await _given(writer, data):
                    return NORMAL
                if self.stream.owes > ACK_EVERY:
                    await socket.send_bytes(self.stream.acknowledge())
        except ConnectionError:
            return 0
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, socket: Any, source: _Source, first: asyncio.Event) -> None:
        """Send what is kept from before, then what the source gives; close after its end."""
        await first.wait()
        for frame in data_frames(bytes(self.stream.unacked)):
            await socket.send_bytes(frame)
        while True:
            await self.room.wait()
            data = await source.read()
            if not data:
                await socket.close(code=NORMAL)
                return
            for frame in self.stream.send(data):
                await socket.send_bytes(frame)
            if len(self.stream.unacked) >= KEEP:
                self.room.clear()

    def _check_code(self, code: int) -> None:
        if code >= 4000 and code != REAUTHENTICATE:
            said = CLOSED.get(code, "the relay did not like what it got: report it with this code")
            raise TunnelError(
                f"wanted {self.target.wanted}, found the relay's close code {code}: {said}."
            )
        if not self.stream.sid:
            raise TunnelError(
                f"wanted {self.target.wanted}, found the relay closing with code {code} before it connected: "
                "see the relay's status, then run again."
            )

    def _refused(self, error: Exception) -> TunnelError:
        wanted = f"wanted {self.target.wanted} through {self.target.endpoint}"
        status = getattr(error, "status", 0)
        if status in (401, 403):
            return TunnelError(
                f"{wanted}, found HTTP {status}: the credentials need iap.tunnelInstances.accessViaIAP "
                "(in roles/iap.tunnelResourceAccessor)."
            )
        found = f"'{error}'"
        if isinstance(error, TimeoutError):
            found = f"no answer within {OPEN_TIMEOUT:g} s"
        return TunnelError(f"{wanted}, found {found}: check the endpoint and the network.")


async def _given(writer: Any, data: bytes) -> bool:
    """Write data; return False where its reader is gone, for whom a resumed tunnel would lose it again."""
    try:
        writer.write(data)
        await writer.drain()
    except ConnectionError:
        return False
    return True


class _Source:
    """A reader that notes its end; a read that a dropped connection cancelled loses nothing."""

    def __init__(self, reader: asyncio.StreamReader, ended: asyncio.Event) -> None:
        self.reader = reader
        self.ended = ended

    async def read(self) -> bytes:
        data = await self.reader.read(FRAME)
        if not data:
            self.ended.set()
        return data


def _tls(target: Target) -> Any:
    import ssl

    if not target.ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=target.ca_file)
    except OSError as error:
        raise TunnelError(
            f"wanted CA certificates in {target.ca_file}, found '{error.strerror or error}': set burst_iap_ca_file."
        ) from None


def google_token(credentials_file: str | None, impersonate: str | None = None) -> Token:
    """Return what fetches an access token for the credentials in a file or in the environment.

    impersonate is the service account to act as, if any.
    """

    async def token() -> str:
        return await asyncio.to_thread(_fetch, credentials_file, impersonate)

    return token


def _fetch(credentials_file: str | None, impersonate: str | None) -> str:
    from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
    from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth, load

    try:
        return load(Auth.from_environment(credentials_file, impersonate)).token()
    except GceError as error:
        raise TunnelError(str(error)) from None


async def _stdio() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await loop.connect_read_pipe(lambda: protocol, sys.stdin.buffer)
    transport, flow = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop), sys.stdout.buffer
    )
    # So that drain() returns when all is written, and nothing is lost when this process ends.
    transport.set_write_buffer_limits(high=0)
    return reader, asyncio.StreamWriter(transport, flow, reader, loop)


async def _main(target: Target, token: Token) -> None:
    reader, writer = await _stdio()
    await Tunnel(target, token).run(reader, writer)


def main() -> int:
    """Be ssh's ProxyCommand: carry standard input and output; return the exit code."""
    parser = argparse.ArgumentParser(
        description="TCP to a machine through IAP, on standard input and output."
    )
    for name in ("project", "zone", "instance", "endpoint"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--ca-file")
    parser.add_argument("--credentials-file")
    parser.add_argument("--impersonate-service-account")
    parser.add_argument("--error-file", type=Path, help="also write a failure there")
    options = vars(parser.parse_args())
    error_file = options.pop("error_file")
    token = google_token(
        options.pop("credentials_file"), options.pop("impersonate_service_account")
    )
    # ssh runs this file alone; what it imports of ours is found where Ansible finds it.
    sys.path.append(str(Path(__file__).absolute().parents[5]))
    try:
        asyncio.run(_main(Target(**options), token))
    except ImportError as error:
        said = f"wanted {error.name} on the controller, found none: pip install aiohttp google-auth requests"
    except TunnelError as error:
        said = str(error)
    except KeyboardInterrupt:
        return 130
    else:
        return 0
    sys.stderr.write(f"iap: {said}\n")
    if error_file:
        error_file.write_text(f"iap: {said}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
