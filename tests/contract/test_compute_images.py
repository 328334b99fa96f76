# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images, made by our modules and by Google's own clients, in the sandbox's Compute Engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from compute_bodies import FOUNDATION, ZONE, single
from compute_server import ComputeServer
from gce_modules import Modules, changed
from google.cloud import compute_v1
from test_compute_clients import client, gcloud

from sandbox.server.validate import check_log

pytestmark = pytest.mark.slow

PROJECT = "sandbox-project"
FAMILY = "flux-fw-bursted-x86-64"
ALWAYS_THERE = f"{FAMILY}-v20261101"
DISK = f"projects/{PROJECT}/zones/us-central1-a/disks"
IMAGES = "global/images"


class Baking:
    """gce_image and gce_image_info for one burst."""

    def __init__(self, server: ComputeServer, burst: str = "t") -> None:
        self.server, self.modules = server, Modules(server, burst)

    def image(self, name: str, /, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """Run gce_image."""
        source = {} if {"state", "source_disk"} & set(options) else {"source_instance": "build"}
        zone = {"zone": "us-central1-a"} if source else {}
        wanted = {"name": name, "family": FAMILY, **source, **zone, **options}
        return self.modules.run("gce_image", check=check, **wanted)

    def failure(self, name: str, /, **options: Any) -> str:
        """Return the message of a run that has to fail, which is one line."""
        result = self.image(name, **options)
        assert result.get("failed"), result
        assert "\n" not in result["msg"]
        return str(result["msg"])

    def listed(self, **options: Any) -> dict[str, Any]:
        """Run gce_image_info, which has no burst."""
        return Modules(self.server, "").run("gce_image_info", **options)

    def names(self, **options: Any) -> list[str]:
        """Return the names that gce_image_info lists."""
        return [row["name"] for row in self.listed(**options)["images"]]


@pytest.fixture(scope="module")
def baking(compute_server: ComputeServer) -> Baking:
    """A server with a network and nothing in it."""
    for path, body in FOUNDATION:
        compute_server.done("POST", path, body)
    return Baking(compute_server)


@pytest.fixture
def bake(baking: Baking) -> Iterator[Baking]:
    """A build machine that runs; it and all images that were made are deleted at the end."""
    baking.server.done("POST", f"{ZONE}/instances", single("build"))
    yield baking
    baking.server.done("DELETE", f"{ZONE}/instances/build")
    for name in made(baking.server):
        baking.server.done("DELETE", f"{IMAGES}/{name}")


def made(server: ComputeServer) -> list[str]:
    """Return the images that are not the sandbox's own."""
    found = server.call("GET", IMAGES)[1]["items"]
    return [image["name"] for image in found if image["name"] != ALWAYS_THERE]


def status(server: ComputeServer) -> str:
    """Return the status of the build machine."""
    return str(server.call("GET", f"{ZONE}/instances/build")[1]["status"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "Bad_Name"}, "name: wanted lower case letters"),
        ({"family": "Bad"}, "family: wanted lower case letters"),
        ({"keep": 0}, "keep: wanted 1 or more"),
        ({"keep": 1, "family": None}, "keep: wanted a family"),
        ({"architecture": "MIPS"}, "architecture"),
        ({"source_disk": "disks/build"}, "source_disk: wanted projects/PROJECT"),
        ({"source_disk": f"{DISK}/none"}, "disks/none to make it from, found none"),
        ({"source_instance": "none"}, "instance none in zone us-central1-a"),
        ({}, "wanted instance build stopped, found it RUNNING"),
        ({"compute_endpoint": "http://127.0.0.1:9"}, "Connection refused"),
    ],
)
def test_bad_parameters_are_told_and_change_nothing(
    bake: Baking, options: dict[str, Any], said: str
) -> None:
    assert said in bake.failure("one", **options)
    assert made(bake.server) == []
    assert status(bake.server) == "RUNNING"


