# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a machine that failed holds no secret, is its owner's alone, and is all that is known."""

from __future__ import annotations

import base64
import json
import re
import stat
from pathlib import Path

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _burst_directory, _diagnostics
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._spec import BURST
from hypothesis import given
from hypothesis import strategies as st

KEY = bytes(range(7, 135))
Z85 = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
CERT = f'#  ZeroMQ CURVE\nmetadata\n    name = "lead"\ncurve\n    secret-key = "{Z85}"\n'
SECRETS = [base64.b64encode(KEY).decode(), base64.b64encode(CERT.encode()).decode()]
FINDING = {
    "host": "a-1",
    "stage": "munge",
    "cause": f"it says '{Z85}'",
    "remedy": "see",
    "below": [],
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f'    secret-key = "{Z85}"', '    secret-key = "(hidden)"'),
        ("Authorization: Bearer abcdefghij.k_l-m", "Authorization: Bearer (hidden)"),
        (
            '{"access_token": "abc", "expires_in": 3}',
            '{"access_token": "(hidden)", "expires_in": 3}',
        ),
        ("token ya29.a0AfH6SMB_x-y was", "token (hidden) was"),
        ("jwt eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln end", "jwt (hidden) end"),
        ("MUNGE:AwQDAACkXy+w==:", "MUNGE:(hidden):"),
        (
            "a -----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\nbnNz\n-----END OPENSSH PRIVATE KEY----- z",
            "a -----BEGIN OPENSSH PRIVATE KEY-----(hidden)-----END OPENSSH PRIVATE KEY----- z",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "-----BEGIN PRIVATE KEY-----(hidden)"),
        (
            "munged: wanted a key of 32 bytes in /etc/munge/munge.key, found 3",
            "munged: wanted a key of 32 bytes in /etc/munge/munge.key, found 3",
        ),
    ],
)
def test_what_is_a_secret_by_its_form_is_hidden_and_nothing_else(text: str, wanted: str) -> None:
    assert _diagnostics.scrubbed(text) == wanted


@given(st.binary(max_size=5), st.binary(max_size=5), st.sampled_from([KEY, Z85.encode()]))
def test_a_known_secret_is_found_wherever_in_a_longer_base64_it_begins(
    before: bytes, after: bytes, secret: bytes
) -> None:
    text = f"x {base64.b64encode(before + secret + after).decode()} y"
    shown = _diagnostics.scrubbed(text, SECRETS)
    assert base64.b64encode(secret).decode()[8:24] not in shown
    assert len(shown) < 40 and shown[:2] == "x " and shown[-2:] == " y"


@pytest.mark.parametrize(
    "text",
    [
        f"key={KEY.hex()}",
        f"key={KEY.hex().upper()}",
        f"key={SECRETS[0]}",
        f"key={SECRETS[0][20:60]}",
        f"broker: cannot use '{Z85}'",
        f"broker: cannot use '{Z85[4:30]}",
        "\n".join(SECRETS[0][at : at + 64] for at in range(0, len(SECRETS[0]), 64)),
    ],
)
def test_a_known_secret_is_found_in_other_forms_cut_off_and_in_lines(text: str) -> None:
    shown = _diagnostics.scrubbed(text, SECRETS)
    windows = {text[at : at + 16] for at in range(len(text) - 15) if "\n" not in text[at : at + 16]}
    inner = [
        part for part in windows if part in "".join((KEY.hex(), KEY.hex().upper(), SECRETS[0], Z85))
    ]
    assert inner and not any(part in shown for part in inner)
    assert _diagnostics.HIDDEN in shown


def test_other_text_stays_as_it_is() -> None:
    text = "flux-broker[12]: broker.err[1]: /usr/lib/x86_64-linux-gnu/flux/modules/resource.so: 0123456789abcdef\n"
    assert _diagnostics.scrubbed(text, [*SECRETS, ""]) == text


def test_each_host_has_its_finding_and_its_logs_without_what_a_terminal_acts_on() -> None:
    logs = {"a-1": {"journal": f"one\x1b[2J\ntwo {SECRETS[0]}", "serial": "boot\r\n"}}
    reports = {"a-1": {"failure": "stage munge", "log": [f"secret {Z85}"]}}
    made = _diagnostics.files(
        ["a-1", "a-2"], [{**FINDING, "below": ["a-2"]}], reports, logs, SECRETS
    )
    assert sorted(made) == ["a-1.journal.log", "a-1.json", "a-1.serial.log", "a-2.json"]
    assert made["a-1.journal.log"] == "one\\x1b[2J\ntwo (hidden)\n"
    assert made["a-1.serial.log"] == "boot\n"
    told = json.loads(made["a-1.json"])
    assert told["evidence"]["log"] == ["secret (hidden)"]
    assert told["findings"][0]["cause"] == "it says '(hidden)'"
    assert json.loads(made["a-2.json"])["findings"][0]["stage"] == "munge", "it is below that one"


def test_files_are_for_their_owner_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    folder = _diagnostics.write(str(top), "b", "20261126-160500", {"a.json": "{}\n"})
    assert folder == top / "b/20261126-160500"
    assert (folder / "a.json").read_text() == "{}\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (top, folder, folder.parent)} == {0o700}
    assert stat.S_IMODE((folder / "a.json").stat().st_mode) == 0o600
    (top / "c").symlink_to(tmp_path)
    with pytest.raises(BurstError, match=r"wanted a directory of uid \d+, found a symbolic link"):
        _diagnostics.write(str(top), "c", "20261126-160500", {})


def test_no_burst_s_directory_is_where_diagnostics_are() -> None:
    assert not re.fullmatch(BURST, _burst_directory.DIAGNOSTICS)
