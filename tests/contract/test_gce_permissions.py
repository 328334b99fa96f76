# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documented roles suffice for a burst and for an image, and without any one permission it is named."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from ansible_collections.flux.burst.plugins.inventory import gce
from ansible_collections.flux.burst.plugins.module_utils import _iap
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth
from ansible_collections.flux.burst.plugins.module_utils._gce_boot import host_keys
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import missing_permissions
from ansible_collections.flux.burst.plugins.module_utils._gce_session import GceSession
from compute_server import TOP, ComputeServer
from gce_modules import HOSTS, Modules, held

from sandbox.server import validate

pytestmark = pytest.mark.slow

ZONE, REGION = "zones/us-central1-a", "regions/us-central1"
ACCOUNT = "nodes@sandbox-project.iam.gserviceaccount.com"
ACT_AS = "iam.serviceAccounts.actAs"
"""On that account, not in the project: it is in neither role."""
NO_LISTENER = "close code 4003"
"""What the relay says of a machine that is a record only, once it lets the caller through."""


def role(name: str) -> list[str]:
    """Return the permissions of a documented role, which gcloud reads."""
    found = yaml.safe_load((TOP / "docs" / name).read_text())
    assert set(found) == {"title", "description", "stage", "includedPermissions"}
    permissions: list[str] = found["includedPermissions"]
    return permissions


BURST, IMAGE = role("iam-role.yaml"), role("iam-role-image.yaml")
Step = Callable[[], str]
"""Something that a playbook does; returns what it fails with, or ""."""


def failure(result: Mapping[str, Any]) -> str:
    """Return what a module fails with, or ""."""
    return str(result["msg"]) if result.get("failed") else ""


class Run:
    """What playbooks ask of Compute Engine and the relay, with every option that takes a permission."""

    def __init__(self, server: ComputeServer) -> None:
        self.server, token = server, server.access_token
        # To load a service account's key takes as long as all else that a module does here.
        self.modules = Modules(server, access_token=token)
        self.session = GceSession(server.compute_endpoint, Auth(access_token=token))
        self.granted: list[str] = []

    def of(self, steps: list[Step], *permissions: str) -> str:
        """Take the steps with these permissions; return what the first failure says."""
        self.granted = list(permissions)
        self.server.grant(self.granted)
        return next(filter(None, (step() for step in steps)), "")

    @property
    def burst(self) -> list[Step]:
        """What burst.yml and teardown.yml do; then the same with all else, for a burst that somebody has changed.

        The short way comes first: that is how far most permissions come when they are missing.
        """
        gone = [lambda: self.machines(state="absent"), lambda: self.network(state="absent")]
        return [
            lambda: self.network(nat_addresses=2),
            self.machines,
            *gone,
            lambda: self.module("gce_burst_info", kinds=["instances"]),
            self.machine_types,
            lambda: self.machines(check=True),
            lambda: self.network(nat_addresses=2),
            self.machines,
            lambda: self.module("gce_burst_info"),
            self.inventory,
            self.host_keys,
            self.console,
            self.tunnel,
            self.changed,
            lambda: self.network(nat_addresses=1),
            self.machines,
            *gone,
        ]

    @property
    def image(self) -> list[Step]:
        """What image.yml does, twice, of which the second deletes the image of the first."""
        return [
            self.network,
            self.machines,
            lambda: self.baked("first"),
            lambda: self.baked("second"),
            lambda: self.machines(state="absent"),
            lambda: self.network(state="absent"),
        ]

    def baked(self, image: str) -> str:
        """Make an image."""
        source = {"source_instance": HOSTS[0], "zone": "us-central1-a", "stop_instance": True}
        options = {"name": image, "family": "f", "keep": 1, **source}
        return failure(self.modules.run("gce_image", **options))

    def machine_types(self) -> str:
        """See what a machine type has."""
        wanted = {"zones": ["us-central1-a"], "names": ["n2-standard-2"]}
        return failure(Modules(self.server, "").run("gce_machine_type_info", **wanted))

    def module(self, name: str, **options: Any) -> str:
        """Run a module of the burst."""
        return failure(self.modules.run(name, **options))

    def network(self, **options: Any) -> str:
        """Make, repair or delete the network."""
        return failure(self.modules.network(**options))

    def machines(self, **options: Any) -> str:
        """Make the machines, or those that are missing, or delete them."""
        if options.get("state") == "absent":
            return self.module("gce_instances", **options)
        special = {"compact": True, "tags": ["hpc"], "public_address": True}
        return failure(self.modules.instances(**special, service_account=ACCOUNT, **options))

    def inventory(self) -> str:
        """Read the inventory."""
        spec = {
            **gce.DEFAULTS,
            "burst_compute_endpoint": self.server.compute_endpoint,
            "burst_credentials_file": str(self.server.credentials_file),
        }
        try:
            found = gce.read(spec, [self.server.project], "t")
        except GceError as error:
            return str(error)
        assert [row["name"] for row in found] == HOSTS
        return ""

    def host_keys(self) -> str:
        """Read a machine's host keys, as the connection plugin does."""
        try:
            assert host_keys(self.session, self.server.project, "us-central1-a", HOSTS[0], 0)
        except GceError as error:
            return str(error)
        return ""

    def console(self) -> str:
        """Wait for the host keys of a machine that has none: its console is read, which is all that can fail here."""
        none = {"method": "instances.getGuestAttributes", "at": "request", "status": 404}
        self.server.faults(none)
        with pytest.raises(GceError, match="stage boot") as caught:
            host_keys(self.session, self.server.project, "us-central1-a", HOSTS[0], 0)
        self.server.faults()
        return str(caught.value) if "unreadable" in str(caught.value) else ""

    def tunnel(self) -> str:
        """Be ssh's ProxyCommand."""
        given = {
            "project": self.server.project,
            "zone": "us-central1-a",
            "instance": HOSTS[0],
            "endpoint": self.server.iap_endpoint,
            "ca-file": str(self.server.ca_file),
            "credentials-file": str(self.server.credentials_file),
        }
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        command = [sys.executable, "-P", _iap.__file__, *words]
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert done.returncode
        return "" if NO_LISTENER in done.stderr else done.stderr.strip()

    def changed(self) -> str:
        """Be somebody who may do everything and changes a burst."""
        server = self.server
        server.grant(None)
        private = f"{REGION}/subnetworks/t-subnet/setPrivateIpGoogleAccess"
        server.done("POST", private, {"privateIpGoogleAccess": False})
        closed = {"name": "t-allow-iap-ssh", "disabled": True}
        server.done("PATCH", "global/firewalls/t-allow-iap-ssh", closed)
        server.done("DELETE", f"{ZONE}/instances/{HOSTS[1]}")
        server.grant(self.granted)
        return ""

    def clear(self) -> None:
        """Be somebody who may do everything and takes away what is there."""
        server = self.server
        server.grant(None)
        for kind, place in (
            ("instances", ZONE),
            ("resourcePolicies", REGION),
            ("subnetworks", REGION),
            ("routers", REGION),
            ("firewalls", "global"),
            ("addresses", REGION),
            ("networks", "global"),
            ("images", "global"),
        ):
            for each in server.call("GET", f"{place}/{kind}")[1].get("items", []):
                if not each["name"].startswith("flux-fw"):
                    server.done("DELETE", f"{place}/{kind}/{each['name']}")


