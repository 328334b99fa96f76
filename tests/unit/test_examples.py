# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every example that ansible-doc shows is a task that Ansible takes, with options that the module has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documented import MODULES, TOP, constant, module_options, tasks


@pytest.mark.parametrize("module", MODULES)
def test_an_example_gives_what_the_module_needs_and_nothing_that_it_has_not(module: str) -> None:
    known = module_options(module)
    required = {name for name, option in known.items() if option.get("required")}
    examples = [task for task in constant(module, "EXAMPLES") if f"flux.burst.{module}" in task]
    assert examples
    for task in examples:
        given = task[f"flux.burst.{module}"] or {}
        assert set(given) <= set(known), task["name"]
        assert required <= set(given), task["name"]


def test_ansible_takes_every_example_and_every_playbook(tmp_path: Path) -> None:
    plays = [
        {"name": module, "hosts": "localhost", "tasks": constant(module, "EXAMPLES")}
        for module in MODULES
    ]
    examples = tmp_path / "examples.yml"
    examples.write_text(yaml.safe_dump(plays, sort_keys=False))
    command = Path(sys.executable).with_name("ansible-playbook")
    playbooks = sorted((TOP / "playbooks").glob("*.yml"))
    done = subprocess.run(
        [command, "--syntax-check", "-i", "localhost,", examples, *playbooks],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", [name for name in MODULES if "uri" in module_options(name)])
def test_every_task_that_asks_the_lead_s_broker_says_where_it_listens(module: str) -> None:
    # A lead in a pod, or in another prefix, has its socket elsewhere.
    files = [*TOP.glob("playbooks/*.yml"), *TOP.glob("roles/*/tasks/*.yml")]
    asked = [
        (path.name, task["name"], task[f"flux.burst.{module}"])
        for path in files
        for task in tasks(yaml.safe_load(path.read_text()))
        if f"flux.burst.{module}" in task
    ]
    assert asked
    assert [(file, name) for file, name, given in asked if "uri" not in (given or {})] == []
