# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two bursts that come and go at the same time never leave one of them without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _gce_release
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_foundation import (
    ExistingNetwork,
    OwnNetwork,
)

PARAMS: dict[str, Any] = {
    "project": "p",
    "burst": "a",
    "foundation": "hpc",
    "region": "r1",
    "subnet_cidr": "10.0.0.0/24",
    "ssh_ranges": [],
    "nat_addresses": 0,
    "compute_endpoint": "http://127.0.0.1:9",
    "credentials_file": None,
    "network": None,
    "subnetwork": "shared",
    "machines": 0,
    "tags": [],
}
BASE = "https://www.googleapis.com/compute/v1/projects/p"
IN_USE = GceError("it is used", status=400, codes=(_gce_release.IN_USE[0],))
EXISTS = GceError("it is there", status=409, codes=("alreadyExists",))
MISSING = GceError("it is not there", status=404)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between retries."""
    monkeypatch.setattr(_gce_release, "PAUSE", 0.0)


@pytest.fixture
def _over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time for retries that is over after the first one."""
    monkeypatch.setattr(_gce_release, "RELEASE_SECONDS", 0.0)


class Cloud:
    """Holds resources by kind and name, and the machines' bursts; it answers as session and as client."""

    def __init__(self, *machines: str) -> None:
        self.held: dict[tuple[str, str], dict[str, Any]] = {}
        self.machines = list(machines)
        self.failures: list[tuple[str, str, GceError]] = []
        self.stuck = ""
        self.done: list[tuple[str, str]] = []

    # As a session.
    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return a resource."""
        collection, name = path.split("/")[-2:]
        kind = collection.removesuffix("s")
        if (kind, name) not in self.held:
            raise MISSING
        return self.held[kind, name]

    def listed(self, path: str, fields: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield a global collection."""
        yield from self._of(path.rpartition("/")[2])

    def aggregated(self, project: str, kind: str, fields: str, **query: str) -> Any:
        """Yield a collection of every place, or the machines in the network."""
        if kind == "instances":
            nics = [{"network": f"{BASE}/global/networks/hpc-net"}]
            return [
                {"name": f"{burst}-1", "labels": {"flux-burst": burst}, "networkInterfaces": nics}
                for burst in self.machines
            ]
        return self._of(kind)

    def _of(self, collection: str) -> list[dict[str, Any]]:
        return [
            {**body, "region": f"{BASE}/regions/r1"}
            for (kind, _name), body in self.held.items()
            if collection == f"{kind}s"
        ]

    # As a client.
    def insert(self, kind: str, body: Any, request_id: str, **place: str) -> tuple[str, str]:
        """Make a resource."""
        self._fail("insert", body["name"])
        self.held[kind, body["name"]] = {**body}
        self.done.append(("insert", body["name"]))
        return kind, body["name"]

    def delete(self, kind: str, name: str, **place: str) -> tuple[str, str]:
        """Delete a resource."""
        self._fail("delete", name)
        del self.held[kind, name]
        self.done.append(("delete", name))
        return kind, name

    def together(self, starts: Iterable[Callable[[], Any]]) -> None:
        """Make changes one after another."""
        for start in starts:
            start()

    def wait(self, started: Any) -> None:
        """Wait for nothing."""

    def _fail(self, verb: str, name: str) -> None:
        if (verb, name) == ("delete", self.stuck):
            raise IN_USE
        for failure in self.failures:
            if failure[:2] == (verb, name):
                self.failures.remove(failure)
                raise failure[2]


def network(cloud: Cloud, **params: Any) -> OwnNetwork:
    """Return burst a's foundation in a cloud."""
    made = OwnNetwork({**PARAMS, **params}, cloud)  # type: ignore[arg-type]
    made.__dict__["client"] = cloud
    return made


def built(*machines: str) -> Cloud:
    """Return a cloud that has the foundation."""
    cloud = Cloud(*machines)
    assert network(cloud).present(check=False)["changed"]
    cloud.done.clear()
    return cloud


def test_a_burst_that_has_just_moved_in_keeps_the_whole_foundation() -> None:
    cloud = built()
    cloud.failures = [("delete", "hpc-subnet", IN_USE)]
    leaving = network(cloud)
    seen = iter([[], ["b"]])
    leaving._others = lambda **_given: next(seen)  # type: ignore[method-assign]
    assert leaving.absent(check=False) == {
        "changed": False,
        "diff": [],
        "resources": [],
        "nat_ips": [],
    }
    assert leaving.kept_for == ["b"]
    assert cloud.done == []


