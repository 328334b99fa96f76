# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What broker, munge or systemd would not take is refused before it replaces anything, with file, line and remedy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _file_checks
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._files import File

from sandbox.site import SYSTEM, UNIT, curve_certificate

CERT = curve_certificate("test").decode()
GOOD_UNIT = UNIT.format(options="\\\n  -Srundir=/run/flux \\\n  # why\n  -Sbroker.rc2_none")
TOML = "/etc/flux/system/conf.d/system.toml"
CERT_PATH = "/etc/flux/system/curve.cert"
KEY = "/etc/munge/munge.key"
SERVICE = "/etc/systemd/system/flux.service"
DROP_IN = f"{SERVICE}.d/limits.conf"


def problems(
    path: str, content: str | bytes, mode: int = 0o600, owner: str = "flux", *more: File
) -> list[str]:
    data = content.encode() if isinstance(content, str) else content
    file = File(path, data, owner, "root", mode)
    return list(_file_checks.problems([file, *more], "flux", "munge"))


@pytest.mark.parametrize(
    ("path", "content", "mode", "owner"),
    [
        (TOML, SYSTEM, 0o644, "root"),
        (CERT_PATH, CERT, 0o600, "flux"),
        (CERT_PATH, CERT, 0o400, "flux"),
        (KEY, bytes(32), 0o400, "munge"),
        (KEY, bytes(1024), 0o600, "munge"),
        (SERVICE, GOOD_UNIT, 0o644, "root"),
        (DROP_IN, "# x\n[Service]\nLimitMEMLOCK=infinity\nEnvironment=A=[1]\n", 0o644, "root"),
        ("/etc/profile.d/flux.sh", "anything at all [", 0o644, "root"),
        ("/etc/flux/system/extra.d/x.conf", "anything at all [", 0o644, "root"),
    ],
)
def test_what_is_good_passes(path: str, content: str | bytes, mode: int, owner: str) -> None:
    assert problems(path, content, mode, owner) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = 1\nb = [1, 2\n", f"{TOML}, line 3: wanted TOML, found 'Unclosed array"),
        ("a = 1\n[b]\nc = 1 2\n", f"{TOML}, line 3: wanted TOML, found 'Expected newline"),
        ('a = 1\n[b]\nc = "x\n', f"{TOML}, line 3: wanted TOML, found 'Illegal character"),
        (b"a = 1\nb = '\xff'\n", f"{TOML}, line 2: wanted TOML, found 'a byte that is not UTF-8'"),
    ],
)
def test_what_is_no_toml_is_named_with_its_line(content: str | bytes, said: str) -> None:
    [found] = problems(TOML, content)
    assert found.startswith(said)
    assert found.endswith("correct that line of what is rendered there")


@pytest.mark.skipif(not shutil.which("flux"), reason="no flux on this machine")
@pytest.mark.real_flux
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SYSTEM, []),
        (
            "a = 1\n[b]\nc = 1 2\n",
            [f"{TOML}, line 3: wanted TOML, found 'extra chars after value'"],
        ),
        # It reads this one without end.
        ("a = 1\nb = [1, 2\n", [f"{TOML}, line unknown: wanted TOML, found 'an array, a table"]),
    ],
)
def test_an_older_python_asks_flux_and_does_not_wait_for_it_without_end(
    monkeypatch: pytest.MonkeyPatch, content: str, said: list[str]
) -> None:
    monkeypatch.setattr(_file_checks, "tomllib", None)
    found = problems(TOML, content)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


PUBLIC, SECRET = CERT.split('"')[3], CERT.split('"')[5]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1: wanted public-key in section curve by its end"),
        ("x\n", "line 1: wanted public-key in section curve by its end"),
        (CERT.replace("secret-key", "private-key"), "line 8: wanted secret-key in section curve"),
        (CERT.replace(SECRET, SECRET[:-1]), "line 8: wanted 40 Z85 characters as secret-key"),
        (CERT.replace(PUBLIC, "~" * 40), "line 7: wanted 40 Z85 characters as public-key"),
        (CERT.replace("metadata\n", "metadata\n    name\n"), 'line 5: wanted key = "value"'),
        (CERT.replace("curve\n", "other\n"), "line 8: wanted public-key in section curve"),
    ],
)
def test_what_is_no_curve_certificate_is_named_and_no_key_is_told(content: str, said: str) -> None:
    found = problems(CERT_PATH, content)
    assert found[0].startswith(f"{CERT_PATH}, {said}")
    assert not any(key[:-1] in text for text in found for key in (PUBLIC, SECRET))