def test_an_image_is_made_once_changed_in_place_and_deleted_once(bake: Baking) -> None:
    server = bake.server
    wanted: dict[str, Any] = {
        "stop_instance": True,
        "description": "Flux 0.88.0",
        "labels": {"team": "hpc"},
        "architecture": "X86_64",
        "storage_locations": ["us-central1"],
        "guest_os_features": ["GVNIC"],
    }
    creation = [("instance", "build", "update"), ("image", "one", "create")]
    planned = bake.image("one", check=True, **wanted)
    assert changed(planned) == creation
    assert planned["image"] == {"name": "one"}
    assert (made(server), status(server)) == ([], "RUNNING")

    done = bake.image("one", **wanted)
    assert changed(done) == creation
    assert done["diff"] == planned["diff"]
    assert status(server) == "TERMINATED"
    image = server.call("GET", f"{IMAGES}/one")[1]
    assert image["sourceDisk"].endswith(f"{DISK}/build")
    assert image["labels"] == {"team": "hpc", "flux-burst-image": "t"}
    assert image["guestOsFeatures"] == [{"type": "GVNIC"}]
    assert image["storageLocations"] == ["us-central1"]
    assert (done["image"]["status"], done["image"]["family"]) == ("READY", FAMILY)
    assert done["image"]["link"] == f"projects/{PROJECT}/{IMAGES}/one"
    assert changed(bake.image("one", **wanted)) == []
    assert changed(bake.image("one", check=True, **wanted)) == []

    for option, value in (
        ("description", "Flux 0.89.0"),
        ("family", "another-family"),
        ("labels", {"team": "other"}),
    ):
        wanted[option] = value
        assert changed(bake.image("one", check=True, **wanted)) == [("image", "one", "update")]
        [shown] = bake.image("one", **wanted)["diff"]
        assert list(shown["after"]) == [option]
        assert changed(bake.image("one", **wanted)) == []
    image = server.call("GET", f"{IMAGES}/one")[1]
    assert (image["description"], image["family"]) == ("Flux 0.89.0", "another-family")
    assert image["labels"]["team"] == "other"

    deletion = [("image", "one", "delete")]
    assert changed(bake.image("one", state="absent", check=True)) == deletion
    assert made(server) == ["one"]
    assert changed(bake.image("one", state="absent")) == deletion
    assert changed(bake.image("one", state="absent")) == []


def test_an_image_of_that_name_from_something_else_is_never_replaced(bake: Baking) -> None:
    server = bake.server
    made_first = bake.image("one", stop_instance=True)["image"]
    assert "wanted architecture ARM64, found one of X86_64" in bake.failure(
        "one", architecture="ARM64"
    )
    server.done("DELETE", f"{ZONE}/instances/build")
    assert changed(bake.image("one")) == [], "the machine need not be there any more"
    server.done("POST", f"{ZONE}/instances", single("build"))
    assert "found one of another disk, which is not replaced" in bake.failure("one")
    assert bake.listed(family=FAMILY)["images"][0]["id"] == made_first["id"]


def test_a_family_is_its_newest_image_that_is_ready_and_not_deprecated(bake: Baking) -> None:
    assert bake.listed(family=FAMILY)["newest"] == ALWAYS_THERE
    for name in ("one", "two"):
        bake.image(name, stop_instance=True)
    assert bake.names(family=FAMILY) == ["two", "one", ALWAYS_THERE]
    assert bake.names(filter="labels.flux-burst-image=t") == ["two", "one"]
    assert bake.names(family=FAMILY, filter="name=one OR name=two") == ["two", "one"]
    assert bake.listed(family="no-such")["images"] == []
    for wanted, deprecated in (("two", {"state": "DEPRECATED"}), ("one", {"state": "ACTIVE"})):
        assert bake.server.call("GET", f"{IMAGES}/family/{FAMILY}")[1]["name"] == wanted
        assert bake.listed(family=FAMILY)["newest"] == wanted
        bake.server.done("POST", f"{IMAGES}/two/deprecate", deprecated)
    rows = bake.listed(family=FAMILY)
    assert (rows["newest"], rows["images"][0]["deprecated"]) == ("two", "")


def test_keep_deletes_older_images_of_this_burst_and_no_others(bake: Baking) -> None:
    Baking(bake.server, "u").image("other-burst", stop_instance=True)
    for name in ("one", "two"):
        bake.image(name, stop_instance=True)
    bake.image("other-family", family="another")
    result = bake.image("three", keep=2)
    assert changed(result) == [("image", "three", "create"), ("image", "one", "delete")]
    assert sorted(made(bake.server)) == ["other-burst", "other-family", "three", "two"]
    assert changed(bake.image("three", keep=2)) == []
    assert changed(bake.image("three", keep=1)) == [("image", "two", "delete")]


def test_a_machine_boots_from_a_made_image_and_not_from_one_of_another_architecture(
    bake: Baking,
) -> None:
    bake.image("one", stop_instance=True)
    bake.image("arm", architecture="ARM64", family="flux-fw-bursted-arm64")
    disk = {"boot": True, "autoDelete": True}
    for name, code in (("one", 200), ("arm", 400)):
        source = {"sourceImage": f"projects/{PROJECT}/{IMAGES}/{name}", "diskSizeGb": "20"}
        body = single(f"from-{name}", disks=[{**disk, "initializeParams": source}])
        answer = bake.server.call("POST", f"{ZONE}/instances", body)
        assert answer[0] == code, answer
    assert "every machine type of the sandbox is X86_64" in answer[1]["error"]["message"]
    assert bake.server.call("GET", f"{ZONE}/disks/from-one")[1]["sourceImage"].endswith("/one")
    bake.server.done("DELETE", f"{ZONE}/instances/from-one")


