# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of gce_image would send, and what it refuses, without anybody to ask."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_image
from ansible_collections.flux.burst.plugins.module_utils._errors import (
    BurstError,
    GceError,
    SpecError,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_image import Actual

LINK = "https://www.googleapis.com/compute/v1/projects/p/zones/z-a/disks/build"
DISK = {"id": "7", "selfLink": LINK}
STOPPED = {"status": "TERMINATED", "disks": [{"boot": True, "source": LINK}]}
RUNNING = {**STOPPED, "status": "RUNNING"}


def params(**changes: Any) -> dict[str, Any]:
    """The module's parameters, as Ansible fills them in."""
    return {
        "name": "one",
        "burst": "b",
        "source_instance": "build",
        "zone": "z-a",
        "source_disk": None,
        "stop_instance": False,
        "family": "f",
        "description": None,
        "labels": {},
        "architecture": None,
        "storage_locations": [],
        "guest_os_features": [],
        "keep": None,
        **changes,
    }


def image(name: str = "one", born: str = "2026-11-25T12:00:00.000-08:00", **changes: Any) -> Any:
    """An image as Compute Engine returns it."""
    return {
        "name": name,
        "id": "1",
        "status": "READY",
        "family": "f",
        "architecture": "X86_64",
        "labels": {"flux-burst-image": "b"},
        "labelFingerprint": "AAAA",
        "sourceDisk": LINK,
        "sourceDiskId": "7",
        "creationTimestamp": born,
        "selfLink": f"https://www.googleapis.com/compute/v1/projects/p/global/images/{name}",
        **changes,
    }


def planned(actual: Actual, **changes: Any) -> list[tuple[str, str, str]]:
    """Kind, name and action of every change, in order."""
    stages = _gce_image.plan_present(params(**changes), actual)
    return [(it.kind, it.name, it.action) for stage in stages for it in stage]


def test_a_body_has_what_was_given_and_nothing_else() -> None:
    assert _gce_image.body(params(family=None), "projects/p/zones/z/disks/d") == {
        "name": "one",
        "sourceDisk": "projects/p/zones/z/disks/d",
        "labels": {"flux-burst-image": "b"},
    }
    whole = params(
        labels={"team": "hpc", "flux-burst-image": "theirs"},
        description="Flux",
        architecture="ARM64",
        storage_locations=["us"],
        guest_os_features=["GVNIC"],
    )
    assert _gce_image.body(whole, "d") == {
        "name": "one",
        "sourceDisk": "d",
        "labels": {"team": "hpc", "flux-burst-image": "b"},
        "family": "f",
        "description": "Flux",
        "architecture": "ARM64",
        "storageLocations": ["us"],
        "guestOsFeatures": [{"type": "GVNIC"}],
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "One"}, "name: wanted lower case"),
        ({"name": "a" * 64}, "name: wanted lower case"),
        ({"family": "f-"}, "family: wanted lower case"),
        ({"source_disk": "build"}, "source_disk: wanted projects/PROJECT/zones"),
        ({"keep": 0}, "keep: wanted 1 or more"),
        ({"keep": 2, "family": None}, "keep: wanted a family"),
    ],
)
def test_what_is_wrong_is_said_before_a_machine_is_stopped(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        _gce_image.check(params(**changes))


def test_every_form_of_a_disk_is_the_same_disk() -> None:
    path = "projects/p/zones/z-a/disks/build"
    assert _gce_image.disk_path(LINK) == _gce_image.disk_path(path) == path
    assert _gce_image.boot_disk(STOPPED) == path
    _gce_image.check(params(source_disk=path))


def test_a_machine_is_stopped_before_its_image_is_made_and_only_where_that_was_asked_for() -> None:
    creation = ("image", "one", "create")
    assert planned(Actual(instance=STOPPED, disk=DISK)) == [creation]
    assert planned(Actual(instance=RUNNING, disk=DISK), stop_instance=True) == [
        ("instance", "build", "update"),
        creation,
    ]
    with pytest.raises(GceError, match="wanted instance build stopped, found it RUNNING"):
        planned(Actual(instance=RUNNING, disk=DISK))
    disk = "projects/p/zones/z-a/disks/build"
    assert planned(Actual(disk=DISK), source_disk=disk, source_instance=None) == [creation]


@pytest.mark.parametrize(
    ("actual", "changes", "said"),
    [
        (Actual(), {}, "wanted instance build in zone z-a to make it from, found none"),
        (Actual(), {"source_disk": "d"}, "wanted d to make it from, found none"),
        (Actual(image(architecture="ARM64")), {"architecture": "X86_64"}, "found one of ARM64"),
        (Actual(image(), disk={**DISK, "id": "8"}), {}, "with id 8, found one of another disk"),
        (Actual(image(status="FAILED")), {}, "wanted none or one that is READY, found it FAILED"),
    ],
)
def test_an_image_is_never_replaced_and_never_made_of_nothing(
    actual: Actual, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BurstError, match=said):
        planned(actual, **changes)


def test_a_second_run_changes_nothing_though_the_machine_is_gone() -> None:
    assert planned(Actual(image())) == []
    assert planned(Actual(image(), STOPPED, DISK)) == []
    assert planned(Actual(image(labels={"flux-burst-image": "b", "theirs": "stays"}))) == []
    assert planned(Actual(image(status="PENDING"))) == []


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        ({"family": "g"}, {"family": "f"}, {"family": "g"}),
        ({"description": "d"}, {"description": ""}, {"description": "d"}),
        (
            {"labels": {"team": "hpc"}},
            {"labels": {"team": "", "flux-burst-image": "b"}},
            {"labels": {"team": "hpc", "flux-burst-image": "b"}},
        ),
    ],
)
def test_what_can_be_changed_is_and_the_diff_shows_that_alone(
    changes: dict[str, Any], before: Any, after: Any
) -> None:
    [[change], _rest] = _gce_image.plan_present(params(**changes), Actual(image()))
    assert (change.action, change.before, change.after) == ("update", before, after)


