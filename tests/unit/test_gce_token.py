# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One access token serves all tunnels: fetched once, kept for its owner alone, fetched anew when it is not good."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_token
from ansible_collections.flux.burst.plugins.module_utils._gce_token import TokenError, Tokens

Made = Callable[..., Tokens]


class Counting(Tokens):
    """Fetches numbered tokens, slowly."""

    fetched: list[str]
    lifetime = 3600.0

    def _fetch(self) -> tuple[str, str]:
        time.sleep(0.1)
        self.fetched.append(f"token-{len(self.fetched) + 1}")
        return str(int(time.time() + self.lifetime)), self.fetched[-1]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Make one of many processes' tokens, which count together what they fetch."""
    for name in (*_gce_token.TOKEN_VARIABLES, *_gce_token.IMPERSONATE_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    fetched: list[str] = []
    key = tmp_path / "key.json"
    key.write_text("{}")

    def make(path: Path = key, impersonate: str | None = None, place: str = "ours") -> Tokens:
        (tmp_path / place).mkdir(mode=0o700, exist_ok=True)
        one = Counting(str(path), impersonate, str(tmp_path / place))
        one.fetched = fetched
        return one

    return make


def test_the_environment_s_token_goes_first_and_into_no_file(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_BURST_ACCESS_TOKEN", "given")
    assert made().get() == "given"
    assert made().get("given") == "given", "there is no other"
    assert list((tmp_path / "ours").iterdir()) == []


def test_a_directory_that_is_gone_is_not_brought_back(made: Made, tmp_path: Path) -> None:
    tokens = made()
    tokens.get()
    shutil.rmtree(tmp_path / "ours")
    with pytest.raises(TokenError, match="No such file or directory"):
        tokens.get()
    assert not (tmp_path / "ours").exists()


def test_the_default_directory_is_made_for_its_owner_alone(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gce_token, "DIRECTORY", str(tmp_path / "home/.ansible/flux_burst"))
    fetched = made().fetched
    tokens = Counting(str(tmp_path / "key.json"))
    tokens.fetched = fetched
    assert tokens.get() == "token-1"
    assert stat.S_IMODE((tmp_path / "home/.ansible/flux_burst").stat().st_mode) == 0o700


def test_a_token_of_the_environment_is_not_who_is_impersonated(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLUX_BURST_ACCESS_TOKEN", "given")
    assert made(impersonate="robot@p").get() == "token-1"
    monkeypatch.setenv("FLUX_BURST_ACCESS_TOKEN", "another")
    assert made(impersonate="robot@p").get() == "token-2", "whoever asks for it is another"


def test_many_that_start_at_once_fetch_one_token(made: Made) -> None:
    got: list[str] = []
    ready = threading.Barrier(64)

    def start() -> None:
        tokens = made()
        ready.wait(10)
        got.append(tokens.get())

    threads = [threading.Thread(target=start) for _unused in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got == ["token-1"] * 64
    assert made().get() == "token-1", "nor does the next run, while it is good"


def test_a_rejected_token_is_fetched_anew_once_for_all(made: Made) -> None:
    assert made().get() == "token-1"
    got: list[str] = []
    threads = [
        threading.Thread(target=lambda: got.append(made().get("token-1"))) for _unused in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got == ["token-2"] * 8


def test_a_token_that_ends_soon_is_not_used(made: Made) -> None:
    short = made()
    short.lifetime = 30.0  # type: ignore[attr-defined]
    assert short.get() == "token-1"
    assert made().get() == "token-2"
    assert made().get() == "token-2"


def test_other_credentials_have_another_token(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made().get() == "token-1"
    another = tmp_path / "another.json"
    another.write_text("{}")
    assert made(another).get() == "token-2"
    assert made(impersonate="robot@p").get() == "token-3"
    another.write_text('{"another": "key"}')
    assert made(another).get() == "token-4"
    monkeypatch.setenv("AWS_PROFILE", "another")
    assert made().get() == "token-5"


def test_only_its_owner_reads_it(made: Made, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made().get()
    finally:
        os.umask(old)
    folder = tmp_path / "ours"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_what_a_killed_process_left_is_no_obstacle(made: Made, tmp_path: Path) -> None:
    made().get()
    [kept] = [it for it in (tmp_path / "ours").iterdir() if not it.suffix]
    kept.with_name(f"{kept.name}.new").write_text("half")
    assert made().get("token-1") == "token-2"
    assert kept.read_text().endswith("\ntoken-2\n")


@pytest.mark.parametrize("text", ["", "soon\nplanted\n", "99999999999\n"])
def test_a_file_that_is_no_token_is_replaced(made: Made, tmp_path: Path, text: str) -> None:
    made().get()
    [kept] = [it for it in (tmp_path / "ours").iterdir() if not it.suffix]
    kept.write_text(text)
    assert made().get() == "token-2"


def test_a_file_that_others_could_read_is_not_trusted(made: Made, tmp_path: Path) -> None:
    made().get()
    [kept] = [it for it in (tmp_path / "ours").iterdir() if not it.suffix]
    kept.chmod(0o640)
    assert made().get() == "token-2"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_link_is_not_followed(made: Made, tmp_path: Path) -> None:
    made().get()
    [kept] = [it for it in (tmp_path / "ours").iterdir() if not it.suffix]
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TokenError, match=r"wanted the access token kept in .*/ours, found '"):
        made().get()
    (tmp_path / "linked").symlink_to(tmp_path / "ours")
    with pytest.raises(TokenError, match=r"kept in .*/linked, found '"):
        made(place="linked").get()


def test_a_directory_that_others_can_write_to_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours").chmod(0o770)
    with pytest.raises(TokenError, match=r"found 'others can write to it': see to the owner"):
        made().get()
    assert list((tmp_path / "ours").iterdir()) == []


def test_another_user_s_directory_is_refused(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(TokenError, match="found 'it belongs to another user'"):
        made().get()


def test_credentials_that_give_none_are_told_in_their_own_words(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens("/nonexistent.json", None, str(tmp_path))
    with pytest.raises(TokenError, match=r"^wanted Google credentials in /nonexistent.json, found"):
        tokens.get()
