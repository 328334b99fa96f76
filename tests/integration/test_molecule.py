# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role's molecule scenario, as `molecule test --all` runs them: in one sandbox of molecule's own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from burst_sandbox import TOP, Run, Sandbox, sandbox_name

pytestmark = pytest.mark.machines

SCENARIOS = TOP / "extensions/molecule"
ROLES = sorted(path.name for path in (TOP / "roles").iterdir())
DONE = re.compile(r"^(\w+) > (\w+): Executed: Successful$", re.MULTILINE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run of all scenarios, with a state that no run before left."""
    sandbox = Sandbox(sandbox_name("molecule"), "auto")
    sandbox.command("down")
    try:
        yield sandbox.run(
            "molecule",
            "test",
            "--all",
            MOLECULE_EPHEMERAL_DIRECTORY=str(tmp_path_factory.mktemp("molecule")),
            NO_COLOR="1",
        )
        assert not sandbox.state.exists(), "molecule left its sandbox"
    finally:
        sandbox.command("down")


def test_every_role_has_a_scenario() -> None:
    assert sorted(path.parent.name for path in SCENARIOS.glob("*/molecule.yml")) == sorted(
        [*ROLES, "default"]
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_role_converges_once_and_is_what_it_says(run: Run, role: str) -> None:
    assert run.code == 0, run.output[-8000:]
    steps = [step for name, step in DONE.findall(run.output) if name == role]
    steps = [step for step in steps if step != "prepare"]
    assert steps[:2] == ["converge", "idempotence"]
    assert "verify" in steps
