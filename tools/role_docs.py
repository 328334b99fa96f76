# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the table of variables into each role's README, from its meta/argument_specs.yml.

`python tools/role_docs.py` writes them; tests/unit/test_roles.py says which is not up to date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from antsibull_docs_parser import dom
from antsibull_docs_parser.parser import Context, parse

ROLES = Path(__file__).resolve().parent.parent / "roles"
HEADING = "## Variables\n"
NOTE = "\n<!-- `python tools/role_docs.py` writes what follows, from meta/argument_specs.yml. -->\n"


def plain(text: str) -> str:
    """Return a text with Ansible's markup as Markdown, in one line, for a cell of a table."""
    said = ""
    for part in (
        part for paragraph in parse(text, Context(), errors="exception") for part in paragraph
    ):
        match part:
            case dom.TextPart():
                said += part.text
            case dom.ModulePart() | dom.PluginPart():
                said += f"`{part.fqcn if isinstance(part, dom.ModulePart) else part.plugin.fqcn}`"
            case dom.OptionNamePart() | dom.ReturnValuePart():
                said += f"`{part.name}`"
            case dom.OptionValuePart():
                said += f"`{part.value}`"
            case dom.EnvVariablePart():
                said += f"`{part.name}`"
            case dom.CodePart() | dom.ItalicPart() | dom.BoldPart():
                said += f"`{part.text}`"
            case _:
                raise ValueError(f"wanted markup that a table can show, found {part} in: {text}")
    return " ".join(said.split()).replace("|", "\\|")


def row(name: str, option: dict[str, Any]) -> str:
    """Return an option as a row of the table."""
    kind = option["type"]
    if "choices" in option:
        kind = ", ".join(f"`{choice}`" for choice in option["choices"])
    elif "elements" in option:
        kind = f"{kind} of {option['elements']}"
    default = "required" if option.get("required") else ""
    if "default" in option:
        default = f"`{json.dumps(option['default'])}`"
    description = option["description"]
    lines = description if isinstance(description, list) else [description]
    return f"| `{name}` | {kind} | {default} | {' '.join(map(plain, lines))} |\n"


def variables(specs: dict[str, Any]) -> str:
    """Return the part of a README that tells the variables of every entry point."""
    text = HEADING + NOTE
    for entry_point, spec in specs.items():
        if len(specs) > 1:
            text += f"\n`{entry_point}.yml`: {plain(spec['short_description'])}.\n"
        text += "\n| variable | type | default | |\n|---|---|---|---|\n"
        text += "".join(row(name, option) for name, option in spec["options"].items())
    return text


def readme(role: Path) -> str:
    """Return a role's README as it has to be: what was written by hand, then the variables."""
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    by_hand = (role / "README.md").read_text().partition(HEADING)[0].rstrip("\n")
    return f"{by_hand}\n\n{variables(specs)}"


def main() -> None:
    """Write every role's README."""
    for role in sorted(path for path in ROLES.iterdir() if path.is_dir()):
        (role / "README.md").write_text(readme(role))


if __name__ == "__main__":
    main()
