# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A WebSocket client (RFC 6455) for binary messages, on the standard library.

What carries ssh is started for every machine, so what this imports counts: with asyncio a process would start 30 ms
later and hold 5 MiB more, with aiohttp 300 ms and 35 MiB.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import ssl
import time
from urllib.parse import unquote, urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What a server hashes with the client's key, from section 1.3."""
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NO_CODE = 1005
"""The code of a close that gives none."""
LARGEST = 1 << 15
"""Bytes of a message at most."""
HEAD_LIMIT = 1 << 16
READ = 1 << 16
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 90_000}
"""Where the system has these options: when a peer that is gone without a word is noticed, in seconds, probes and ms."""


class WebSocketError(Exception):
    """What was found instead of a working WebSocket."""


class NetworkError(WebSocketError):
    """The server or its proxy was not reached, is not who it should be, or the connection dropped."""


class ProtocolError(WebSocketError):
    """The server does not keep to RFC 6455."""


class Refused(WebSocketError):
    """The server answered with an HTTP status and not with a WebSocket."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


def _xor_tables() -> list[bytes]:
    every = int.from_bytes(bytes(range(256)), "little")
    ones = int.from_bytes(b"\x01" * 256, "little")
    return [(every ^ (key * ones)).to_bytes(256, "little") for key in range(256)]


XOR = _xor_tables()
"""By a byte of the masking key: what it makes of each byte."""


def mask(data: bytearray, start: int, key: bytes) -> None:
    """Put what begins at an offset under a masking key of four bytes, a quarter at a time: no loop over bytes."""
    for place in range(4):
        quarter = slice(start + place, None, 4)
        data[quarter] = data[quarter].translate(XOR[key[place]])


def add_frame(out: bytearray, opcode: int, payload: bytes) -> None:
    """Append a whole message, or a control frame, as a client sends it."""
    size, key = len(payload), os.urandom(4)
    out.append(0x80 | opcode)
    if size < 126:
        out.append(0x80 | size)
    elif size < 1 << 16:
        out += b"\xfe" + size.to_bytes(2, "big")
    else:
        out += b"\xff" + size.to_bytes(8, "big")
    out += key
    start = len(out)
    out += payload
    mask(out, start, key)


class Frames:
    """Cuts what comes from a server into messages; nothing here waits or sends.

    close_code is the code of the server's close once that has come, ping what an unanswered ping asks to be said.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = bytearray(max(4 * READ, 2 * len(data)))
        self.buffer[: len(data)] = data
        self.begin, self.end = 0, len(data)
        self.close_code = 0
        self.ping: bytes | None = None
        self._part: bytes | None = None

    def room(self) -> memoryview:
        """Return where the next bytes go; `end` has to be moved by as many as came."""
        if len(self.buffer) - self.end < READ:
            rest = self.buffer[self.begin : self.end]
            self.buffer[: len(rest)] = rest
            self.begin, self.end = 0, len(rest)
        return memoryview(self.buffer)[self.end : self.end + READ]

    def messages(self) -> Iterator[memoryview | bytes]:
        """Yield the whole messages that have come. One is good until the next is asked for. Raises ProtocolError."""
        while not self.close_code:
            found = self._frame()
            if found is None:
                return
            final, opcode, payload = found
            if opcode >= CLOSE:
                self._control(opcode, bytes(payload))
            elif (opcode == CONTINUATION) != (self._part is not None) or opcode == TEXT:
                raise ProtocolError(f"a frame of type {opcode} out of place")
            elif final and self._part is None:
                yield payload
            else:
                whole = (self._part or b"") + payload
                if len(whole) > LARGEST:
                    raise ProtocolError(f"a message of more than {LARGEST} bytes")
                self._part = None if final else whole
                if final:
                    yield whole

    def _frame(self) -> tuple[bool, int, memoryview] | None:
        """Return the next frame's end mark, opcode and payload, None where it has not come whole."""
        buffer, start, there = self.buffer, self.begin, self.end - self.begin
        if there < 2:
            return None
        first, size = buffer[start], buffer[start + 1]
        opcode, final, head = first & 0x0F, bool(first & 0x80), 2
        if first & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ProtocolError(f"a frame that begins with {first:#04x}")
        if size & 0x80:
            raise ProtocolError("a frame that a server masked")
        if opcode >= CLOSE and (size > 125 or not final):
            raise ProtocolError("a control frame in parts, or with more than 125 bytes")
        if size > 125:
            head += 2 if size == 126 else 8
            if there < head:
                return None
            size = int.from_bytes(buffer[start + 2 : start + head], "big")
        if size > LARGEST:
            raise ProtocolError(f"a message of more than {LARGEST} bytes")
        if there < head + size:
            return None
        self.begin = start + head + size
        return final, opcode, memoryview(buffer)[start + head : self.begin]

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            # Only the last of several needs an answer, see section 5.5.3: no more than one is ever kept.
            self.ping = payload
        elif opcode == CLOSE:
            if len(payload) == 1:
                raise ProtocolError("a close code cut short")
            self.close_code = int.from_bytes(payload[:2], "big") or NO_CODE


