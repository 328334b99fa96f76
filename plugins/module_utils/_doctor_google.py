# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Google tells of a burst that is not made yet; nothing but reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _gce_image
from ansible_collections.flux.burst.plugins.module_utils._doctor import Refused, needed
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth, load, with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_creation import quotas_of, types_in
from ansible_collections.flux.burst.plugins.module_utils._gce_foundation import ExistingNetwork
from ansible_collections.flux.burst.plugins.module_utils._gce_network import IAP_RANGE
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    READERS,
    GceSession,
    ResourceManagerSession,
)
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand
from ansible_collections.flux.burst.plugins.module_utils._spec import one_region

Question = Callable[[], Any]


def asked(question: Question) -> Any:
    """Return the answer to a question, or a Refused."""
    try:
        return question()
    except BurstError as error:
        return Refused(str(error), getattr(error, "status", 0))


class Reader:
    """Asks what can be asked with a specification as far as it is right.

    params are ACCESS; faulty are the variables that are wrong, and permissions those of the documented role.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        spec: Mapping[str, Any],
        faulty: set[str],
        permissions: Sequence[str],
    ) -> None:
        self.params, self.spec, self.faulty = params, dict(spec), faulty
        self.permissions = permissions

    def read(self) -> dict[str, Any]:
        """Return the answers by the name of what they are for; a question that makes no sense is not asked."""
        access = ("credentials_file", "impersonate_service_account", "compute_endpoint")
        if self.faulty & {f"burst_{name}" for name in access}:
            return {}
        found = {"credentials": asked(self._credentials)}
        if isinstance(found["credentials"], Refused) or "burst_project" in self.faulty:
            return found
        found["project"] = asked(self._project)
        known = not isinstance(found["project"], Refused)
        questions = {
            name: question
            for name, (variables, question) in self._questions().items()
            if not self.faulty & {f"burst_{each}" for each in variables}
            # What may be done can be asked where nothing may be read.
            and (known or (name == "permissions" and self.spec["burst_project"]))
        }
        with ThreadPoolExecutor(READERS) as readers:
            answers = readers.map(asked, questions.values())
            return {**found, **dict(zip(questions, answers, strict=True))}

    def _questions(self) -> dict[str, tuple[tuple[str, ...], Question]]:
        """Return every other question with the variables, without their prefix, that it needs."""
        found: dict[str, tuple[tuple[str, ...], Question]] = {
            "permissions": (("image", "ssh_via", "resource_manager_endpoint"), self._granted),
            "machine types": (("zones", "machine_types"), self._types),
            "quota": (("zones",), self._quotas),
            "machines": (("name", "hostlist"), self._machines),
            "image": (("image",), self._images),
        }
        if self.spec["burst_subnetwork"]:
            needs = ("zones", "subnetwork", "network", "hostlist", "tags", "ssh_source_ranges")
            found["network"] = (needs, self._network)
        return found

    def _credentials(self) -> str:
        identity = load(Auth.from_params(self.params))
        identity.token()
        self.session = GceSession.from_params(self.params)
        return identity.who

    def _project(self) -> str:
        self.spec["burst_project"] = with_project(self.params)["project"]
        return str(self.session.get(self._path, fields="name")["name"])

    @property
    def _path(self) -> str:
        return f"projects/{self.spec['burst_project']}"

    def _granted(self) -> list[str]:
        endpoint = self.spec["burst_resource_manager_endpoint"]
        session = ResourceManagerSession(endpoint, Auth.from_params(self.params))
        wanted = needed(self.permissions, self.spec)
        return session.granted(self.spec["burst_project"], wanted)

    def _types(self) -> dict[str, dict[str, dict[str, Any]]]:
        project, names = self.spec["burst_project"], self.spec["burst_machine_types"]
        return {
            zone: types_in(self.session, project, zone, names) for zone in self.spec["burst_zones"]
        }

    def _quotas(self) -> dict[str, list[dict[str, Any]]]:
        region = one_region(self.spec["burst_zones"])
        paths = {"": self._path, region: f"{self._path}/regions/{region}"}
        return {name: quotas_of(self.session, path) for name, path in paths.items()}

    def _machines(self) -> list[str]:
        """Return which machines of the burst are there already."""
        project, burst = self.spec["burst_project"], self.spec["burst_name"]
        hosts = expand(self.spec["burst_hostlist"])
        found = self.session.instances(project, burst, "name")
        return [row["name"] for row in found if row["name"] in hosts]

    def _images(self) -> list[dict[str, Any]]:
        """Return the images of that name or family, the newest first."""
        folder, _images, name = self.spec["burst_image"].partition("/images/")
        family = name.startswith("family/")
        test = f"family={name.removeprefix('family/')}" if family else f'name = "{name}"'
        rows = self.session.listed(f"{folder}/images", _gce_image.IMAGE_FIELDS, filter=test)
        return [_gce_image.row(image) for image in _gce_image.newest_first(rows)]

    def _network(self) -> list[str]:
        """Return what is doubtful about the subnetwork of the site's."""
        spec = self.spec
        network = ExistingNetwork(
            {
                "project": spec["burst_project"],
                "network": spec["burst_network"],
                "subnetwork": spec["burst_subnetwork"],
                "region": one_region(spec["burst_zones"]),
                "machines": len(expand(spec["burst_hostlist"])),
                "ssh_ranges": spec["burst_ssh_source_ranges"] or [IAP_RANGE],
                "tags": spec["burst_tags"],
            },
            self.session,
        )
        network.check()
        return network.warnings
