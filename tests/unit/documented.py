# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What modules and roles say of their options, and where an option is given a value."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (TOP / "plugins/modules").glob("*.py"))
ROLES = sorted(path.name for path in (TOP / "roles").iterdir())


def constant(module: str, name: str) -> Any:
    """A documentation string of a module, as YAML."""
    tree = ast.parse((TOP / f"plugins/modules/{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no {name}")


def own_options(module: str) -> dict[str, Any]:
    """A module's options, without those that it shares with others."""
    return dict(constant(module, "DOCUMENTATION").get("options", {}))


def module_options(module: str) -> dict[str, Any]:
    """A module's options, those of its fragments included."""
    found = own_options(module)
    for name in constant(module, "DOCUMENTATION")["extends_documentation_fragment"]:
        fragment, _unused, part = name.removeprefix("flux.burst.").partition(".")
        text = (TOP / f"plugins/doc_fragments/{fragment}.py").read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == (
                part.upper() or "DOCUMENTATION"
            ):
                found.update(yaml.safe_load(ast.literal_eval(node.value)).get("options", {}))
    return found


def entry_points(role: str) -> dict[str, dict[str, Any]]:
    """A role's options by entry point."""
    specs = yaml.safe_load((TOP / "roles" / role / "meta/argument_specs.yml").read_text())
    return {name: spec["options"] for name, spec in specs["argument_specs"].items()}


def role_options(role: str) -> dict[str, Any]:
    """A role's options, those of all its entry points."""
    return {name: it for options in entry_points(role).values() for name, it in options.items()}


def values(option: str, text: str) -> Iterator[str]:
    """What an option is given in a text: after `option:`, `option=`, or `"option",` in a table of a test."""
    for found in re.finditer(rf"(?<![\w.-])(?:-e)?{option}[\"']?\s*[:=,]\s*(?![=\s])(.+)", text):
        # A test's message, which names the option and is no value.
        if not re.match(r"[\"']?(wanted|found)\b", found[1]):
            yield found[1]


def differs(value: str, default: Any) -> bool:
    """Whether what a text gives is something, and not what holds without it."""
    try:
        said = yaml.safe_load(value.strip().rstrip(","))
    except yaml.YAMLError:
        # The rest of a line of Python.
        return True
    return said not in (None, "None", default)


def tasks(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping below a node of YAML: tasks are among them."""
    if isinstance(node, dict):
        yield node
    for child in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    ):
        yield from tasks(child)
