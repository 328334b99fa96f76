# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks of stopped machines, kept as layers that other machines' roots lie on.

They are in the same memory as the machines' disks, and go with the sandbox as those do. A layer
stays as long as an image or a machine is built on it, whatever became of its own image.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from sandbox.machines import MachineError
from sandbox.rootfs import remove_tree

LAYER, VIEW = "layer", "view"

Chain = tuple[str, ...]
"""The images whose layers lie on the shared root, topmost first."""


class Images:
    """The saved disks below a directory, over the shared root. The caller does one thing at a time."""

    def __init__(self, top: Path, root: Path) -> None:
        self.top, self.root = top, root
        self._chains: dict[str, Chain] = {}

    def chain(self, image: str) -> Chain:
        """Return what a machine booted from an image lies on; "" is the shared root alone."""
        if not image:
            return ()
        if image not in self._chains:
            raise MachineError(f"wanted saved image {image}, found none")
        return self._chains[image]

    def lower(self, chain: Chain) -> list[Path]:
        """Return the directories of an overlay's `lowerdir`, topmost first."""
        return [*(self.top / image / LAYER for image in chain), self.root]

    def view(self, image: str) -> Path:
        """Return where an image can be looked at as one tree, with all that it lies on."""
        return self.top / image / VIEW if image else self.root

    def save(self, image: str, upper: Path, below: Chain) -> int:
        """Keep a copy of an overlay's upper directory; return its size in bytes. Raises MachineError."""
        directory = self.top / image
        for part in (LAYER, VIEW):
            (directory / part).mkdir(parents=True)
        # With every attribute: the overlay's own say which directories hide those below.
        _run("cp", "--archive", f"{upper}/.", str(directory / LAYER))
        chain = (image, *below)
        lower = ":".join(map(str, self.lower(chain)))
        options = ["-o", f"ro,lowerdir={lower}", str(directory / VIEW)]
        _run("mount", "-t", "overlay", "overlay", *options)
        self._chains[image] = chain
        return _size(directory / LAYER)

    def forget(self, image: str, used: Collection[Chain]) -> None:
        """Drop an image, which need not be there; used are the chains of the machines that are."""
        self._chains.pop(image, None)
        remove_tree(self.top / image / VIEW)
        self.prune(used)

    def prune(self, used: Collection[Chain]) -> None:
        """Remove the layers that neither an image nor one of these machines lies on."""
        needed = {image for chain in (*self._chains.values(), *used) for image in chain}
        for directory in self.top.glob("*"):
            if directory.name not in needed:
                remove_tree(directory)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or "no message"
        raise MachineError(f"'{' '.join(command)}' failed: {said}")


def _size(top: Path) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_size
        for folder, _unused, names in os.walk(top)
        for name in names
    )
