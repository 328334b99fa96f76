# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run does that loses its lead before it mends a machine: it goes on to its end, which tells of all."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

TOP = Path(__file__).resolve().parents[2]
# Nobody listens there.
AWAY = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_retries": 0}


def test_machines_are_left_alone_and_the_reason_is_kept_for_the_report(tmp_path: Path) -> None:
    inventory = {"all": {"children": {"flux_lead": {"hosts": {"flux-sample-0": AWAY}}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    named = {"name": "gffw-compute-a-001", "groups": ["burst_replace", "burst_again"]}
    wanted = (
        "__burst_untouched and __burst_ended is match('stage lead: wanted the machines that failed drained, "
        "found that the lead cannot be reached .*onnection refused')"
    )
    plays = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [{"ansible.builtin.add_host": named, "changed_when": False}],
        },
        {"import_playbook": str(TOP / "playbooks/mend.yml")},
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [{"ansible.builtin.assert": {"that": wanted}}],
        },
    ]
    (tmp_path / "site.yml").write_text(yaml.safe_dump(plays))
    done = subprocess.run(
        ["ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "site.yml"],
        cwd=TOP,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"changed=[1-9]", done.stdout), "nothing is done to them"
