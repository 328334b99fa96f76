# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our tunnel as a program and the sandbox's relay understand each other; what fails is one line and an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from compute_server import ComputeServer
from connect_proxy import proxying
from echo_relay import EchoRelay
from tunnel_program import command, environment, options, running

SIZE = 3_000_000


def talk(process: subprocess.Popen[bytes], data: bytes) -> bytes:
    """Say data to the machine that echoes; return what comes back, once all has."""
    assert process.stdin and process.stdout
    saying = threading.Thread(target=process.stdin.write, args=(data,), daemon=True)
    saying.start()
    heard = bytearray()
    while len(heard) < len(data) and (some := process.stdout.read(1 << 16)):
        heard += some
    saying.join(5)
    return bytes(heard)


@pytest.mark.parametrize("size", [1, 16384, 16385, SIZE])
def test_data_goes_there_and_back(echo_relay: EchoRelay, size: int) -> None:
    data = os.urandom(size)
    with running(echo_relay) as process:
        assert talk(process, data) == data
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


def test_the_target_s_end_is_ours(echo_relay: EchoRelay) -> None:
    with running(echo_relay) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"and quit")
        assert process.stdout.read(1 << 16) == b"and quit"
        assert process.stdout.read(1) == b""
        process.stdin.close()
        assert process.wait(10) == 0


def test_an_interrupt_ends_it_without_a_word(echo_relay: EchoRelay) -> None:
    with running(echo_relay) as process:
        assert talk(process, b"up") == b"up"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr and process.stderr.read() == b""