def test_labels_of_others_stay() -> None:
    theirs = image(labels={"theirs": "stays"})
    assert _gce_image.labels_body(theirs, {"flux-burst-image": "b"}) == {
        "labelFingerprint": "AAAA",
        "labels": {"theirs": "stays", "flux-burst-image": "b"},
    }


def test_keep_counts_the_new_image_and_spares_what_is_not_of_this_burst_and_family() -> None:
    ours = [
        # Noon in California is after noon in Europe.
        image("second", "2026-11-25T12:00:00.000+01:00"),
        image("third", "2026-11-25T12:00:00.000-08:00"),
        image("first", "2026-11-24T12:00:00.000-08:00"),
        image("other-burst", labels={"flux-burst-image": "c"}),
        image("by-hand", labels={}),
        image("other-family", family="g"),
    ]
    actual = Actual(instance=STOPPED, disk=DISK, ours=ours)
    deleted = [("image", name, "delete") for name in ("third", "second", "first")]
    creation = ("image", "one", "create")
    assert planned(actual) == [creation]
    assert planned(actual, keep=1) == [creation, *deleted]
    assert planned(actual, keep=3) == [creation, *deleted[2:]]
    assert planned(actual, keep=4) == [creation]


def test_absent_deletes_what_is_there() -> None:
    assert _gce_image.plan_absent(None) == [[]]
    [[change]] = _gce_image.plan_absent(image())
    assert (change.name, change.action, change.after) == ("one", "delete", {})


def test_a_family_stands_for_its_newest_usable_image() -> None:
    images = [
        image("old", "2026-11-01T12:00:00.000-08:00"),
        image("good", "2026-11-02T12:00:00.000-08:00"),
        image("bad", "2026-11-03T12:00:00.000-08:00", deprecated={"state": "DEPRECATED"}),
        image("late", "2026-11-04T12:00:00.000-08:00", status="PENDING"),
    ]
    rows = [_gce_image.row(each) for each in _gce_image.newest_first(images)]
    assert [row["name"] for row in rows] == ["late", "bad", "good", "old"]
    assert _gce_image.newest(rows) == "good"
    assert _gce_image.newest([]) == ""
    assert rows[2]["link"] == "projects/p/global/images/good"
    assert (rows[1]["deprecated"], rows[2]["source_disk"]) == ("DEPRECATED", "build")


@pytest.mark.parametrize(
    ("family", "test", "made"),
    [
        (None, None, ""),
        ("f", None, "family=f"),
        (None, "a=b OR c=d", "(a=b OR c=d)"),
        ("f", "a=b OR c=d", "family=f AND (a=b OR c=d)"),
    ],
)
def test_a_family_narrows_a_filter(family: str | None, test: str | None, made: str) -> None:
    assert _gce_image.list_filter(family, test) == made
