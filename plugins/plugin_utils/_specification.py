# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The specification as an inventory plugin reads it, which runs before there are variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.utils.vars import load_extra_vars


def read(plugin: Any, path: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that have defaults, as the file, templates and -e say. Raises AnsibleParserError."""
    if not path.is_file():
        raise AnsibleParserError(
            f"specification: wanted a file with the burst_* variables, found none at {path}."
        )
    given = plugin.loader.load_from_file(str(path), trusted_as_template=True) or {}
    if not isinstance(given, dict):
        raise AnsibleParserError(
            f"{path}: wanted a mapping of burst_* variables, found {type(given).__name__}."
        )
    variables = {**given, **load_extra_vars(plugin.loader)}
    plugin.templar.available_variables = variables
    made = dict(defaults)
    for name in defaults:
        if variables.get(name) is not None:
            try:
                # As plain text: what came out of a template is none.
                made[name] = str(plugin.templar.template(variables[name]))
            except AnsibleError as error:
                raise AnsibleParserError(f"{path}: {name}: {error}") from None
    return made
