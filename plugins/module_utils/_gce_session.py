# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading Compute Engine's REST API, with partial responses, by google-auth's session alone.

Importing google-cloud-compute costs two seconds and 150 MiB; what runs at every command reads here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, build_opener

from ansible_collections.flux.burst.plugins.module_utils import _gce_answers, _gke_answers
from ansible_collections.flux.burst.plugins.module_utils._answers import Each, misfit
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth, first_line, load
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import explain, from_answer
from ansible_collections.flux.burst.plugins.module_utils._gce_retry import Later, dropped, persist
from ansible_collections.flux.burst.plugins.module_utils._gce_token import TokenError, Tokens

LABEL = "flux-burst"
USER_LABEL = "flux-burst-user"
"""Says who logs in: with OS Login, the specification does not."""
TIMEOUT = 30.0
READERS = 16
"""How many requests at once are worth it."""
INSTANCE_FIELDS = (
    "id,name,zone,status,machineType,labels,labelFingerprint,metadata,"
    "networkInterfaces(networkIP,subnetwork),scheduling"
)
NOT_FOUND = 404
MOST_PAGES = 1000
"""More than any list has: one that never ends is none."""
JSON = "application/json"
VERBS = {"GET": "read", "POST": "ask for", "PUT": "change", "DELETE": "delete"}


