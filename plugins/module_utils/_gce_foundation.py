# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a burst stands on, read and made: a foundation of its own, or a subnetwork of the site's to look at only."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _changes,
    _gce_existing_network,
    _gce_release,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_client import (
    KINDS,
    GceClient,
    Started,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_network import (
    Foundation,
    Key,
    description,
    desired,
    partial,
    plan_absent,
    plan_present,
    users,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    LABEL,
    NOT_FOUND,
    GceSession,
    last_part,
)

PATHS = {
    "network": "networks",
    "subnetwork": "subnetworks",
    "router": "routers",
    "firewall": "firewalls",
    "address": "addresses",
}
FORBIDDEN = 403
ADDRESS_FIELDS = "name,region,address,addressType,description"
USER_FIELDS = "name,status,labels,networkInterfaces(network)"
RULE_FIELDS = (
    "firewalls(direction,disabled,priority,sourceRanges,targetTags,targetServiceAccounts,allowed,denied),"
    "firewallPolicys(rules(action,direction,disabled,match,targetSecureTags,targetServiceAccounts))"
)
# Another burst is making the same foundation just now.
CONTESTED = ("alreadyExists", "RESOURCE_ALREADY_EXISTS", *_gce_release.IN_USE)


class OwnNetwork:
    """A burst's foundation as it is, and the changes to it."""

    def __init__(self, params: dict[str, Any], session: GceSession) -> None:
        self.params, self.session = params, session
        name = params["foundation"] or params["burst"]
        self.shared = name != params["burst"]
        self.foundation = Foundation(
            params["project"],
            name,
            params["region"],
            params["subnet_cidr"],
            params["nat_addresses"],
            tuple(params["ssh_ranges"]),
        )
        self.wanted = desired(self.foundation)
        self.bodies = {key: body for stage in self.wanted for key, body in stage.items()}
        self.done: list[_changes.Change] = []
        self.refused: list[_gce_release.Refusal] = []
        self.kept_for: list[str] = []

    @functools.cached_property
    def client(self) -> GceClient:
        """Made for the first change only."""
        return GceClient.from_params(self.params)

    def present(self, *, check: bool) -> dict[str, Any]:
        """Make or repair the foundation and return what exit_json takes. Raises GceError."""
        end = time.monotonic() + _gce_release.RELEASE_SECONDS
        while True:
            actual = self.read()
            stages = plan_present(self.wanted, actual)
            try:
                result = _changes.apply(stages, self.act, check=check)
            except GceError as error:
                # One that is told with another failure does not pass by waiting.
                contested = self.shared and error.codes and set(error.codes) <= set(CONTESTED)
                if not contested or time.monotonic() > end:
                    raise
                time.sleep(_gce_release.PAUSE)
                continue
            # Another burst may have been deleting a shared one meanwhile: look again at what was made.
            if check or not self.shared or not result["changed"]:
                made = result if check else _changes.told(self.done)
                return {**made, "nat_ips": self._nat_ips(actual, again=made["changed"])}

    def _nat_ips(self, actual: dict[Key, dict[str, Any]], *, again: bool) -> list[str]:
        wanted = [name for kind, name in self.bodies if kind == "address"]
        if wanted and again:
            actual = self._addresses()
        found = [actual.get(("address", name), {}).get("address", "") for name in wanted]
        return [address for address in found if address]

    def absent(self, *, check: bool) -> dict[str, Any]:
        """Delete what nobody else is in, and return what exit_json takes. Raises GceError."""
        found = self.find()
        if found:
            # The machines that a run would have deleted before are there still.
            self.kept_for = self._others(own=check)
        stages = [] if self.kept_for else plan_absent(self.foundation.name, found)
        result = _changes.apply(stages, self.release, check=check)
        if not check:
            result = _changes.told(self.done)
        return {**result, "nat_ips": []}

    def release(self, stage: _changes.Stage) -> None:
        """Delete one stage; once one was refused, what comes after it stays. Raises GceError."""
        if self.refused:
            return
        self.refused = _gce_release.delete_all(self.client, stage, self._occupied)
        refused = [change for change, _unused in self.refused]
        self.done += [change for change in stage if change not in refused]
        if self.refused and not (self.shared or self.kept_for):
            raise self.refused[0][1]

    def _occupied(self) -> bool:
        self.kept_for = self._others()
        return bool(self.kept_for)

    def _others(self, *, own: bool = False) -> list[str]:
        """Return the other bursts with machines there. Raises GceError for machines of this one, unless own."""
        burst = self.params["burst"]
        machines = self.session.aggregated(
            self.params["project"], "instances", USER_FIELDS, filter=f"labels.{LABEL}:*"
        )
        found = users(self.foundation.network, list(machines))
        ours = found.pop(burst, [])
        if ours and not own:
            raise GceError(
                f"wanted no machine of burst {burst} in {self.foundation.network}, found {len(ours)} "
                f"({', '.join(sorted(ours)[:3])}): delete them first, by gce_instances with state=absent."
            )
        return sorted(found)

    def find(self) -> list[dict[str, Any]]:
        """Return everything of the foundation, wherever it is, with its kind and region."""
        with ThreadPoolExecutor(len(PATHS)) as readers:
            found = list(readers.map(self._described, PATHS))
        return [row for rows in found for row in rows]

    def _described(self, kind: str) -> list[dict[str, Any]]:
        project, mark = self.params["project"], description(self.foundation.name)
        if KINDS[kind].scope == "global":
            path = f"projects/{project}/global/{PATHS[kind]}"
            rows = self.session.listed(path, "name,description")
        else:
            rows = self.session.aggregated(project, PATHS[kind], "name,description,region")
        return [
            {**row, "kind": kind, "region": last_part(row.get("region", ""))}
            for row in rows
            if row.get("description") == mark
        ]

    def read(self) -> dict[Key, dict[str, Any]]:
        """Return the REST resources that exist of those that are wanted, and all our NAT addresses."""
        keys = [key for key in self.bodies if key[0] != "address"]
        with ThreadPoolExecutor(len(keys) + 1) as readers:
            addresses = readers.submit(self._addresses) if self.params["nat_addresses"] else None
            found = list(readers.map(lambda key: self._read_one(*key), keys))
        actual = {key: body for key, body in zip(keys, found, strict=True) if body}
        router = actual.get(("router", f"{self.foundation.name}-router"), {})
        if addresses:
            actual |= addresses.result()
        elif any(nat.get("natIps") for nat in router.get("nats", [])):
            actual |= self._addresses()
        return actual

    def _addresses(self) -> dict[Key, dict[str, Any]]:
        rows = self.session.listed(f"{self.foundation.place}/addresses", ADDRESS_FIELDS)
        ours = f"{self.foundation.name}-nat-"
        return {("address", row["name"]): row for row in rows if row["name"].startswith(ours)}

    def _read_one(self, kind: str, name: str) -> dict[str, Any] | None:
        project = f"projects/{self.params['project']}"
        place = self.foundation.place if KINDS[kind].scope == "region" else f"{project}/global"
        try:
            return self.session.get(f"{place}/{PATHS[kind]}/{name}")
        except GceError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def act(self, stage: _changes.Stage) -> None:
        """Do one stage: start all of it, then wait for all of it; addresses that are not needed go at last."""
        going = [change for change in stage if change.action == "delete"]
        self.client.together(
            functools.partial(self._start, change) for change in stage if change not in going
        )
        for _change, error in _gce_release.delete_all(self.client, going, lambda: False):
            raise error
        self.done += stage

    def _start(self, change: _changes.Change) -> Started:
        regional = KINDS[change.kind].scope == "region"
        place = {"region": self.params["region"]} if regional else {}
        if change.action == "update":
            return self._update(change, place)
        # Names are unique, so a repeat cannot make a second one, and a network may be made again within the hour for
        # which Google remembers a derived id: a fresh one is right here.
        return self.client.insert(change.kind, change.after, str(uuid.uuid4()), **place)

    def _update(self, change: _changes.Change, place: dict[str, str]) -> Started:
        if change.kind == "subnetwork":
            return self.client.set_private_access(change.name, True, **place)
        if change.kind == "firewall":
            # A patch cannot empty a list: the client library leaves empty ones out.
            return self.client.replace(
                "firewall", change.name, self.bodies["firewall", change.name]
            )
        return self.client.patch(
            change.kind, change.name, {"name": change.name, **change.after}, **place
        )


class ExistingNetwork:
    """A subnetwork of the site's, which is only looked at."""

    def __init__(self, params: dict[str, Any], session: GceSession) -> None:
        """Raises SpecError for a name that is none."""
        self.params, self.session = params, session
        project, network = params["project"], params["network"]
        self.network = _gce_existing_network.network_path(network, project) if network else None
        self.subnetwork = _gce_existing_network.subnetwork_path(
            params["subnetwork"], params["region"], network, project
        )
        self.warnings: list[str] = []

    def check(self) -> None:
        """Raise GceError where a burst's machines cannot live there; what is doubtful goes into warnings."""
        path, params = self.subnetwork, self.params
        found = self._subnetwork()
        _gce_existing_network.check_subnetwork(path, found, self.network, params["machines"])
        self.network = partial(found["network"])
        rules = self._read(self._rules, "compute.networks.getEffectiveFirewalls")
        if rules is not None:
            for source in params["ssh_ranges"]:
                _gce_existing_network.check_ssh(self.network, rules, params["tags"], source)
        if found.get("privateIpGoogleAccess"):
            return
        routers = self._read(self._routers, "compute.routers.list")
        if routers is not None:
            warning = _gce_existing_network.egress_warning(path, found, routers)
            self.warnings += [warning] if warning else []

    def _subnetwork(self) -> dict[str, Any]:
        try:
            return self.session.get(
                self.subnetwork, fields="network,ipCidrRange,privateIpGoogleAccess,purpose"
            )
        except GceError as error:
            if error.status == NOT_FOUND:
                raise GceError(
                    f"wanted subnetwork {self.subnetwork}, found none: correct burst_subnetwork, burst_network or "
                    "burst_zones (gcloud compute networks subnets list shows what there is).",
                    status=NOT_FOUND,
                ) from None
            raise

    def _rules(self) -> dict[str, Any]:
        return self.session.get(f"{self.network}/getEffectiveFirewalls", fields=RULE_FIELDS)

    def _routers(self) -> list[dict[str, Any]]:
        place = self.subnetwork.rpartition("/subnetworks/")[0]
        return list(self.session.listed(f"{place}/routers", "network,nats"))

    def _read(self, read: Callable[[], Any], permission: str) -> Any:
        """Return what a reader returns, None where one who may only use the network may not read that."""
        try:
            return read()
        except GceError as error:
            if error.status != FORBIDDEN:
                raise
            self.warnings.append(
                f"{self.network}: wanted to check it, found {permission} not granted: that was left out."
            )
            return None
