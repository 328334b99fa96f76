# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines made in the first place that has them: quotas looked at before, one bulk request a place, none left over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import (
    _gce_instances,
    _gce_place,
    _gce_types,
)
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_client import GceClient
from ansible_collections.flux.burst.plugins.module_utils._gce_session import READERS, GceSession
from ansible_collections.flux.burst.plugins.module_utils._spec import one_region

# How often a request is repeated whose earlier operation is all that Google gives back: machines that come and go once
# a minute for the hour for which it remembers.
REPEATS = 60
Names = Callable[[], set[str]]


def types_in(
    session: GceSession, project: str, zone: str, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the REST resources of the machine types that a zone has of these, by name. Raises GceError."""
    wanted = " OR ".join(f'(name = "{name}")' for name in names)
    path = f"projects/{project}/zones/{zone}/machineTypes"
    return {row["name"]: row for row in session.listed(path, _gce_types.FIELDS, filter=wanted)}


def quotas_of(session: GceSession, path: str) -> list[dict[str, Any]]:
    """Return the quotas of a project or a region, by its path. Raises GceError."""
    return list(session.get(path, fields="quotas(metric,limit,usage)").get("quotas", []))


class Creation:
    """The creation of machines of one burst. `attempts` are the places that did not do, also those of the check."""

    def __init__(self, params: dict[str, Any], session: GceSession) -> None:
        self.params, self.session = params, session
        self.attempts: list[_gce_place.Attempt] = []
        self.places: list[_gce_place.Place] = []

    def check(self, hosts: Sequence[str]) -> None:
        """Find the places that have the machine types and the quota. Raises GceError where there is none."""
        params = self.params
        where = f"projects/{params['project']}"
        region = one_region(params["zones"])
        names = params["machine_types"]

        def types(zone: str) -> dict[str, dict[str, Any]]:
            return types_in(self.session, params["project"], zone, names)

        def quotas(path: str) -> list[dict[str, Any]]:
            return quotas_of(self.session, path)

        with ThreadPoolExecutor(READERS) as readers:
            limits = readers.map(quotas, (where, f"{where}/regions/{region}"))
            by_zone = dict(zip(params["zones"], readers.map(types, params["zones"]), strict=True))
            rows = dict(zip(("", region), limits, strict=True))
        self.places, self.attempts = _gce_place.places(params, len(hosts), by_zone, rows)
        if not self.places:
            raise self._nowhere(hosts)

    def create(
        self, client: GceClient, hosts: Sequence[str], near: Sequence[str], exist: Names
    ) -> list[str]:
        """Create the machines, first in the zones `near`; return those that are missing with best_effort.

        `exist` asks for the names of the burst's machines. Raises GceError, and then what was made for them is gone.
        """
        left = list(hosts)
        for place in _gce_place.beside(self.places, near):
            left = self._try(client, left, place, exist)
            if not left:
                return []
        if len(left) == len(hosts):
            raise self._nowhere(hosts)
        return left

    def _try(
        self, client: GceClient, hosts: Sequence[str], place: _gce_place.Place, exist: Names
    ) -> list[str]:
        """Return the machines that the place did not give."""
        try:
            self._bulk_insert(client, hosts, place, exist)
        except GceError as error:
            codes = list(error.codes)
            said = error.said or str(error)
            attempt = _gce_place.Attempt(place.zone, place.machine_type, codes, said)
            self.attempts.append(attempt)
            if not _gce_place.may_be_elsewhere(codes):
                error.facts["attempts"] = _gce_place.shown(self.attempts)
                raise
            return list(hosts)
        if not self.params["best_effort"]:
            return []
        there = exist()
        return [host for host in hosts if host not in there]

    def _bulk_insert(
        self, client: GceClient, hosts: Sequence[str], place: _gce_place.Place, exist: Names
    ) -> None:
        params = self.params
        body = _gce_instances.bulk_body(params, hosts, place)
        for repeat in range(REPEATS):
            request = _gce_instances.request_id(params["burst"], place.zone, body, repeat)
            started = client.bulk_insert(body, request, place.zone)
            try:
                client.wait(started)
            except GceError:
                if not started.repeated or repeat == REPEATS - 1:
                    raise
                continue
            # Google's answer to a requestId that was used before may be of machines that are gone since.
            if not started.repeated or set(hosts) & exist():
                return
        raise GceError(
            f"wanted {', '.join(hosts)} created, found them gone {REPEATS} times after Compute Engine said they "
            "were: see its audit log for who deletes them."
        )

    def _nowhere(self, hosts: Sequence[str]) -> GceError:
        told = _gce_place.nowhere(hosts, self.attempts, self.params["project"])
        return GceError(told, attempts=_gce_place.shown(self.attempts))
