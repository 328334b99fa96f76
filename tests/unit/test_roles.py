# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role says of its variables is what it has, and every option is used: by the role, and in a test."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from documented import (
    MODULES,
    ROLES,
    TOP,
    constant,
    differs,
    entry_points,
    module_options,
    own_options,
    role_options,
    tasks,
    values,
)

from tools.role_docs import readme

# What the tests run, beside the tests: each of these plays is in one of tests/integration.
RUN = ("playbooks", "extensions/molecule", "inventory/sandbox", "inventory/gke")


@cache
def texts(*folders: str) -> dict[Path, str]:
    """The files below some folders, but for this test."""
    paths = [path for folder in folders for path in (TOP / folder).rglob("*") if path.is_file()]
    return {
        path: path.read_text()
        for path in paths
        if path.suffix in (".py", ".yml") and path != Path(__file__)
    }


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_the_defaults_of_the_argument_specs(role: str) -> None:
    for options in entry_points(role).values():
        for name, option in options.items():
            assert option.get("default") == role_options(role)[name].get("default"), name
    described = {
        name: option["default"]
        for name, option in role_options(role).items()
        if "default" in option
    }
    defaults = yaml.safe_load((TOP / "roles" / role / "defaults/main.yml").read_text())
    assert defaults == described


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_a_file_of_tasks(role: str) -> None:
    for name in entry_points(role):
        assert (TOP / "roles" / role / f"tasks/{name}.yml").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_variables_begin_with_the_role(role: str) -> None:
    assert [name for name in role_options(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_the_role_or_a_playbook_reads_every_option(role: str) -> None:
    paths = [
        path
        for path in (TOP / "roles" / role).rglob("*")
        if path.is_file() and path.parts[-2] in ("tasks", "templates", "vars")
    ]
    text = "".join(path.read_text() for path in [*paths, *(TOP / "playbooks").glob("*")])
    # These are read where a machine is reached, not where it is made.
    text += (TOP / "plugins/inventory/gce.py").read_text()
    text += (TOP / "inventory/sandbox/hosts.yml").read_text()
    # This, where what is wrong is looked for before anything is made.
    text += (TOP / "plugins/module_utils/_doctor_google.py").read_text()
    unread = [name for name in role_options(role) if not re.search(rf"\b{name}\b", text)]
    assert unread == [], f"{role}: nothing reads {', '.join(unread)}"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_s_readme_tells_its_variables(role: str) -> None:
    path = TOP / "roles" / role
    text = (path / "README.md").read_text()
    assert text.startswith(f"# flux.burst.{role}\n")
    assert text == readme(path), "run: python tools/role_docs.py"


@pytest.mark.parametrize("role", ROLES)
def test_a_test_gives_every_option_of_a_role_another_value_than_its_default(role: str) -> None:
    given = texts("tests", *RUN).values()
    unused = [
        name
        for name, option in role_options(role).items()
        if not any(
            differs(value, option.get("default")) for text in given for value in values(name, text)
        )
    ]
    assert unused == [], f"{role}: no test, scenario or sample inventory sets {', '.join(unused)}"


def test_the_sandbox_inventory_shows_the_whole_specification() -> None:
    shown = yaml.safe_load((TOP / "inventory/sandbox/group_vars/all.yml").read_text())
    assert [name for name in shown if name not in role_options("burst")] == []
    missing = [name for name in role_options("burst") if name not in shown]
    assert missing == [], f"inventory/sandbox/group_vars/all.yml: show {', '.join(missing)}"


@cache
def tasks_that_run() -> list[dict[str, Any]]:
    """The tasks of roles, and of plays that tests run."""
    trees: list[Any] = [
        tree
        for path, text in texts("roles", *RUN).items()
        for tree in (yaml.safe_load_all(text) if path.suffix == ".yml" else [])
    ]
    return list(tasks(trees))


@cache
def by_tasks(module: str) -> set[str]:
    """The options that tasks give a module: of roles and plays that tests run, and of examples, which are run too."""
    given: set[str] = set()
    for task in [*tasks_that_run(), *tasks(constant(module, "EXAMPLES"))]:
        for name in (f"flux.burst.{module}", "group/flux.burst.gce"):
            if isinstance(task.get(name), dict):
                given |= set(task[name])
    return given


@cache
def by_python(module: str) -> str:
    """The text of the tests that run a module: they name it, or the method that runs it."""
    method = module.removeprefix("gce_")
    names = re.compile(rf"\b{module}\b|\.{method}\(|\"{method}\"")
    return "".join(text for text in texts("tests").values() if names.search(text))


def untested(modules: list[str], options: set[str]) -> list[str]:
    """The options that no test gives any of some modules."""
    given = set().union(*map(by_tasks, modules))
    text = "".join(map(by_python, modules))
    return sorted(name for name in options - given if not any(values(name, text)))


@pytest.mark.parametrize("module", MODULES)
def test_a_test_gives_every_option_of_a_module(module: str) -> None:
    unused = untested([module], set(own_options(module)))
    assert unused == [], f"{module}: no test gives it {', '.join(unused)}"


def test_a_test_gives_every_option_that_modules_share() -> None:
    shared: dict[str, list[str]] = {}
    for module in MODULES:
        for name in set(module_options(module)) - set(own_options(module)):
            shared.setdefault(name, []).append(module)
    unused = [name for name, modules in shared.items() if untested(modules, {name})]
    assert unused == [], f"no test gives any module that has them {', '.join(unused)}"
