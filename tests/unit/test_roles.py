# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says of its variables is what it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (TOP / "roles").iterdir())


def load(role: str, part: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((TOP / "roles" / role / part).read_text())
    return loaded


def options(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(role, "meta/argument_specs.yml")["argument_specs"]["main"][
        "options"
    ]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_defaults_of_the_argument_specs(role: str) -> None:
    described = {
        key: option["default"] for key, option in options(role).items() if "default" in option
    }
    assert load(role, "defaults/main.yml") == described


@pytest.mark.parametrize("role", ROLES)
def test_variables_begin_with_the_role(role: str) -> None:
    assert [key for key in options(role) if not key.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_option_is_used(role: str) -> None:
    text = "".join(
        path.read_text()
        for path in [*(TOP / "roles" / role).rglob("*"), *(TOP / "playbooks").glob("*")]
        if path.is_file() and "meta" not in path.parts and "defaults" not in path.parts
    )
    text += (TOP / "plugins/inventory/gce.py").read_text() + (
        TOP / "inventory/sandbox/hosts.yml"
    ).read_text()
    assert [key for key in options(role) if not re.search(rf"\b{key}\b", text)] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_a_readme(role: str) -> None:
    assert (TOP / "roles" / role / "README.md").read_text().startswith(f"# flux.burst.{role}\n")


def test_the_sandbox_inventory_shows_the_whole_specification() -> None:
    shown = yaml.safe_load((TOP / "inventory/sandbox/group_vars/all.yml").read_text())
    assert list(shown) == [key for key in shown if key in options("burst")]
    assert set(options("burst")) == set(shown)
