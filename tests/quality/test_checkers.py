# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkers of the Python and the Ansible world, each as one test whose failure shows the checker's own words."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / ".cache"
BIN = Path(sys.executable).parent

# ansible-test fetches pip's bootstrap script from pip's own site. This one, put where it would be cached, uses the
# pip that Python carries; in a child process, because ensurepip in this one would switch pip's configuration off.
GET_PIP = """import subprocess, sys
sys.exit(subprocess.call([sys.executable, "-m", "ensurepip"]))
"""


def check(*command: str, cwd: Path = TOP, **env: str) -> None:
    """Run a checker and fail with what it printed."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}"


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would take, at .../ansible_collections/flux/burst and in a work tree of its own.

    The tools follow links, so the linked collection of .cache would not do.
    """
    top = tmp_path_factory.mktemp("collections") / "ansible_collections" / "flux" / "burst"
    top.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (TOP / name).exists():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, top / name)
    subprocess.run(["git", "init", "--quiet"], cwd=top, check=True)
    subprocess.run(["git", "add", "--all"], cwd=top, check=True)
    return top


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    check("ruff", "format", "--check", ".")


def test_mypy_finds_nothing_in_the_collection(checkout: Path) -> None:
    check(
        "mypy",
        "-p",
        "ansible_collections.flux.burst.plugins.module_utils",
        "--config-file",
        str(TOP / "pyproject.toml"),
        cwd=checkout.parents[2],
    )


def test_mypy_finds_nothing_in_the_sandbox() -> None:
    check("mypy", "sandbox", "tools")


def test_ansible_lint_passes_at_profile_production(checkout: Path) -> None:
    check(
        "ansible-lint",
        "--offline",
        "--strict",
        cwd=checkout,
        # Of the collections there, ours is found in the checkout first, and kubernetes.core is needed.
        ANSIBLE_COLLECTIONS_PATH=f"{checkout.parents[2]}{os.pathsep}{CACHE / 'collections'}",
    )


def test_documentation_passes_antsibull(checkout: Path) -> None:
    check(
        "antsibull-docs",
        "lint-collection-docs",
        "--plugin-docs",
        "--validate-collection-refs=self",
        "--disallow-unknown-collection-refs",
        ".",
        cwd=checkout,
        ANSIBLE_COLLECTIONS_PATH=str(checkout.parents[2]),
    )


def test_changelog_passes_antsibull(checkout: Path) -> None:
    check("antsibull-changelog", "lint", cwd=checkout)


@pytest.mark.slow
def test_ansible_test_sanity_passes_without_ignore_files(checkout: Path) -> None:
    home = CACHE / "sanity-home"
    bootstrap = home / ".ansible" / "test" / "cache"
    bootstrap.mkdir(parents=True, exist_ok=True)
    (bootstrap / "get_pip_24_2.py").write_text(GET_PIP)
    assert not list((checkout / "tests").glob("sanity/ignore*"))
    check(
        "ansible-test",
        "sanity",
        "--local",
        "--requirements",
        "--python",
        f"{sys.version_info.major}.{sys.version_info.minor}",
        cwd=checkout,
        HOME=str(home),
    )
