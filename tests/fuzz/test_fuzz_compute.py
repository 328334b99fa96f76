# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of a Compute Engine that is none, for the inventory and for everything that reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from ansible_collections.flux.burst.plugins.inventory import gce
from ansible_collections.flux.burst.plugins.module_utils import (
    _gce_burst,
    _gce_client,
    _gce_creation,
    _gce_existing_network,
    _gce_image,
    _gce_instances,
    _gce_network,
    _gce_refusal,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession
from ansible_collections.flux.burst.plugins.modules import (
    gce_burst_info,
    gce_machine_type_info,
    gce_os_login,
)
from fuzzing import changed_json, fuzzed, survives
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

ROOT = "https://www.googleapis.com/compute/v1/projects/p"
TIME = "2026-11-26T11:00:00.000-08:00"
INSTANCE: dict[str, Any] = {
    "id": "42",
    "name": "b-1",
    "zone": f"{ROOT}/zones/us-central1-a",
    "status": "RUNNING",
    "machineType": f"{ROOT}/zones/us-central1-a/machineTypes/n2-standard-4",
    "creationTimestamp": TIME,
    "lastStartTimestamp": TIME,
    "labels": {"flux-burst": "mine", "flux-burst-user": "sa_1"},
    "labelFingerprint": "x=",
    "metadata": {
        "fingerprint": "y=",
        "items": [{"key": "ssh-keys", "value": "burst:ssh-ed25519 A"}],
    },
    "tags": {"items": ["flux"]},
    "networkInterfaces": [
        {
            "networkIP": "10.10.0.2",
            "network": f"{ROOT}/global/networks/mine-net",
            "accessConfigs": [{"natIP": "203.0.113.7"}],
        }
    ],
    "scheduling": {"provisioningModel": "SPOT", "maxRunDuration": {"seconds": "14400"}},
    "disks": [{"diskSizeGb": "50", "boot": True, "source": f"{ROOT}/zones/z/disks/b-1"}],
    "serviceAccounts": [{"email": "a@b"}],
    "guestAccelerators": [
        {"acceleratorType": f"{ROOT}/acceleratorTypes/l4", "acceleratorCount": 1}
    ],
    "targetLink": f"{ROOT}/zones/us-central1-a/instances/b-1",
    "insertTime": TIME,
    "users": [],
    "description": "flux-burst=mine",
    "address": "203.0.113.8",
}
KINDS = {kind: [INSTANCE] for kind in (*_gce_burst.KINDS, "operations")}
AGGREGATED = {"items": {"zones/us-central1-a": KINDS, "regions/us-central1": {"warning": {}}}}
LIST = {"items": [INSTANCE]}
TYPES = {
    "items": [
        {
            "name": "n2-standard-4",
            "guestCpus": 4,
            "memoryMb": 16384,
            "accelerators": [{"guestAcceleratorType": "nvidia-l4", "guestAcceleratorCount": 1}],
        }
    ],
    "quotas": [{"metric": "N2_CPUS", "limit": 100.0, "usage": 4.0}],
}
IMAGE = {
    "id": "7",
    "name": "flux-20261126",
    "family": "flux",
    "architecture": "X86_64",
    "status": "READY",
    "creationTimestamp": TIME,
    "labels": {"flux-burst-image": "mine"},
    "labelFingerprint": "z=",
    "diskSizeGb": "10",
    "archiveSizeBytes": "1234567890",
    "deprecated": {"state": "DEPRECATED"},
    "sourceDisk": f"{ROOT}/zones/z/disks/b",
    "selfLink": f"{ROOT}/global/images/flux-20261126",
}
SUBNETWORK = {
    "network": f"{ROOT}/global/networks/hpc",
    "ipCidrRange": "10.10.0.0/24",
    "purpose": "PRIVATE",
    "firewalls": [
        {
            "direction": "INGRESS",
            "priority": 1000,
            "sourceRanges": ["35.235.240.0/20"],
            "targetTags": ["flux"],
            "allowed": [{"IPProtocol": "tcp", "ports": ["22", "80-90"]}],
            "denied": [{"IPProtocol": "udp"}],
        }
    ],
    "firewallPolicys": [
        {
            "rules": [
                {
                    "action": "allow",
                    "direction": "INGRESS",
                    "match": {
                        "srcIpRanges": ["0.0.0.0/0"],
                        "layer4Configs": [{"ipProtocol": "tcp", "ports": ["22"]}],
                    },
                }
            ]
        }
    ],
    "items": [
        {
            "network": f"{ROOT}/global/networks/hpc",
            "nats": [
                {
                    "sourceSubnetworkIpRangesToNat": "LIST_OF_SUBNETWORKS",
                    "subnetworks": [{"name": f"{ROOT}/regions/r/subnetworks/hpc"}],
                }
            ],
        }
    ],
}
PROFILE = {
    "posixAccounts": [{"username": "sa_1", "primary": True}],
    "sshPublicKeys": {
        "aa": {
            "key": "ssh-ed25519 AAAA me",
            "fingerprint": "aa",
            "expirationTimeUsec": "1795517778",
        }
    },
}
MACHINE = {
    "queryValue": {"items": [{"key": "ssh-ed25519", "value": "AAAA"}]},
    "contents": "booting\r\nbooted\n",
}
PARAMS: dict[str, Any] = {
    "project": "p",
    "burst": "mine",
    "hosts": ["b-1", "b-2"],
    "zones": ["us-central1-a"],
    "machine_types": ["n2-standard-4"],
    "image": "projects/p/global/images/family/flux",
    "labels": {},
    "metadata": {},
    "max_run_duration": "4h",
    "public_address": False,
    "spot": False,
    "disk_size_gb": 50,
    "service_account": None,
    "tags": [],
    "min_cpu_platform": None,
    "accelerator_type": None,
    "accelerator_count": 1,
    "keep": 1,
    "name": "flux-20261126",
    "architecture": None,
    "description": None,
    "family": "flux",
    "source_disk": None,
    "best_effort": False,
    "subnetwork": None,
}
SPEC = {**gce.DEFAULTS, "burst_project": "p", "burst_name": "mine", "burst_directory": "/bursts"}
AUTH = Auth(access_token="ya29.test")


def _inventory(session: GceSession) -> None:
    gce.GceSession = lambda *_unused: session
    rows = gce.read(SPEC, ["p"], "mine")
    first = gce.gateways(rows)
    for name, row in gce.named(rows, "mine"):
        assert name
        assert gce.host_variables(row, SPEC)["iap_zone"] == row["zone"]
        assert first[gce.burst_of(row)]


def _burst(session: GceSession) -> None:
    found = {
        kind: gce_burst_info.read(session, "p", "mine", kind) for kind in ("instances", "disks")
    }
    found["addresses"] = gce_burst_info.read(session, "p", "mine", "addresses")
    grouped = _gce_burst.grouped(found, {"mine": "mine"}, {}, 1795525200.0)
    json.dumps(gce_burst_info.result(grouped))


def _instances(session: GceSession) -> None:
    rows = session.instances("p", "mine", _gce_instances.FIELDS)
    existing = {row["name"]: row for row in rows}
    preempted = session.aggregated("p", "operations", "targetLink,insertTime")
    _gce_instances.losses(PARAMS, existing, preempted)
    _gce_instances.drift(PARAMS, existing)
    _gce_network.users("mine-net", rows)
    for row in rows:
        _gce_instances.metadata_body(row, {"a": "b"})
        _gce_instances.labels_body(row, {"a": "b"})


def _types(session: GceSession) -> None:
    found = gce_machine_type_info.read(session, "p", ["us-central1-a"], ["n2-standard-4"])
    gce_machine_type_info.machine_type(found["n2-standard-4"], {}, "us-central1")
    _gce_creation.Creation(PARAMS, session).check(["b-1"])


def _images(session: GceSession) -> None:
    rows = list(session.listed("projects/p/global/images", _gce_image.IMAGE_FIELDS))
    ordered = [_gce_image.row(each) for each in _gce_image.newest_first(rows)]
    _gce_image.newest(ordered)
    _gce_image.plan_present(PARAMS, _gce_image.Actual(rows[0], None, None, rows)) if rows else None


def _disk(session: GceSession) -> None:
    _gce_image.boot_disk(
        session.get("projects/p/zones/z/instances/b-1", fields="name,status,disks")
    )


def _network(session: GceSession) -> None:
    path = "projects/p/regions/r/subnetworks/hpc"
    found = session.get(path, fields="network,ipCidrRange,privateIpGoogleAccess,purpose")
    _gce_existing_network.check_subnetwork(path, found, None, 3)
    rules = session.get("projects/p/global/networks/hpc/getEffectiveFirewalls")
    _gce_existing_network.check_ssh(path, rules, ["flux"])
    routers = list(session.listed("projects/p/regions/r/routers", "network,nats"))
    _gce_existing_network.egress_warning(path, found, routers)


def _profile(session: GceSession) -> None:
    profile = object.__new__(gce_os_login.Profile)
    profile.params = {"project": "p"}
    profile.user, profile.public_key = "users/me", "ssh-ed25519 AAAA"
    profile.session = session
    profile.read()
    assert profile.expires >= 0 or profile.key


def _machine(session: GceSession) -> None:
    session.host_keys("p", "z", "b-1")
    session.serial_lines("p", "z", "b-1", 3)


READERS: list[tuple[Callable[[GceSession], None], Any]] = [
    (_burst, {**AGGREGATED, "nextPageToken": ""}),
    (_instances, AGGREGATED),
    (_types, TYPES),
    (_images, {"items": [IMAGE]}),
    (_disk, INSTANCE),
    (_network, SUBNETWORK),
    (_profile, PROFILE),
    (_machine, MACHINE),
]


class Answer:
    """What requests gives back."""

    def __init__(self, status: int, text: str) -> None:
        self.status_code, self.text = status, text
        self.reason, self.headers = "Whatever", {"Retry-After": "0", "Content-Type": "text/html"}

    def json(self) -> Any:
        """As requests reads it."""
        return json.loads(self.text)


def session(text: str, status: int = 200) -> GceSession:
    """Return a session that always gets the same answer."""
    made = object.__new__(GceSession)
    made.endpoint = "https://compute.googleapis.com"
    made._identity = SimpleNamespace(who="me")
    made._session = SimpleNamespace(request=lambda *_unused, **_more: Answer(status, text))
    return made


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask nothing twice, and put back what is replaced for the inventory."""
    monkeypatch.setattr(_gce_refusal, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(_gce_client, "OPERATION_SECONDS", 0.0)
    monkeypatch.setattr(gce, "GceSession", GceSession)


@fuzzed(0.08, text=changed_json(AGGREGATED))
def test_answers_for_the_inventory(text: str) -> None:
    survives(lambda: _inventory(session(text)), GceError)


@st.composite
def readings(draw: st.DrawFn) -> tuple[Callable[[GceSession], None], str]:
    """A reader, and what it reads."""
    reader, answer = draw(st.sampled_from(READERS))
    return reader, draw(changed_json(answer))


@fuzzed(0.14, reading=readings())
def test_answers_of_compute_engine(reading: tuple[Callable[[GceSession], None], str]) -> None:
    reader, text = reading
    survives(lambda: reader(session(text)), GceError)


REFUSAL = {
    "error": {
        "code": 403,
        "message": "Required 'compute.instances.create' permission for 'projects/p'",
        "errors": [{"reason": "forbidden", "message": "no", "domain": "global"}],
        "details": [{"@type": "x", "reason": "SERVICE_DISABLED"}],
    }
}
STATUSES = st.sampled_from([200, 204, 302, 400, 401, 403, 404, 409, 412, 429, 500, 503, 599])


@fuzzed(0.03, text=changed_json(REFUSAL), status=STATUSES)
def test_refusals(text: str, status: int) -> None:
    survives(lambda: session(text, status).get("projects/p/zones/z/instances/b"), GceError)


OPERATION = {
    "id": "1",
    "name": "operation-1",
    "status": "DONE",
    "targetLink": f"{ROOT}/zones/z/instances/b-1",
    "httpErrorStatusCode": 0,
    "error": {"errors": [{"code": "QUOTA_EXCEEDED", "message": "no more"}]},
    "warnings": [{"code": "NO_RESULTS", "message": "x"}],
}


class Answers(HTTPAdapter):
    """What Google's own client gets in place of a connection: the answer that is told."""

    told = (200, "")

    def send(self, request: Any, **_unused: Any) -> requests.Response:
        """Return it."""
        made = requests.Response()
        made.status_code, text = self.told
        made._content = text.encode("utf-8", "surrogatepass")
        made.headers["Content-Type"] = "application/json"
        made.reason, made.request, made.url = "Whatever", request, request.url
        return made


@functools.cache
def google_client() -> _gce_client.GceClient:
    """Return a client of such answers; to make one takes long."""
    made = _gce_client.GceClient("p", "http://127.0.0.1", AUTH, lambda _text: None)
    for name in ("InstancesClient", "ZoneOperationsClient"):
        made._client(name)._transport._session.mount("http://", Answers())
    return made


@fuzzed(0.02, text=changed_json(OPERATION), status=STATUSES)
def test_answers_to_changes(text: str, status: int) -> None:
    client = google_client()
    Answers.told = (status, text)

    def change() -> None:
        client.wait(client.insert("instance", {"name": "b-1"}, "id", zone="us-central1-a"))

    survives(change, GceError)
