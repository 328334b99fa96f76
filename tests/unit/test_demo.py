# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo stops at the first step that fails, and says which."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox.demo import Demo, DemoError


def test_a_failed_step_is_named_with_its_exit_code() -> None:
    demo = Demo("unit")
    with pytest.raises(DemoError, match=r"'python -c exit' ended with exit code 3"):
        demo.step("Fail", [sys.executable, "-c", "raise SystemExit(3)"], shown="python -c exit")


def test_a_step_returns_its_output_and_keeps_its_time() -> None:
    demo = Demo("unit")
    command = [sys.executable, "-c", "print('f123')"]
    assert demo.step("Submit", command, shown="submit", stdout=subprocess.PIPE) == "f123"
    assert [title for title, _unused in demo.times] == ["Submit"]


def test_what_is_shown_is_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Demo("unit").step("Show", [sys.executable, "-c", ""], shown="gffw-compute-a-[001-003]")
    assert "gffw-compute-a-[001-003]" in capsys.readouterr().out


def test_without_a_sandbox_the_demo_says_what_starts_one() -> None:
    with pytest.raises(DemoError, match=r"sandbox unit does not run; `make burst` starts one"):
        Demo("unit").playbook("Examine", "playbooks/doctor.yml")
