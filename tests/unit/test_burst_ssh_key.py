# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst's key pair is made once, is its owner's alone, and is mended; what is somebody else's is not touched."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _changes
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError, SpecError
from ansible_collections.flux.burst.plugins.modules.burst_ssh_key import KeyPair

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Do what the module does with a state, below a directory of the test's own."""

    def run(state: str = "present", *, check: bool = False, burst: str = "b") -> dict[str, Any]:
        pair = KeyPair(str(tmp_path / "bursts"), burst)
        result = _changes.apply(pair.plan(state), pair.act, check=check)
        return {**result, "public_key": pair.found.get("public_key", ""), "path": pair.path}

    return run


def keygen(*words: str | Path) -> str:
    return subprocess.run(
        ["ssh-keygen", *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_check_mode_makes_nothing(run: Run, tmp_path: Path) -> None:
    result = run(check=True)
    assert result["changed"]
    assert result["public_key"] == ""
    assert not (tmp_path / "bursts").exists()


def test_a_pair_is_made_for_its_owner_alone_and_kept(run: Run) -> None:
    made = run()
    path = made["path"]
    assert made["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert keygen("-y", "-f", path) == made["public_key"]
    assert made["public_key"].split()[0::2] == ["ssh-ed25519", "b"]
    assert sorted(it.name for it in path.parent.iterdir()) == ["ssh_key", "ssh_key.pub"]
    private = path.read_text()
    again = run()
    assert not again["changed"]
    assert (again["public_key"], path.read_text()) == (made["public_key"], private)
    assert "PRIVATE" not in str(made["diff"])


def test_a_public_key_that_is_missing_or_anothers_and_an_open_private_key_are_mended(
    run: Run,
) -> None:
    made, other = run(), run(burst="other")
    public = made["path"].with_suffix(".pub")
    for spoil in (
        public.unlink,
        lambda: public.write_text(other["public_key"]),
        lambda: made["path"].chmod(0o644),
    ):
        spoil()
        mended = run()
        assert [it["action"] for it in mended["resources"]] == ["update"]
        assert mended["public_key"] == made["public_key"]
        assert stat.S_IMODE(made["path"].stat().st_mode) == 0o600
        assert not run()["changed"]


def test_absent_deletes_both_and_then_nothing(run: Run) -> None:
    path = run()["path"]
    assert run("absent", check=True)["changed"]
    assert path.exists()
    assert run("absent")["changed"]
    assert list(path.parent.iterdir()) == []
    assert not run("absent")["changed"]


def test_a_symbolic_link_is_refused(run: Run, tmp_path: Path) -> None:
    path = run()["path"]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BurstError, match=r"wanted a file of uid .*, found a symbolic link"):
        run()
    (tmp_path / "bursts" / "c").symlink_to(tmp_path)
    with pytest.raises(BurstError, match=r"wanted a directory of uid .*, found a symbolic link"):
        run(burst="c")


def test_what_is_no_key_is_named(run: Run) -> None:
    run()["path"].write_text("no key\n")
    with pytest.raises(BurstError, match=r"ssh-keygen: wanted a key pair at .*ssh_key, found"):
        run()


def test_a_name_that_leads_elsewhere_is_refused(run: Run) -> None:
    with pytest.raises(SpecError, match="correct burst_name"):
        run(burst="../b")