class WebSocket:
    """An open connection. Nothing here waits: `fileno` is for poll(2).

    `blocked` says that the connection takes nothing now, `close_code` is the code of the server's close, 0 before.
    """

    def __init__(self, connection: socket.socket, rest: bytes = b"") -> None:
        connection.setblocking(False)
        self._socket = connection
        self._frames = Frames(rest)
        self._out = memoryview(b"")
        self.blocked = False
        self.closing = False

    def fileno(self) -> int:
        """Return the connection's descriptor."""
        return self._socket.fileno()

    @property
    def close_code(self) -> int:
        """The code with which the server closed, 0 while it has not."""
        return self._frames.close_code

    @property
    def pending(self) -> bool:
        """Whether there is more to read that poll(2) does not see."""
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def read(self) -> bool:
        """Take in what has come; return False where nothing has. Raises NetworkError when the connection is gone."""
        try:
            with self._frames.room() as room:
                count = self._socket.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            raise NetworkError(said(error)) from None
        if not count:
            raise NetworkError("the connection dropped")
        self._frames.end += count
        return True

    def messages(self) -> Iterator[memoryview | bytes]:
        """Yield the messages that were read. One is good until the next is asked for. Raises ProtocolError."""
        return self._frames.messages()

    def flush(self) -> bool:
        """Send what is left, and the answer to a ping; return whether all is gone. Raises NetworkError."""
        if not self._out and self._frames.ping is not None and not self.closing:
            pong = bytearray()
            add_frame(pong, PONG, self._frames.ping)
            self._out, self._frames.ping = memoryview(pong), None
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self.blocked = True
                return False
            except OSError as error:
                raise NetworkError(said(error)) from None
            self._out = self._out[sent:]
        self.blocked = False
        return True

    def send(self, *messages: bytes) -> None:
        """Send messages, after `flush` returned True. Raises NetworkError."""
        out = bytearray()
        for message in messages:
            add_frame(out, BINARY, message)
        self._out = memoryview(out)
        self.flush()

    def close(self, code: int) -> None:
        """Send a close, after `flush` returned True; nothing can be sent after it. Raises NetworkError."""
        self.closing = True
        out = bytearray()
        add_frame(out, CLOSE, code.to_bytes(2, "big"))
        self._out = memoryview(out)
        self.flush()

    def drop(self) -> None:
        """End the connection."""
        self._socket.close()


class Deadline:
    """So many seconds for all that is done before a WebSocket is open."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return how many seconds are left. Raises NetworkError where none are."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise NetworkError(f"no answer within {self.seconds:g} s")
        return left


def dial(
    url: str,
    headers: Mapping[str, str],
    subprotocol: str,
    context: ssl.SSLContext | None,
    seconds: float,
) -> WebSocket:
    """Open a WebSocket, through the proxy that the environment names. Raises WebSocketError.

    url begins with wss, which takes the context, or with ws.
    """
    parts, deadline = urlsplit(url), Deadline(seconds)
    host, secure = parts.hostname or "", parts.scheme == "wss"
    connection = None
    try:
        port = parts.port or (443 if secure else 80)
        connection = _connection(host, port, proxy_of(secure, host, port, os.environ), deadline)
        if secure and context:
            connection.settimeout(deadline.left())
            connection = context.wrap_socket(connection, server_hostname=_name(host))
        path = f"{parts.path or '/'}?{parts.query}"
        where = host if parts.port is None else f"{host}:{port}"
        return _upgraded(connection, path, {"Host": where, **headers}, subprotocol, deadline)
    except BaseException as error:
        if connection:
            connection.close()
        if isinstance(error, TimeoutError):
            raise NetworkError(f"no answer within {seconds:g} s") from None
        if isinstance(error, OSError | ValueError):
            raise NetworkError(said(error)) from None
        raise


def said(error: OSError | ValueError) -> str:
    """Return what an error of a connection says, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"a certificate that is not to be trusted ({error.verify_message.rstrip('.')})"
    if isinstance(error, ssl.SSLError):
        return f"no TLS ({(error.reason or str(error)).lower().replace('_', ' ')})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def proxy_of(secure: bool, host: str, port: int, environment: Mapping[str, str]) -> str:
    """Return the URL of the proxy through which a host is reached, "" for none.

    HTTP_PROXY in capitals is not looked at, as in curl: a web server sets it to what a client's header says.
    """
    names = ("https_proxy", "HTTPS_PROXY") if secure else ("http_proxy",)
    found = next((environment[name] for name in names if environment.get(name)), "")
    without = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if not found or any(_matches(entry, host, port) for entry in without.split(",")):
        return ""
    return found if "://" in found else f"http://{found}"