class GceSession:
    """Reads of one Compute Engine endpoint."""

    service, root = "Compute Engine", "compute/v1"
    advice = "check burst_project and the names in that path"

    def __init__(self, endpoint: str, auth: Auth) -> None:
        """Load the credentials; nothing is asked yet. Raises GceError."""
        self.endpoint = endpoint.rstrip("/")
        self._identity = load(auth)
        from google.auth.transport.requests import AuthorizedSession
        from requests.adapters import HTTPAdapter

        self._session = AuthorizedSession(self._identity.credentials)
        self._session.mount(self.endpoint, HTTPAdapter(pool_maxsize=READERS))

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> GceSession:
        """Return the session that a module's options describe. Raises GceError."""
        return cls(params["compute_endpoint"], Auth.from_params(params))

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the resource or list at a path below the service's root; what passes is asked again.

        Raises GceError, with the HTTP status.
        """
        return self.ask("GET", path, None, **query)

    def ask(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, **query: str
    ) -> dict[str, Any]:
        """Return the answer to a request, which may be made twice: what passes is asked again. Raises GceError."""
        return persist(lambda: self._ask(verb, path, body, query))

    def _ask(
        self, verb: str, path: str, sent: Mapping[str, Any] | None, query: Mapping[str, str]
    ) -> dict[str, Any]:
        import google.auth.exceptions
        import requests

        url = f"{self.endpoint}/{self.root}/{path}"
        try:
            answer = self._session.request(verb, url, params=query, json=sent, timeout=TIMEOUT)
        except (google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
            wanted = f"an answer from {self.service} at {self.endpoint}"
            if isinstance(error, google.auth.exceptions.GoogleAuthError):
                failure = self._identity.refused(wanted, error)
            else:
                failure = GceError(
                    f"wanted {wanted}, found '{first_line(error)}': check the endpoint and the network."
                )
            if dropped(error):
                raise Later(failure) from None
            raise failure from None
        try:
            body = answer.json()
        except (ValueError, RecursionError):
            body = None
        # A page of a proxy or of another server must not pass for "nothing there", so it has no status.
        if not isinstance(body, dict) and answer.status_code < 500:
            raise GceError(
                f"wanted JSON from {self.service} at {self.endpoint}, found HTTP {answer.status_code} with "
                f"{answer.headers.get('Content-Type', 'no type')}: check the endpoint and the proxy before it."
            )
        if answer.status_code >= 400:
            raise self._refused(verb, path, answer, body)
        self._check(path, self._wrong(body, query))
        found: dict[str, Any] = body
        return found

    def _wrong(self, answer: Mapping[str, Any], query: Mapping[str, str]) -> str:
        """Return what is wrong with an answer; a list's items are looked at by who reads it."""
        try:
            needed = _gce_answers.asked(query.get("fields", ""))
            return _gce_answers.wrong(answer) or _gce_answers.lacking(answer, needed, "the answer")
        except RecursionError:
            return "it is nested too deeply"

    def _check(self, path: str, wrong: str) -> None:
        """Raise GceError where something in an answer is wrong."""
        if wrong:
            raise GceError(
                f"wanted {path} from {self.service} at {self.endpoint} as Google gives it, found that {wrong}: check "
                "the endpoint and the proxy before it."
            )

    def _refused(self, verb: str, path: str, answer: Any, body: Any) -> GceError | Later:
        after = answer.headers.get("Retry-After")
        refusal = from_answer(answer.status_code, body, answer.reason, after)
        what = f"{VERBS[verb]} {path} from {self.service}"
        said = explain(what, refusal, {}, self._identity.who, self.advice)
        failure = GceError(said, status=refusal.status, codes=refusal.codes)
        return Later(failure, refusal.retry_after) if refusal.passes else failure

    def listed(self, path: str, fields: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page, with some of their fields."""
        for page in self._pages(path, fields=f"nextPageToken,items({fields})", **query):
            self._check(path, misfit(page, {"items?": _gce_answers.OBJECTS}, "the answer"))
            yield from self._whole(path, page.get("items", []), fields)

    def _pages(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        token, turned = "", 0
        while True:
            paging = {"pageToken": token} if token else {}
            page = self.get(path, **query, **paging)
            yield page
            before, token, turned = token, page.get("nextPageToken", ""), turned + 1
            if not token:
                return
            if token == before or turned == MOST_PAGES:
                self._check(path, f"it has no end after {turned} pages")

    def _whole(
        self, path: str, items: Iterable[dict[str, Any]], fields: str
    ) -> Iterator[dict[str, Any]]:
        needed = _gce_answers.asked(fields)
        for item in items:
            self._check(path, _gce_answers.lacking(item, needed, "one of its items"))
            yield item

    def instances(
        self, project: str, burst: str, fields: str = INSTANCE_FIELDS
    ) -> list[dict[str, Any]]:
        """Return the machines of a burst in every zone, as REST resources with these fields, by name."""
        found = self.aggregated(project, "instances", fields, filter=f"labels.{LABEL}={burst}")
        return sorted(found, key=lambda instance: str(instance["name"]))

    def aggregated(
        self, project: str, kind: str, fields: str, **query: str
    ) -> Iterator[dict[str, Any]]:
        """Yield the resources of a kind in every zone or region, with some of their fields."""
        path = f"projects/{project}/aggregated/{kind}"
        shape = {"items?": Each({f"{kind}?": _gce_answers.OBJECTS})}
        partly = f"nextPageToken,items/*/{kind}({fields})"
        for page in self._pages(path, fields=partly, **query):
            self._check(path, misfit(page, shape, "the answer"))
            for scope in page.get("items", {}).values():
                yield from self._whole(path, scope.get(kind, []), fields)

    def host_keys(self, project: str, zone: str, instance: str) -> dict[str, str]:
        """Return the SSH host keys that a machine published at boot, by type; {} before it has."""
        try:
            found = self.get(
                f"projects/{project}/zones/{zone}/instances/{quote(instance)}/getGuestAttributes",
                queryPath="hostkeys/",
            )
        except GceError as error:
            if error.status == NOT_FOUND:
                return {}
            raise
        items = found.get("queryValue", {}).get("items", [])
        return {item["key"]: item["value"] for item in items}

    def serial(self, project: str, zone: str, instance: str) -> str:
        """Return what a machine wrote to its console, the last MiB of it."""
        found = self.get(
            f"projects/{project}/zones/{zone}/instances/{quote(instance)}/serialPort", port="1"
        )
        return str(found.get("contents", ""))

    def serial_lines(self, project: str, zone: str, instance: str, count: int) -> list[str]:
        """Return the last lines that a machine wrote to its console."""
        lines = [line.strip() for line in self.serial(project, zone, instance).splitlines()]
        return [line for line in lines if line][-count:]


class QuickSession(GceSession):
    """Reads with the access token that all processes share, without google-auth, whose import costs 0.2 s.

    What does not succeed is asked once more by a GceSession, which says why.
    """

    def __init__(self, endpoint: str, auth: Auth, tokens: Tokens) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._auth, self._tokens = auth, tokens

    def ask(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, **query: str
    ) -> dict[str, Any]:
        """Return the answer to a request. Raises GceError."""
        found = self._read(path, query) if verb == "GET" else None
        if found is not None and self._wrong(found, query):
            found = None
        return self._thorough.ask(verb, path, body, **query) if found is None else found

    def _read(self, path: str, query: Mapping[str, str]) -> dict[str, Any] | None:
        """Return a resource, None where it was not had. Raises GceError where there is none."""
        url = f"{self.endpoint}/{self.root}/{path}?{urlencode(query)}"
        try:
            headers = {"Authorization": f"Bearer {self._tokens.get()}"}
            # Not Ansible's open_url, whose import costs as much as google-auth's.
            with build_opener().open(Request(url, headers=headers), timeout=TIMEOUT) as answer:
                found = json.load(answer)
        except HTTPError as error:
            with error:
                if error.code == NOT_FOUND and error.headers.get_content_type() == JSON:
                    raise GceError(f"wanted {path}, found none.", status=NOT_FOUND) from None
            return None
        except (TokenError, OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @cached_property
    def _thorough(self) -> GceSession:
        return GceSession(self.endpoint, self._auth)


class ResourceManagerSession(GceSession):
    """Requests of one endpoint of Cloud Resource Manager."""

    service, root = "Cloud Resource Manager", "v1"
    advice = "check burst_project"

    def granted(self, project: str, permissions: Sequence[str]) -> list[str]:
        """Return which of some permissions the credentials have in a project; a hundred may be asked for at once."""
        body = {"permissions": list(permissions)}
        answer = self.ask("POST", f"projects/{project}:testIamPermissions", body)
        return list(answer.get("permissions", []))


class OsLoginSession(GceSession):
    """Requests of one OS Login endpoint."""

    service, root = "OS Login", "v1"
    advice = "check burst_os_login_account, and that the OS Login API is enabled"


class ContainerSession(GceSession):
    """Requests of one endpoint of Kubernetes Engine's API."""

    service, root = "Kubernetes Engine", "v1"
    advice = "check the project, the location and the name, and that the Kubernetes Engine API is enabled"

    def _wrong(self, answer: Mapping[str, Any], query: Mapping[str, str]) -> str:
        """Return what is wrong with a cluster or an operation; its fields are not Compute Engine's."""
        return misfit(answer, _gke_answers.ANSWER, "the answer")


def last_part(url: str) -> str:
    """Return the last part of a resource's URL, which is its name."""
    return url.rpartition("/")[2]


def machine(instance: dict[str, Any]) -> dict[str, Any]:
    """Return a machine as our modules return it, from its REST resource."""
    nic = (instance.get("networkInterfaces") or [{}])[0]
    return {
        "name": instance["name"],
        "id": instance["id"],
        "zone": last_part(instance["zone"]),
        "status": instance["status"],
        "machine_type": last_part(instance["machineType"]),
        "internal_ip": nic.get("networkIP", ""),
        "external_ip": (nic.get("accessConfigs") or [{}])[0].get("natIP", ""),
    }
