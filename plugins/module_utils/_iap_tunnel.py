# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP to a machine through Google's Identity-Aware Proxy (IAP).

The wire protocol is what gcloud's start-iap-tunnel speaks: a WebSocket whose binary messages carry a tag, big-endian
numbers and at most 16384 bytes of data. What was sent is kept until it is acknowledged, so that a connection that drops
is resumed where it was; what was received is acknowledged when it is delivered, so that a slow reader holds the relay
back and not its data in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
import time
from urllib.parse import urlencode

from ansible_collections.flux.burst.plugins.module_utils._websocket import (
    NetworkError,
    ProtocolError,
    Refused,
    WebSocket,
    dial,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Token = Callable[["str | None"], str]
    """Returns an access token, another one than that which was rejected. Raises TunnelError."""

SUBPROTOCOL = "relay.tunnel.cloudproxy.app"
ORIGIN = "bot:iap-tunneler"
CONNECTED, RECONNECTED, DATA, ACK = 1, 2, 4, 7
FRAME = 16384
ACK_EVERY = 2 * FRAME
ACK_IDLE = 2.0
AT_ONCE = 8 * FRAME
"""Bytes that are read and sent in one go: an acknowledgement never waits behind more."""
PIPE = 2 * AT_ONCE
"""Bytes that a pipe to or from us shall take, where we may say so."""
KEEP = 512 * 1024
"""Bytes sent and not acknowledged at most; then the source is not read.

Our acknowledgements lie behind them on the way. A relay that waits for those before it sends more, and for its backend
before it reads more, must get them in time, or all wait for ever. The sandbox's relay keeps twice as much for us.
"""
HOLD = 4 * 1024 * 1024
"""Bytes received and not delivered at most; then the relay is not read, if it does not stop by itself before."""
REAUTHENTICATE, NORMAL = 4004, 1000
UNKNOWN_SESSION = 4001
USAGE, REFUSED, DENIED, NETWORK, PROTOCOL = 2, 3, 4, 5, 6
"""Whose fault it is that a tunnel failed; the program's exit codes."""
PERMISSION = (
    "the credentials need iap.tunnelInstances.accessViaIAP (in roles/iap.tunnelResourceAccessor) "
    "on the project or the machine"
)
CLOSED = {
    UNKNOWN_SESSION: (NETWORK, "the relay does not know the connection any more: run again"),
    4003: (
        REFUSED,
        "the machine does not listen there (yet), or no firewall allows the port from 35.235.240.0/20",
    ),
    4033: (DENIED, PERMISSION),
    4047: (
        REFUSED,
        "there is no such machine in that project and zone: see the inventory, or the machine's zone",
    ),
    4009: (REFUSED, "the machine does not take data any more: see whether it still runs"),
    4010: (REFUSED, "the machine does not send data any more: see whether it still runs"),
}
"""What a close code means to who gets it, and what to do, with the exit code."""
UNAUTHORIZED, FORBIDDEN = 401, 403
LATER = (429, 500, 502, 503, 504)
"""HTTP statuses after which the same may be answered otherwise in a moment."""
BACKOFF = (0.1, 0.3, 1.0, 3.0, 5.0)
OPEN_TIMEOUT = 30.0
"""Seconds for the relay to answer; how long a tunnel lives has no limit."""
CLOSE_TIMEOUT = 5.0
"""Seconds for the relay to close after us, where it has all that we sent."""
LONG = 60.0
"""Seconds after which a connection that dropped was a good one."""


class TunnelError(Exception):
    """What was wanted, what was found, what to do, in one line; and the program's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Target:
    """A port of a machine, and the relay that leads to it. `ca_file` replaces the system's certificates."""

    def __init__(
        self,
        project: str,
        zone: str,
        instance: str,
        port: int,
        endpoint: str,
        ca_file: str | None = None,
    ) -> None:
        self.project, self.zone, self.instance, self.port = project, zone, instance, port
        self.endpoint, self.ca_file = endpoint, ca_file

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

    def context(self) -> ssl.SSLContext | None:
        """Return whom to trust at the relay. Raises TunnelError."""
        if not self.endpoint.startswith("wss:"):
            return None
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            found = error.strerror or error
            raise TunnelError(
                f"wanted CA certificates in {self.ca_file}, found '{found}': set burst_iap_ca_file.",
                2,
            ) from None


def data_message(data: bytes | memoryview) -> bytes:
    """Return the message that carries some data, at most FRAME bytes."""
    return b"".join((struct.pack(">HI", DATA, len(data)), data))


class Stream:
    """Both directions of a tunnel as numbers and bytes: nothing here waits or sends.

    `unacked` is what the relay has not acknowledged, which begins at byte `acked` of all that was given; up to `sent`
    it is on its way. `received` bytes came, `delivered` of them are out of our hands, `told` were acknowledged.
    """

    def __init__(self) -> None:
        self.sid = ""
        self.unacked = bytearray()
        self.acked = 0
        self.sent = 0
        self.received = 0
        self.delivered = 0
        self.told = 0
        self.open = False

    @property
    def progress(self) -> tuple[str, int, int]:
        """What differs once a connection has brought anything."""
        return self.sid, self.received, self.acked

    @property
    def unsent(self) -> int:
        """How many bytes wait to be sent."""
        return self.acked + len(self.unacked) - self.sent

    @property
    def owes(self) -> int:
        """How many delivered bytes the relay was not told of."""
        return max(0, self.delivered - self.told)

    def messages(self) -> list[bytes]:
        """Return messages with what is to be sent next, at most AT_ONCE bytes of it."""
        start = self.sent - self.acked
        end = min(start + AT_ONCE, len(self.unacked))
        self.sent = self.acked + end
        with memoryview(self.unacked) as data:
            return [
                data_message(data[at : min(at + FRAME, end)]) for at in range(start, end, FRAME)
            ]

    def acknowledge(self) -> bytes:
        """Return the message that tells the relay what has been delivered."""
        self.told = self.delivered
        return struct.pack(">HQ", ACK, self.told)

    def resume(self) -> int:
        """Prepare for another connection; return what it has to be told: how many bytes came."""
        self.open = False
        self.told = self.received
        return self.received

    def forget_sent(self) -> None:
        """Keep nothing of what was sent: there will be neither an acknowledgement nor another connection."""
        del self.unacked[: self.sent - self.acked]
        self.acked = self.sent

    def receive(self, message: bytes | memoryview) -> bytes | memoryview:
        """Take one message in; return the data that it carries. Raises TunnelError where the relay breaks the rules."""
        try:
            (tag,) = struct.unpack_from(">H", message)
            if tag == DATA:
                (size,) = struct.unpack_from(">I", message, 2)
                if not self.sid or len(message) != 6 + size or size > FRAME:
                    raise _broken(f"{len(message)} bytes of data out of place")
                self.received += size
                return message[6:]
            if tag == CONNECTED:
                (size,) = struct.unpack_from(">I", message, 2)
                if not size or len(message) != 6 + size or self.sid:
                    raise _broken("a session id cut short, or a second one")
                self.sid = bytes(message[6:]).decode()
                self.open = True
            elif tag == RECONNECTED:
                self._forget(struct.unpack_from(">Q", message, 2)[0])
                self.sent, self.open = self.acked, True
            elif tag == ACK:
                self._forget(struct.unpack_from(">Q", message, 2)[0])
        except (struct.error, UnicodeDecodeError):
            raise _broken("a message cut short") from None
        return b""

    def _forget(self, upto: int) -> None:
        if not self.acked <= upto <= self.sent:
            raise _broken(f"{upto} bytes acknowledged, of {self.acked} to {self.sent}")
        del self.unacked[: upto - self.acked]
        self.acked = upto


def _broken(what: str) -> TunnelError:
    return TunnelError(
        f"wanted the IAP relay's protocol, found {what}: check that the endpoint is an IAP relay",
        PROTOCOL,
    )


class Ends:
    """The two descriptors that a tunnel serves, one to read and one to write, which may be one socket.

    `ended` says that no more will be read; `gone` that nobody takes what is written.
    """

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink
        for pipe in (source, sink):
            # Fewer wake-ups; what is no pipe, or on no Linux, works without.
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
        self.waiting = bytearray()
        self.ended = self.gone = self.closed = False

    @contextlib.contextmanager
    def unblocked(self) -> Iterator[None]:
        """Let no write wait meanwhile."""
        before = os.get_blocking(self.sink)
        os.set_blocking(self.sink, False)
        try:
            yield
        finally:
            os.set_blocking(self.sink, before)

    def read(self) -> bytes:
        """Return what has come, nothing at the end."""
        try:
            data = os.read(self.source, AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.ended = not data
        return data

    def give(self, data: bytes | memoryview) -> int:
        """Write data, and keep what is not taken now; return how many bytes were written."""
        count = 0 if self.waiting else self._write(data)
        if not self.gone:
            self.waiting += data[count:]
        return count

    def flush(self) -> int:
        """Write what was not taken before; return how many bytes were."""
        count = self._write(self.waiting[:AT_ONCE])
        del self.waiting[:count]
        return count

    def _write(self, data: bytes | memoryview | bytearray) -> int:
        try:
            return os.write(self.sink, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.gone = True
            self.waiting.clear()
            return 0

    def close(self) -> None:
        """Let the reader see the end, once all is written; what there is to read can still be read."""
        self.closed = True
        if stat.S_ISSOCK(os.fstat(self.sink).st_mode):
            with socket.socket(fileno=os.dup(self.sink)) as end, contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_WR)
        else:
            # The number stays taken, so that no connection gets it.
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.sink)
            os.close(nothing)

    def drain(self) -> None:
        """Wait until all is written."""
        poll = select.poll()
        poll.register(self.sink, select.POLLOUT)
        while self.waiting:
            poll.poll()
            self.flush()


class Tunnel:
    """Carries what a source gives to the target, and what the target sends to a sink."""

    def __init__(self, target: Target, token: Token) -> None:
        self.target = target
        self.token = token
        self.stream = Stream()
        self.finished = False
        """Whether the target has said all: the relay closed in order, and reads on."""
        self._rejected: str | None = None
        self._used: str | None = None
        self._retried = self._left = False
        self._ack_at = self._close_at = 0.0

    def run(self, source: int, sink: int) -> None:
        """Carry between two descriptors, which may be one socket, until both sides closed. Raises TunnelError."""
        ends = Ends(source, sink)
        with ends.unblocked():
            try:
                self._run(ends)
            except TunnelError:
                ends.drain()
                raise
            ends.drain()

    def _run(self, ends: Ends) -> None:
        stream, tries, context = self.stream, 0, self.target.context()
        while True:
            before, began = stream.progress, time.monotonic()
            code: int | None = None
            try:
                code = self._connection(context, ends)
            except NetworkError as error:
                if not stream.sid or tries >= len(BACKOFF):
                    raise self._unreached(str(error), NETWORK) from None
            except Refused as refused:
                if refused.status not in LATER or tries >= len(BACKOFF):
                    raise self._denied(refused.status) from None
            except ProtocolError as error:
                raise self._unreached(str(error), PROTOCOL) from None
            if self._over(code, ends):
                return
            if code is not None:
                self._check(code)
            if stream.progress != before or time.monotonic() - began > LONG:
                tries = 0
                continue
            tries += 1
            if tries > len(BACKOFF):
                raise TunnelError(
                    f"wanted the tunnel to {self.target.wanted} resumed, found it dropped {tries} times "
                    "in a row: check the network, then run again.",
                    NETWORK,
                )
            time.sleep(BACKOFF[tries - 1])

    def _over(self, code: int | None, ends: Ends) -> bool:
        """Return whether nothing is left to do once a connection ended with a code."""
        if ends.gone or self.finished:
            return True
        # Our close came after all data. Who does not know us any more has taken both.
        return self._left and (code == UNKNOWN_SESSION or not self.stream.unacked)

    def _connection(self, context: ssl.SSLContext | None, ends: Ends) -> int:
        """Open one connection and carry over it; return its close code, 0 where it just dropped."""
        link = self._open(context)
        try:
            return self._carry(link, ends)
        except NetworkError:
            return 0
        except ProtocolError as error:
            raise _broken(str(error)) from None
        finally:
            link.drop()

    def _open(self, context: ssl.SSLContext | None) -> WebSocket:
        """Open a connection, with another token where that is what fails. Raises WebSocketError and TunnelError."""
        stream = self.stream
        url = self.target.connect_url()
        if stream.sid:
            url = self.target.reconnect_url(stream.sid, stream.resume())
        while True:
            token = self.token(self._rejected)
            headers = {"Origin": ORIGIN, "Authorization": f"Bearer {token}"}
            try:
                link = dial(url, headers, SUBPROTOCOL, context, OPEN_TIMEOUT)
            except Refused as refused:
                if refused.status != UNAUTHORIZED or token == self._rejected or self._retried:
                    raise
                self._rejected, self._retried = token, True
            else:
                self._used, self._retried = token, False
                return link

    def _carry(self, link: WebSocket, ends: Ends) -> int:
        """Carry over one connection until it closes; return its close code. Raises NetworkError when it drops."""
        stream, poll = self.stream, Poll()
        self._ack_at = self._close_at = 0.0
        # What follows the handshake may have come with it.
        self._deliver(link, ends)
        while True:
            if link.close_code and not (link.close_code == NORMAL and stream.open):
                with contextlib.suppress(NetworkError):
                    if not link.closing and link.flush():
                        link.close(NORMAL)
                return link.close_code
            self.finished = link.close_code == NORMAL
            self._send(link, ends)
            if self.finished:
                stream.forget_sent()
            if ends.gone or (self.finished and link.closing and not link.blocked):
                return NORMAL
            if self.finished and not ends.waiting and not ends.closed:
                ends.close()
            hungry = not self.finished and len(ends.waiting) < HOLD
            thirsty = stream.open and not ends.ended and len(stream.unacked) < KEEP
            poll.watch(link.fileno(), hungry or self.finished, link.blocked)
            if ends.source == ends.sink:
                poll.watch(ends.source, thirsty, bool(ends.waiting))
            else:
                poll.watch(ends.source, thirsty, False)
                poll.watch(ends.sink, False, bool(ends.waiting))
            more = hungry and link.pending
            ready = poll.wait(0.0 if more else self._patience(link))
            if ends.waiting and ends.sink in ready:
                stream.delivered += ends.flush()
            if thirsty and ends.source in ready:
                stream.unacked += ends.read()
            if hungry and (more or link.fileno() in ready):
                self._take(link, ends)
            elif self.finished and link.fileno() in ready:
                # Nothing follows a close but the end.
                link.read()

    def _patience(self, link: WebSocket) -> float | None:
        """Return how many seconds to wait for something to happen, None for no limit. Raises NetworkError."""
        now, wait = time.monotonic(), None
        if link.closing:
            if not self.stream.unacked and not link.blocked:
                wait = self._close_at - now
                if wait <= 0:
                    raise NetworkError("no close from the relay")
        elif self.stream.owes and not self.finished and not link.blocked:
            self._ack_at = self._ack_at or now + ACK_IDLE
            wait = max(0.0, self._ack_at - now)
        return wait

    def _take(self, link: WebSocket, ends: Ends) -> None:
        """Read what has come, and deliver it as far as the sink takes it."""
        for _turn in range(AT_ONCE // FRAME):
            if not link.read():
                return
            self._deliver(link, ends)
            if link.close_code or ends.gone or len(ends.waiting) >= HOLD:
                return

    def _deliver(self, link: WebSocket, ends: Ends) -> None:
        for message in link.messages():
            data = self.stream.receive(message)
            if data:
                self.stream.delivered += ends.give(data)

    def _send(self, link: WebSocket, ends: Ends) -> None:
        """Send what is due, as far as the connection takes it. An acknowledgement goes before data."""
        stream = self.stream
        while link.flush() and not link.closing:
            due = stream.owes and self._ack_at and time.monotonic() >= self._ack_at
            if (due or stream.owes > ACK_EVERY) and not self.finished:
                self._ack_at = 0.0
                link.send(stream.acknowledge())
            elif stream.open and stream.unsent:
                link.send(*stream.messages())
            elif stream.open and (ends.ended or ends.gone):
                self._left, self._close_at = True, time.monotonic() + CLOSE_TIMEOUT
                link.close(NORMAL)
            else:
                return

    def _check(self, code: int) -> None:
        """Raise TunnelError where a close code is final."""
        wanted = f"wanted {self.target.wanted}, found"
        if code == REAUTHENTICATE:
            self._rejected = self._used
        elif code >= 4000:
            exit_code, said = CLOSED.get(
                code, (PROTOCOL, "the relay did not like what it got: report it with this code")
            )
            raise TunnelError(f"{wanted} the relay's close code {code}: {said}.", exit_code)
        elif not self.stream.sid:
            how = f"closing with code {code}" if code else "dropping the connection"
            raise TunnelError(
                f"{wanted} the relay {how} before it connected: see the relay's status, then run again.",
                NETWORK,
            )

    def _denied(self, status: int) -> TunnelError:
        if status == FORBIDDEN:
            return self._unreached(f"HTTP {status}", DENIED, PERMISSION)
        if status == UNAUTHORIZED:
            advice = "Google does not take the access token: get new credentials, see burst_credentials_file"
            return self._unreached(f"HTTP {status}", DENIED, advice)
        return self._unreached(f"HTTP {status}", NETWORK if status in LATER else PROTOCOL)

    def _unreached(self, found: str, code: int, advice: str = "") -> TunnelError:
        advice = advice or "check the endpoint and the network"
        return TunnelError(
            f"wanted {self.target.wanted} through {self.target.endpoint}, found {found}: {advice}.",
            code,
        )


class Poll:
    """poll(2) on a few descriptors whose wishes change."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watched: dict[int, int] = {}

    def watch(self, handle: int, read: bool, write: bool) -> None:
        """Wait for a descriptor from now on, or not."""
        wanted = (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
        if wanted == self._watched.get(handle, 0):
            return
        self._watched[handle] = wanted
        if wanted:
            self._poll.register(handle, wanted)
        else:
            # One that is registered for nothing still reports a hangup, again and again.
            self._poll.unregister(handle)

    def wait(self, seconds: float | None) -> list[int]:
        """Return the descriptors where something can be done, or is wrong."""
        found = self._poll.poll(None if seconds is None else seconds * 1000)
        return [handle for handle, _event in found]
