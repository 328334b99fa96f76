# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the stand-in into a machine's root."""

from __future__ import annotations

import shutil
from pathlib import Path

VERSION = "0.88.0"
# Debian packages that it needs in the root. debootstrap does not follow virtual ones, so cffi is named.
PACKAGES = ("munge", "python3", "python3-cffi-backend", "python3-zmq")
HERE = Path(__file__).resolve().parent
PYTHON_PATH = Path("usr/lib/flux/python3.11")
COMMAND = """#!/usr/bin/python3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib/flux/python3.11"))

from flux_standin.cli import main

sys.exit(main())
"""
# It stands where the real one would, so that what checks for a setuid IMP finds one; it runs nothing.
IMP = """#!/bin/sh
echo "flux-imp: this is the sandbox's stand-in" >&2
exit 1
"""


def install(root: Path) -> str:
    """Install below root, for Python 3.11 there, and return the version of Flux that it stands for."""
    target = root / PYTHON_PATH
    ignored = shutil.ignore_patterns("__pycache__")
    for source, name in ((HERE / "flux_standin", "flux_standin"), (HERE / "bindings/flux", "flux")):
        shutil.copytree(source, target / name, dirs_exist_ok=True, ignore=ignored)
    _script(root / "usr/bin/flux", COMMAND, 0o755)
    _script(root / "usr/libexec/flux/flux-imp", IMP, 0o4755)
    return VERSION


def _script(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