def refused(answer: tuple[int, Any]) -> tuple[int, str]:
    """Return code and reason of an error answer."""
    return answer[0], answer[1]["error"]["errors"][0]["reason"]


def test_compute_engine_refuses_what_it_cannot_make_an_image_of(bake: Baking) -> None:
    server = bake.server
    body = {"name": "one", "sourceDisk": f"{DISK}/build"}
    busy = server.call("POST", IMAGES, body)
    assert refused(busy) == (400, "resourceInUseByAnotherResource")
    assert refused(server.call("POST", f"{IMAGES}?forceCreate=true", body)) == (400, "invalid")
    server.done("POST", f"{ZONE}/instances/build/stop")
    assert refused(server.call("POST", IMAGES, {**body, "name": ALWAYS_THERE}))[0] == 409
    assert refused(server.call("DELETE", f"{IMAGES}/{ALWAYS_THERE}")) == (403, "forbidden")
    assert refused(server.call("DELETE", f"{IMAGES}/none")) == (404, "notFound")
    server.done("POST", IMAGES, body)
    stale = {"labels": {}, "labelFingerprint": "AAAAAAAAAAA="}
    assert refused(server.call("POST", f"{IMAGES}/one/setLabels", stale))[0] == 412


def test_a_disk_goes_with_its_instance_unless_it_is_told_to_stay(bake: Baking) -> None:
    server = bake.server
    kept = single("keeper")
    kept["disks"][0]["autoDelete"] = False
    server.done("POST", f"{ZONE}/instances", kept)
    found = server.call("GET", f"{ZONE}/disks")[1]["items"]
    assert [disk["name"] for disk in found] == ["build", "keeper"]
    assert refused(server.call("DELETE", f"{ZONE}/disks/keeper"))[0] == 400
    server.done("DELETE", f"{ZONE}/instances/keeper")
    assert server.call("GET", f"{ZONE}/disks/keeper")[1].get("users") is None
    lost = server.call("POST", IMAGES, {"name": "one", "sourceDisk": f"{DISK}/keeper"})
    assert refused(lost) == (400, "invalid")
    server.done("DELETE", f"{ZONE}/disks/keeper")
    assert server.call("GET", "aggregated/disks")[0] == 200


def test_google_s_client_makes_reads_and_deletes_an_image(bake: Baking) -> None:
    server = bake.server
    images = client(compute_v1.ImagesClient, server)
    waiter = client(compute_v1.GlobalOperationsClient, server)
    server.done("POST", f"{ZONE}/instances/build/stop")
    resource = compute_v1.Image(name="by-client", family=FAMILY, source_disk=f"{DISK}/build")
    started = images.insert_unary(project=PROJECT, image_resource=resource)
    done = waiter.wait(project=PROJECT, operation=started.name)
    assert not done.error.errors
    assert images.get_from_family(project=PROJECT, family=FAMILY).name == "by-client"
    assert [it.name for it in images.list(project=PROJECT)] == ["by-client", ALWAYS_THERE]
    waiter.wait(
        project=PROJECT,
        operation=images.delete_unary(project=PROJECT, image="by-client").name,
    )
    assert made(server) == []


def test_every_request_agrees_with_google_s_discovery_document(baking: Baking) -> None:
    assert check_log(baking.server.state / "requests.jsonl") == []


@pytest.mark.skipif(not shutil.which("gcloud"), reason="gcloud is not installed")
def test_gcloud_makes_describes_deprecates_and_deletes_an_image(bake: Baking) -> None:
    server = bake.server
    server.done("POST", f"{ZONE}/instances/build/stop")
    gcloud(
        server,
        *("images", "create", "by-gcloud", f"--family={FAMILY}", "--labels=team=hpc"),
        *("--source-disk=build", "--source-disk-zone=us-central1-a"),
        *("--guest-os-features=GVNIC", "--architecture=X86_64", "--storage-location=us"),
    )
    found = gcloud(server, "images", "list", f"--filter=family={FAMILY}")
    assert sorted(image["name"] for image in found) == ["by-gcloud", ALWAYS_THERE]
    words = ("images", "describe-from-family", FAMILY)
    assert gcloud(server, *words)["labels"] == {"team": "hpc"}
    gcloud(server, "images", "update", "by-gcloud", "--update-labels=a=b", "--description=d")
    described = gcloud(server, "images", "describe", "by-gcloud")
    assert (described["labels"], described["description"]) == ({"a": "b", "team": "hpc"}, "d")
    gcloud(server, "images", "deprecate", "by-gcloud", "--state=DEPRECATED")
    assert gcloud(server, *words)["name"] == ALWAYS_THERE
    gcloud(server, "images", "delete", "by-gcloud", "--quiet")
    assert made(server) == []