def test_a_certificate_that_flux_made_is_one(tmp_path: Path) -> None:
    if not shutil.which("flux"):
        pytest.skip("no flux on this machine")
    subprocess.run(["flux", "keygen", str(tmp_path / "curve.cert")], check=True)
    assert problems(CERT_PATH, (tmp_path / "curve.cert").read_bytes()) == []


@pytest.mark.parametrize(
    ("path", "content", "mode", "owner", "said"),
    [
        (CERT_PATH, CERT, 0o640, "flux", "as the broker demands, found 0640: use 0600"),
        (CERT_PATH, CERT, 0o600, "root", "wanted owner flux, as whom the broker runs, found root"),
        (KEY, bytes(31), 0o400, "munge", "wanted a munge key of 32 to 1024 bytes, found 31"),
        (KEY, bytes(1025), 0o400, "munge", "wanted a munge key of 32 to 1024 bytes, found 1025"),
        (KEY, bytes(99), 0o440, "munge", "as munged demands, found 0440: use 0400"),
        (KEY, bytes(99), 0o402, "munge", "as munged demands, found 0402: use 0400"),
        (KEY, bytes(99), 0o400, "root", "wanted owner munge, as whom munged runs, found root"),
    ],
)
def test_modes_sizes_and_owners_are_what_broker_and_munge_demand(
    path: str, content: str | bytes, mode: int, owner: str, said: str
) -> None:
    [found] = problems(path, content, mode, owner)
    assert found.startswith(f"{path}: ")
    assert said in found


def test_the_certificate_is_what_the_configuration_calls_so() -> None:
    config = File(TOML, SYSTEM.replace(CERT_PATH, "/etc/our/key").encode(), "root", "root", 0o644)
    [found] = problems("/etc/our/key", "x = 1", 0o600, "flux", config)[:1]
    assert "of a CURVE certificate" in found


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        (SERVICE, "ExecStart=/bin/true\n", ", line 1: wanted a [Section] before the first"),
        (SERVICE, "[Service]\nnonsense\n", ", line 2: wanted [Section] or Key=value"),
        (SERVICE, "[Service\nA=b\n", ", line 1: wanted [Section] or Key=value"),
        (SERVICE, "[Service]\nType=notify\n", ": wanted ExecStart in [Service], found none"),
        (SERVICE, "[Service]\nExecStart=/bin/a \\\n", ": wanted its last line ended"),
        (DROP_IN, "", ": wanted a unit, found no setting in it"),
        (DROP_IN, "LimitCORE=0\n", ", line 1: wanted a [Section] before the first"),
        (
            "/etc/systemd/system/flux-start.service",
            GOOD_UNIT,
            ": wanted a unit whose name does not begin with flux-, found flux-start.service",
        ),
    ],
)
def test_what_is_no_unit_is_named_with_its_line(path: str, content: str, said: str) -> None:
    [found] = problems(path, content)
    assert found.startswith(f"{path}{said}")


@pytest.mark.parametrize("path", ["etc/a", "/etc/../root/a", "/etc//a", "/etc/a/"])
def test_a_path_must_be_absolute_and_plain(path: str) -> None:
    assert any("wanted an absolute path without" in text for text in problems(path, ""))


def test_a_file_that_is_named_twice_is_refused() -> None:
    twice = File("/etc/a", b"", "root", "root", 0o644)
    [found] = problems("/etc/a", "b", 0o644, "root", twice)
    assert "wanted one content, found two" in found


def test_all_that_is_wrong_is_told_at_once_each_in_a_line_with_its_stage() -> None:
    files = [
        File(TOML, b"a", "root", "root", 0o644),
        File(KEY, b"short", "munge", "munge", 0o444),
    ]
    with pytest.raises(BurstError) as caught:
        _file_checks.check(files, "flux", "munge")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("stage file: /etc/") and line.endswith(".") for line in lines)
    assert caught.value.facts == {"stage": "file"}
