# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command in a machine: what `python -m sandbox exec` does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sandbox import paths
from sandbox.machines import processes
from sandbox.machines.cloudnet import machine_namespace

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ExecError(Exception):
    """There is no such machine or user; the message is one line."""


@dataclass(frozen=True)
class Person:
    """A user of a machine."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


ROOT = Person("root", 0, 0, "/root", "/bin/sh")


def find(sandbox: str, machine: str, project: str | None = None) -> tuple[str, str]:
    """Return a machine's (project, name). Raises ExecError where there is none, or more than one."""
    top = paths.state_of(sandbox) / "machines"
    every = sorted((path.parent.name, path.name) for path in top.glob("*/*") if path.is_dir())
    found = [key for key in every if key[1] == machine and project in (None, key[0])]
    if len(found) == 1:
        return found[0]
    if found:
        raise ExecError(
            f"wanted one machine {machine}, found it in the projects "
            f"{', '.join(key[0] for key in found)}: say which with --project"
        )
    there = ", ".join(key[1] for key in every) or "no machines at all"
    raise ExecError(f"wanted the machine {machine} in sandbox {sandbox}, found {there}: see status")


def person(passwd: str, user: str) -> Person:
    """Return a user of /etc/passwd's text. Raises ExecError."""
    for line in passwd.splitlines():
        words = line.split(":")
        if words[0] == user and len(words) == 7:
            return Person(user, int(words[2]), int(words[3]), words[5], words[6])
    raise ExecError(f"wanted the user {user} on the machine, found none of that name there")


def command(leader: int, who: Person, words: list[str], term: str) -> list[str]:
    """Return the command that runs another in the namespaces of the machine's init."""
    change = ["setpriv", f"--reuid={who.uid}", f"--regid={who.gid}", "--init-groups", "--"]
    env = {
        "HOME": who.home,
        "LANG": "C.UTF-8",
        "LOGNAME": who.name,
        "PATH": PATH,
        "SHELL": who.shell,
        "TERM": term,
        "USER": who.name,
    }
    return [
        *("nsenter", f"--target={leader}", "--all", "--root", "--wd"),
        *("env", "-i", *(f"{key}={value}" for key, value in env.items())),
        *(change if who.uid else ()),
        *words,
    ]


def whole_command(
    sandbox: str, machine: str, project: str | None, user: str, words: list[str]
) -> list[str]:
    """Return the command that runs another in a machine as one of its users. Raises ExecError."""
    key = find(sandbox, machine, project)
    leader = processes.leader(machine_namespace(sandbox, *key))
    if leader is None:
        raise ExecError(f"wanted {machine} running, found it dead: see logs {machine}")
    who = person(Path(f"/proc/{leader}/root/etc/passwd").read_text(), user)
    return command(leader, who, words, os.environ.get("TERM", "dumb"))


def run(sandbox: str, machine: str, project: str | None, user: str, words: list[str]) -> NoReturn:
    """Become the command: standard input and output and the exit code are its own. Raises ExecError."""
    whole = whole_command(sandbox, machine, project, user, words)
    os.execvp(whole[0], whole)