@pytest.fixture(scope="module")
def started(compute_server: ComputeServer) -> Run:
    """A server of the module's own."""
    return Run(compute_server)


@pytest.fixture
def run(started: Run) -> Iterator[Run]:
    """A server with nothing on it, and everything granted again at the end."""
    yield started
    started.clear()


def left(server: ComputeServer) -> list[str]:
    """Return what a burst has left behind."""
    server.grant(None)
    policies: Mapping[str, Any] = server.call("GET", f"{REGION}/resourcePolicies")[1]
    addresses: Mapping[str, Any] = server.call("GET", f"{REGION}/addresses")[1]
    return [*held(server), *policies.get("items", []), *addresses.get("items", [])]


def test_a_burst_needs_no_more_than_its_role(run: Run) -> None:
    assert run.of(run.burst, *BURST, ACT_AS) == ""
    assert left(run.server) == []


@pytest.mark.parametrize("missing", [*BURST, ACT_AS])
def test_a_burst_without_a_permission_says_which(run: Run, missing: str) -> None:
    told(run.of(run.burst, *(each for each in (*BURST, ACT_AS) if each != missing)), missing)


def test_an_image_needs_no_more_than_both_roles(run: Run) -> None:
    assert run.of(run.image, *BURST, *IMAGE, ACT_AS) == ""
    assert left(run.server) == []


@pytest.mark.parametrize("missing", IMAGE)
def test_an_image_without_a_permission_says_which(run: Run, missing: str) -> None:
    permissions = (each for each in (*BURST, *IMAGE, ACT_AS) if each != missing)
    told(run.of(run.image, *permissions), missing)


def told(said: str, missing: str) -> None:
    """Check that a failure names the permission, no other one, and a role that has it, in one line."""
    assert missing_permissions(said) == (missing,)
    assert "wanted" in said and "\n" not in said
    assert f"{missing} (in roles/" in said or f"{missing} is missing" in said


def test_no_permission_is_listed_twice() -> None:
    assert len({*BURST, *IMAGE}) == len([*BURST, *IMAGE])


def ask(server: ComputeServer, project: str, permissions: list[str]) -> tuple[int, Any]:
    """Ask which permissions the caller has, as Cloud Resource Manager takes it; return status and JSON."""
    url = f"{server.compute_endpoint}/v1/projects/{project}:testIamPermissions"
    data = json.dumps({"permissions": permissions}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_who_asks_is_told_what_is_granted(run: Run) -> None:
    server = run.server
    assert ask(server, server.project, BURST) == (200, {"permissions": BURST})
    server.grant(["compute.disks.list", "compute.disks.create"])
    assert ask(server, server.project, ["compute.disks.list", "compute.disks.use"]) == (
        200,
        {"permissions": ["compute.disks.list"]},
    )
    assert ask(server, server.project, ["compute.disks.use"]) == (200, {})
    assert ask(server, server.project, ["compute.*"])[0] == 400
    status, answer = ask(server, "nobodys", ["compute.disks.list"])
    assert (status, answer["error"]["status"]) == (403, "PERMISSION_DENIED")


def test_all_of_it_is_as_google_would_ask_and_answer(run: Run) -> None:
    assert validate.check_log(run.server.state / "requests.jsonl") == []