@pytest.mark.usefixtures("_over_at_once")
def test_a_shared_foundation_that_somebody_unknown_uses_is_kept_and_told() -> None:
    cloud = built()
    cloud.stuck = "hpc-subnet"
    leaving = network(cloud)
    assert leaving.absent(check=False)["changed"] is False
    [(change, error)] = leaving.refused
    assert (change.name, str(error)) == ("hpc-subnet", "it is used")
    assert cloud.done == []


@pytest.mark.usefixtures("_over_at_once")
def test_a_bursts_own_network_that_somebody_unknown_uses_is_an_error() -> None:
    cloud = Cloud()
    network(cloud, foundation=None).present(check=False)
    cloud.stuck = "a-subnet"
    with pytest.raises(GceError, match="it is used"):
        network(cloud, foundation=None).absent(check=False)


def test_what_was_let_go_late_is_deleted_all_the_same() -> None:
    cloud = built()
    cloud.failures = [("delete", "hpc-net", IN_USE), ("delete", "hpc-net", IN_USE)]
    assert len(network(cloud).absent(check=False)["resources"]) == 5
    assert cloud.held == {}


def test_machines_of_the_burst_itself_are_an_error() -> None:
    cloud = built("a", "b")
    with pytest.raises(GceError, match=r"found 1 \(a-1\): delete them first"):
        network(cloud).absent(check=False)
    assert cloud.done == []


def test_in_check_mode_the_burst_s_own_machines_are_taken_for_deleted() -> None:
    cloud = built("a")
    assert len(network(cloud).absent(check=True)["resources"]) == 5
    assert cloud.done == []


@pytest.mark.parametrize("check", [False, True])
def test_machines_of_another_burst_keep_it_without_a_try(check: bool) -> None:
    cloud = built("b", "c")
    staying = network(cloud)
    assert staying.absent(check=check)["changed"] is False
    assert staying.kept_for == ["b", "c"]
    assert cloud.done == []


def test_two_bursts_that_make_it_at_once_end_with_one() -> None:
    cloud = Cloud()
    cloud.failures = [("insert", "hpc-net", EXISTS), ("insert", "hpc-router", EXISTS)]
    result = network(cloud).present(check=False)
    assert result["changed"] is True
    assert len(cloud.held) == 5
    own = Cloud()
    own.failures = [("insert", "a-net", EXISTS)]
    with pytest.raises(GceError, match="it is there"):
        network(own, foundation=None).present(check=False)


def test_what_another_burst_deleted_meanwhile_is_made_again() -> None:
    cloud = Cloud()
    coming = network(cloud)
    act = coming.act

    def interrupted(stage: Any) -> None:
        act(stage)
        if ("router", "hpc-router") in cloud.held and len(cloud.done) == 5:
            del cloud.held["router", "hpc-router"]

    coming.act = interrupted  # type: ignore[method-assign]
    coming.present(check=False)
    assert [name for _verb, name in cloud.done].count("hpc-router") == 2
    assert len(cloud.held) == 5


class Host:
    """A shared VPC's project as one sees it who may use a subnetwork and little else."""

    def __init__(self, forbidden: tuple[str, ...], private: bool, status: int = 403) -> None:
        self.forbidden, self.private, self.status = forbidden, private, status

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the subnetwork or the rules."""
        if "/subnetworks/" in path:
            link = f"{BASE}/global/networks/vpc"
            return {
                "network": link,
                "ipCidrRange": "10.0.0.0/24",
                "privateIpGoogleAccess": self.private,
            }
        self._refuse("rules")
        tcp = [{"IPProtocol": "tcp"}]
        rule = {"direction": "INGRESS", "sourceRanges": ["0.0.0.0/0"], "allowed": tcp}
        return {"firewalls": [rule]}

    def listed(self, path: str, fields: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the routers: none."""
        self._refuse("routers")
        return iter(())

    def _refuse(self, what: str) -> None:
        if what in self.forbidden:
            raise GceError("you may not", status=self.status)


@pytest.mark.parametrize(
    ("forbidden", "private", "words"),
    [
        ((), True, []),
        ((), False, ["found neither"]),
        (("rules",), True, ["compute.networks.getEffectiveFirewalls not granted"]),
        (("routers",), False, ["compute.routers.list not granted"]),
        (("routers",), True, []),
    ],
)
def test_what_may_not_be_read_is_a_warning(
    forbidden: tuple[str, ...], private: bool, words: list[str]
) -> None:
    existing = ExistingNetwork(PARAMS, Host(forbidden, private))  # type: ignore[arg-type]
    existing.check()
    assert len(existing.warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, existing.warnings, strict=True))
    assert existing.network == "projects/p/global/networks/vpc"


def test_every_other_failure_to_read_is_raised() -> None:
    host = Host(("rules",), private=True, status=500)
    with pytest.raises(GceError, match="you may not"):
        ExistingNetwork(PARAMS, host).check()  # type: ignore[arg-type]
