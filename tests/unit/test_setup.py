# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setup stops with one line before it changes anything, and takes up where it was interrupted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox import preflight
from tools import setup


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A setup that writes down what it would do."""
    done: list[str] = []
    monkeypatch.setattr(setup, "TOP", tmp_path)
    monkeypatch.setattr(setup, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(setup, "COLLECTION", tmp_path / ".cache/collections/flux/burst")
    monkeypatch.setattr(setup.preflight, "check_host", lambda: None)
    monkeypatch.setattr(setup, "check_room", lambda: None)
    monkeypatch.setattr(setup, "missing_packages", lambda: ["debootstrap"])
    monkeypatch.setattr(setup, "install_packages", lambda names: done.append(f"apt {names}"))
    monkeypatch.setattr(setup, "make_venv", lambda path: done.append(f"venv {path.name}"))
    monkeypatch.setattr(sys, "argv", ["setup.py", "requirements-test.txt"])
    return done


def test_what_is_missing_is_installed_and_the_checkout_is_linked(checkout: list[str]) -> None:
    assert setup.main() == 0
    assert checkout == ["apt ['debootstrap']", "venv requirements-test.txt"]
    assert setup.COLLECTION.resolve() == setup.TOP


def test_what_is_there_is_not_done_again(
    checkout: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "missing_packages", lambda: [])
    setup.VENV.mkdir()
    stamp, content = setup.stamp_of(setup.TOP / "requirements-test.txt")
    stamp.write_text(content)
    assert setup.main() == 0
    assert setup.main() == 0
    assert checkout == []


def test_an_interrupted_installation_is_taken_up(checkout: list[str]) -> None:
    setup.VENV.mkdir()
    (setup.VENV / "bin").mkdir()
    assert setup.main() == 0
    assert "venv requirements-test.txt" in checkout


@pytest.mark.parametrize("where", ["check_machine", "check_room"])
def test_a_machine_that_will_not_do_is_one_line_and_nothing_is_changed(
    checkout: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
) -> None:
    def refuse() -> None:
        raise setup.SetupError("wanted more, found less: use another machine")

    monkeypatch.setattr(setup, where, refuse)
    assert setup.main() == 1
    assert checkout == []
    assert not setup.COLLECTION.exists()
    assert capsys.readouterr().err == "setup: wanted more, found less: use another machine\n"


def test_too_little_disk_is_said_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = type("Usage", (), {"free": 1024**3})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        setup.SetupError, match=r"wanted 4 GiB of free disk at .*, found 1.0: free some"
    ):
        setup.check_room()


def test_a_user_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.os, "geteuid", lambda: 1000)
    with pytest.raises(preflight.PreflightError, match="wanted root, found user id 1000"):
        setup.check_machine()


def test_another_system_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.platform, "system", lambda: "Darwin")
    with pytest.raises(preflight.PreflightError, match="wanted Linux, found Darwin"):
        setup.check_machine()