def run(
    given: dict[str, str], env: dict[str, str], said: str = "SSH-2.0-test\r\n"
) -> subprocess.CompletedProcess[str]:
    """Run a tunnel that is told to end at once."""
    return subprocess.run(
        command(given),
        env=env,
        input=said,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"instance": "deaf-0"}, 3, "close code 4003: the machine does not listen there"),
        ({"port": "80"}, 3, "close code 4003: the machine does not listen there"),
        ({"instance": "nobody"}, 3, "close code 4047: there is no such machine"),
        ({"endpoint": "wss://127.0.0.1:9"}, 5, "through wss://127.0.0.1:9, found Connection ref"),
        ({"endpoint": "wss://no.such.invalid"}, 5, "through wss://no.such.invalid, found "),
        ({"ca-file": "/nonexistent.pem"}, 2, "burst_iap_ca_file"),
    ],
)
def test_the_program_fails_with_one_line_there_and_in_its_error_file(
    echo_relay: EchoRelay, tmp_path: Path, changes: dict[str, str], code: int, said: str
) -> None:
    given = {**options(echo_relay), "error-file": str(tmp_path / "error"), **changes}
    done = run(given, environment(echo_relay.access_token))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.startswith("iap: wanted ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "error").read_text() == done.stderr


def test_a_token_that_is_not_good_is_told(echo_relay: EchoRelay) -> None:
    done = run(options(echo_relay), environment("ya29.made-up"))
    assert done.returncode == 4
    assert "HTTP 401: Google does not take the access token" in done.stderr
    assert "ya29" not in done.stderr


def test_a_relay_that_another_authority_vouches_for_is_not_told_the_token(
    echo_relay: EchoRelay, compute_server: ComputeServer
) -> None:
    given = {**options(echo_relay), "ca-file": str(compute_server.ca_file)}
    done = run(given, environment(echo_relay.access_token))
    assert done.returncode == 5
    assert "found a certificate that is not to be trusted (" in done.stderr


def test_a_relay_of_another_name_is_not_told_the_token(echo_relay: EchoRelay) -> None:
    with proxying(echo_relay.iap_endpoint) as proxy:
        env = environment("ya29.made-up", HTTPS_PROXY=f"http://127.0.0.1:{proxy.port}")
        done = run({**options(echo_relay), "endpoint": "wss://relay.example"}, env)
    assert proxy.asked == ["CONNECT relay.example:443 HTTP/1.1"]
    assert done.returncode == 5
    assert "found a certificate that is not to be trusted (" in done.stderr


@pytest.mark.parametrize("user", ["", "me:p@ss word%"])
def test_a_proxy_leads_to_the_relay(echo_relay: EchoRelay, user: str) -> None:
    with proxying(echo_relay.iap_endpoint, user) as proxy:
        login = f"{quote(user, safe=':')}@" if user else ""
        url = f"http://{login}127.0.0.1:{proxy.port}"
        env = environment(echo_relay.access_token, HTTPS_PROXY=url)
        with running(echo_relay, env, endpoint="wss://tunnel.cloudproxy.app") as process:
            assert talk(process, b"there and quit") == b"there and quit"
            assert process.wait(10) == 0
    assert proxy.asked == ["CONNECT tunnel.cloudproxy.app:443 HTTP/1.1"]


def test_a_proxy_that_does_not_know_us_is_told_without_the_password(echo_relay: EchoRelay) -> None:
    with proxying(echo_relay.iap_endpoint, "me:right") as proxy:
        env = environment(
            echo_relay.access_token, HTTPS_PROXY=f"http://me:wrong@127.0.0.1:{proxy.port}"
        )
        done = run(options(echo_relay), env)
    assert done.returncode == 5
    assert f"found HTTP 407 from the proxy 127.0.0.1:{proxy.port}" in done.stderr
    assert "wrong" not in done.stderr


def test_no_proxy_is_asked_where_none_shall_be(echo_relay: EchoRelay) -> None:
    env = environment(
        echo_relay.access_token, HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="localhost,127.0.0.0/8"
    )
    assert run(options(echo_relay), env, "quit").returncode == 0


def with_credentials(server: ComputeServer, tmp_path: Path) -> dict[str, str]:
    """Return the options of a tunnel that has to fetch its token."""
    return {
        "project": server.project,
        "zone": "us-central1-a",
        "instance": "nobody",
        "endpoint": server.iap_endpoint,
        "ca-file": str(server.ca_file),
        "credentials-file": str(server.credentials_file),
        "directory": str(tmp_path),
    }


def test_tunnels_that_start_at_once_ask_for_one_token(
    compute_server: ComputeServer, tmp_path: Path
) -> None:
    given = with_credentials(compute_server, tmp_path)
    log = compute_server.state / "requests.jsonl"
    before = log.read_text().count('"/token"')
    many = [
        subprocess.Popen(
            command(given), env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _unused in range(8)
    ]
    for one in many:
        assert b"close code 4047" in one.communicate(timeout=30)[1]
    assert log.read_text().count('"/token"') == before + 1


def test_a_kept_token_that_the_relay_does_not_take_is_fetched_anew(
    compute_server: ComputeServer, tmp_path: Path
) -> None:
    given = with_credentials(compute_server, tmp_path)
    assert run(given, environment()).returncode == 3
    [kept] = [it for it in tmp_path.glob("token-*") if not it.suffix]
    kept.write_text("99999999999\nya29.revoked\n")
    assert "close code 4047" in run(given, environment()).stderr
    assert "ya29.revoked" not in kept.read_text()


def test_it_imports_nothing_that_starts_slowly() -> None:
    """It is started once for each machine; tests/bench measures what that costs."""
    python, *words = command({})
    done = subprocess.run(
        [python, "-X", "importtime", *words, "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "select" in imported
    assert not imported & {"asyncio", "aiohttp", "dataclasses", "google.auth", "json", "subprocess"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--project=p", "--zone=z", "--instance", "i"], "no --endpoint"),
        (["--zone"], "no value of --zone"),
        (["--zone=z", "--verbose"], "'--verbose'"),
        (["start", "b-001"], "'start'"),
        (
            ["--project=p", "--zone=z", "--instance=i", "--endpoint=wss://e", "--port=ssh"],
            "--port ssh",
        ),
    ],
)
def test_a_wrong_command_line_is_told(words: list[str], found: str) -> None:
    done = subprocess.run([*command({}), *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"iap: wanted the options of a tunnel, found {found}: see --help.\n"


def test_it_says_what_it_can_do_and_how_it_ends() -> None:
    done = subprocess.run([*command({}), "--help"], capture_output=True, text=True, check=True)
    for told in ("--listen [HOST:]PORT", "HTTPS_PROXY", "iap.tunnelInstances.accessViaIAP"):
        assert told in done.stdout