def _matches(entry: str, host: str, port: int) -> bool:
    entry = entry.strip().lower()
    if "/" in entry:
        import ipaddress

        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    name, _colon, only = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
    if only and only != str(port):
        return False
    name = name.removeprefix("*").removeprefix(".")
    return entry == "*" or (bool(name) and (host == name or host.endswith(f".{name}")))


def _connection(host: str, port: int, proxy: str, deadline: Deadline) -> socket.socket:
    if not proxy:
        return _connected(host, port, deadline)
    parts = urlsplit(proxy)
    name = f"the proxy {parts.hostname}:{parts.port or 80}"
    if parts.scheme != "http" or not parts.hostname:
        raise NetworkError(f"a proxy of type {parts.scheme}, and only http:// can be used")
    try:
        connection = _connected(parts.hostname, parts.port or 80, deadline)
    except OSError as error:
        raise NetworkError(f"{name}: {said(error)}") from None
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n"
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        head += f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"
    try:
        connection.sendall(f"{head}\r\n".encode())
        status, _headers, rest = _answer(connection, deadline)
        if status // 100 != 2 or rest:
            raise NetworkError(f"HTTP {status} from {name}")
    except BaseException:
        connection.close()
        raise
    return connection


def _connected(host: str, port: int, deadline: Deadline) -> socket.socket:
    where = (_name(host), port)
    connection = socket.create_connection(where, deadline.left())  # type: ignore[arg-type]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _name(host: str) -> bytes:
    """Return a host's name as it is looked up; a str would be put into IDNA, whose module takes 5 ms to import."""
    return host.encode() if host.isascii() else host.encode("idna")


def _upgraded(
    connection: socket.socket,
    path: str,
    headers: Mapping[str, str],
    subprotocol: str,
    deadline: Deadline,
) -> WebSocket:
    key = base64.b64encode(os.urandom(16))
    lines = [f"GET {path} HTTP/1.1"]
    given = {
        **headers,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": subprotocol,
    }
    lines += [f"{name}: {value}" for name, value in given.items()]
    connection.settimeout(deadline.left())
    connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    status, answered, rest = _answer(connection, deadline)
    if status != 101:
        raise Refused(status)
    wanted = base64.b64encode(hashlib.sha1(key + ACCEPT, usedforsecurity=False).digest()).decode()
    if answered.get("sec-websocket-accept") != wanted:
        raise ProtocolError("an answer that is not to our handshake (Sec-WebSocket-Accept)")
    if answered.get("sec-websocket-protocol", subprotocol) != subprotocol:
        raise ProtocolError(f"subprotocol {answered['sec-websocket-protocol']!r}")
    if answered.get("sec-websocket-extensions"):
        raise ProtocolError("an extension that was not asked for")
    return WebSocket(connection, rest)


def _answer(connection: socket.socket, deadline: Deadline) -> tuple[int, dict[str, str], bytes]:
    """Read the head of an HTTP answer; return status, headers by name in small letters, and what came after."""
    data = b""
    while b"\r\n\r\n" not in data:
        connection.settimeout(deadline.left())
        more = connection.recv(READ)
        if not more:
            raise NetworkError("a connection that dropped before an answer")
        data += more
        if len(data) > HEAD_LIMIT:
            raise ProtocolError(f"an answer of more than {HEAD_LIMIT} bytes")
    head, _blank, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _space, told = first.partition(" ")
    if not version.startswith("HTTP/1.") or not told[:3].isdigit():
        raise ProtocolError("an answer that is not HTTP/1.1")
    pairs = (line.partition(":") for line in lines)
    return int(told[:3]), {name.strip().lower(): value.strip() for name, _c, value in pairs}, rest
