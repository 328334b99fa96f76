# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the server starts, and what it refuses."""

from __future__ import annotations

import socket
import ssl
import stat
from pathlib import Path

import pytest

from sandbox.server import tls
from sandbox.server.__main__ import main
from sandbox.server.batch import split
from sandbox.server.errors import ApiError
from sandbox.server.oauth import TokenError, Tokens


def test_a_taken_port_is_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ["--name", "t", "--state", str(tmp_path), "--backend", "records"]
        code = main([*options, "--compute-port", port, "--relay-port", "0", "--proxy-port", "0"])
    assert code == 1
    output = capsys.readouterr()
    assert output.out == ""
    lines = [line for line in output.err.splitlines() if "INFO" not in line]
    assert len(lines) == 1 and lines[0].startswith("sandbox t cannot start: ")
    assert port in lines[0]
    # The files belong to whoever has the port.
    assert list(tmp_path.iterdir()) == []


def test_real_machines_need_a_root_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--name", "t", "--state", str(tmp_path), "--compute-port", "0", "--relay-port", "0"]
    assert main([*options, "--proxy-port", "0"]) == 1
    assert "--root" in capsys.readouterr().err


def test_the_relays_certificate_is_for_loopback_and_its_key_is_secret(tmp_path: Path) -> None:
    server = tls.make(tmp_path)
    assert stat.S_IMODE((tmp_path / "relay.key").stat().st_mode) == 0o600
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    for name in ("127.0.0.1", "localhost", "www.googleapis.com"):
        _handshake(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(server, client, "example.com")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    pipes = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(pipes[0], pipes[1], server_side=True),
        client.wrap_bio(pipes[1], pipes[0], server_hostname=name),
    ]
    for _unused in range(6):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ends[1].do_handshake()


def test_credentials_are_for_their_owner_only(tmp_path: Path) -> None:
    tokens = Tokens("http://127.0.0.1:1/token")
    tokens.write(tmp_path)
    for name in ("credentials.json", "access_token"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert tokens.good(f"Bearer {(tmp_path / 'access_token').read_text()}")
    assert not tokens.good(None)
    assert not tokens.good("Bearer ")
    assert not tokens.good("Basic abc")


def test_a_token_needs_an_assertion_signed_with_our_key() -> None:
    tokens = Tokens("http://127.0.0.1:1/token")
    with pytest.raises(TokenError, match="Invalid grant_type"):
        tokens.issue({"grant_type": "password"})
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    with pytest.raises(TokenError, match="Signature"):
        tokens.issue({"grant_type": grant, "assertion": "e30.e30.AAAA"})


def test_a_batch_is_split_into_its_calls() -> None:
    body = (
        b"--x\r\nContent-Type: application/http\r\nContent-ID: <a+0>\r\n\r\n"
        b"GET /compute/v1/projects/p?alt=json HTTP/1.1\r\nHost: h\r\n\r\n\r\n"
        b"--x\r\nContent-Type: application/http\r\nContent-ID: <a+1>\r\n\r\n"
        b'POST /compute/v1/projects/q HTTP/1.1\r\n\r\n{"name": "n"}\r\n--x--\r\n'
    )
    calls = split("multipart/mixed; boundary=x", body)
    assert [call[:3] for call in calls] == [
        ("<a+0>", "GET", "/compute/v1/projects/p?alt=json"),
        ("<a+1>", "POST", "/compute/v1/projects/q"),
    ]
    assert calls[1][3].strip() == b'{"name": "n"}'


def test_what_is_no_batch_is_refused() -> None:
    with pytest.raises(ApiError, match="multipart/mixed"):
        split("text/plain", b"hello")
