# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the emulated Compute Engine asks of its machines to make images, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from test_server_machines import ZONE, Backend, Engine, properties

from sandbox.machines import MachineError

IMAGES = "global/images"
DISK = f"projects/sandbox-project/{ZONE}/disks/a"
BASE = "projects/debian-cloud/global/images/family/debian-12"
FAMILY = "projects/sandbox-project/global/images/family/f"


class Saving(Backend):
    """Remembers what was done with disks, in order; a disk of a machine named full is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, ...]] = []

    def stop(self, project: str, name: str) -> None:
        """Remember."""
        self.done.append(("stop", name))

    def save_image(self, project: str, name: str, image: str) -> int:
        """Remember, or fail."""
        if name == "full":
            raise MachineError("no space left")
        self.done.append(("save", name, image))
        return 7

    def delete_image(self, image: str) -> None:
        """Remember."""
        self.done.append(("delete", image))


@pytest.fixture
async def engine() -> Engine:
    """An API with a network and a machine that is stopped."""
    made = Engine()
    made.backend = made.cloud.backend = Saving()
    await made.foundation()
    await stopped(made, "a")
    return made


async def stopped(engine: Engine, name: str, **changes: Any) -> None:
    """Make a machine and stop it."""
    await engine.done("POST", f"{ZONE}/instances", {"name": name, **properties(**changes)})
    await engine.done("POST", f"{ZONE}/instances/{name}/stop")


def done(engine: Engine) -> list[tuple[str, ...]]:
    """What the backend was asked to do."""
    assert isinstance(engine.backend, Saving)
    return engine.backend.done


async def made(engine: Engine, name: str, disk: str = DISK) -> Any:
    """Make an image; return it."""
    body = {"name": name, "family": "f", "sourceDisk": disk}
    operation = await engine.done("POST", IMAGES, body)
    assert "error" not in operation, operation
    return (await engine.call("GET", f"{IMAGES}/{name}"))[1]


async def test_a_disk_is_saved_when_its_machine_was_shut_down_and_dropped_with_its_image(
    engine: Engine,
) -> None:
    image = await made(engine, "one")
    assert (image["status"], image["archiveSizeBytes"]) == ("READY", "7")
    await engine.done("DELETE", f"{IMAGES}/one")
    saved = image["id"]
    assert done(engine) == [("stop", "a"), ("save", "a", saved), ("delete", saved)]
    assert (await engine.call("GET", f"{IMAGES}/one"))[0] == 404


async def test_a_machine_boots_from_what_was_saved_and_from_the_root_otherwise(
    engine: Engine,
) -> None:
    image = await made(engine, "one")
    disks = [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": FAMILY}}]
    await stopped(engine, "b", disks=disks)
    assert engine.backend.specs["a"].image == ""
    assert engine.backend.specs["b"].image == image["id"]
    again = await made(engine, "two", DISK.replace("/a", "/b"))
    assert (await engine.call("GET", f"{IMAGES}/family/f"))[1]["id"] == again["id"]


async def test_a_disk_that_cannot_be_saved_is_no_image(engine: Engine) -> None:
    await stopped(engine, "full")
    body = {"name": "one", "sourceDisk": DISK.replace("/a", "/full")}
    operation = await engine.done("POST", IMAGES, body)
    assert "no space left" in operation["error"]["errors"][0]["message"]
    assert (await engine.call("GET", f"{IMAGES}/one"))[0] == 404


async def test_an_image_that_is_being_made_cannot_be_booted_yet(engine: Engine) -> None:
    engine.operations.real = True
    body = {"name": "one", "family": "f", "sourceDisk": DISK}
    status, operation = await engine.call("POST", IMAGES, body)
    assert status == 200
    assert (await engine.call("GET", f"{IMAGES}/one"))[1]["status"] == "PENDING"
    assert (await engine.call("GET", f"{IMAGES}/family/f"))[0] == 404
    source = {"sourceImage": "projects/sandbox-project/global/images/one"}
    disks = [{"boot": True, "initializeParams": source}]
    described = {"name": "b", **properties(disks=disks)}
    answer = (await engine.call("POST", f"{ZONE}/instances", described))[1]
    assert answer["error"]["errors"][0]["reason"] == "resourceNotReady"
    await engine.finished(operation)
    assert (await engine.call("GET", f"{IMAGES}/family/f"))[0] == 200


async def test_disks_come_with_an_instance_that_is_made_and_not_with_one_that_fails(
    engine: Engine,
) -> None:
    disks = [{"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": BASE}}]
    described = {"name": "bad", **properties(disks=disks)}
    _unused, operation = await engine.call("POST", f"{ZONE}/instances", described)
    found = (await engine.call("GET", f"{ZONE}/disks"))[1]["items"]
    assert sorted(disk["name"] for disk in found) == ["a", "bad"]
    assert "bad did not start" in str(await engine.finished(operation))
    found = (await engine.call("GET", f"{ZONE}/disks"))[1]["items"]
    assert [disk["name"] for disk in found] == ["a"]
