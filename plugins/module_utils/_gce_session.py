# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading Compute Engine's REST API, with partial responses, by google-auth's session alone.

Importing google-cloud-compute costs two seconds and 150 MiB; what runs at every command reads here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from ansible_collections.flux.burst.plugins.module_utils._errors import GceError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LABEL = "flux-burst"
TIMEOUT = 30.0
READERS = 16
"""How many requests at once are worth it."""
RETRIES = 4
BUSY = (429, 500, 502, 503, 504)
INSTANCE_FIELDS = (
    "id,name,zone,status,machineType,labels,labelFingerprint,metadata,"
    "networkInterfaces(networkIP,subnetwork),scheduling"
)
NOT_FOUND = 404


def credentials(credentials_file: str | None) -> Any:
    """Return google-auth credentials from a file, or the default ones. Raises GceError."""
    try:
        import google.auth
        import google.auth.exceptions
    except ImportError:
        raise GceError(
            "wanted google-auth on the controller, found none: pip install google-auth requests"
        ) from None
    try:
        found, _project = (
            google.auth.load_credentials_from_file(credentials_file, scopes=[SCOPE])
            if credentials_file
            else google.auth.default(scopes=[SCOPE])
        )
    except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise GceError(
            f"wanted Google credentials in {credentials_file or 'the default place'}, found '{said}': set "
            "burst_credentials_file, or run gcloud auth application-default login."
        ) from None
    return found


class GceSession:
    """Reads of one Compute Engine endpoint."""

    def __init__(self, compute_endpoint: str, credentials_file: str | None) -> None:
        """Load the credentials; nothing is asked yet. Raises GceError."""
        self.endpoint = compute_endpoint.rstrip("/")
        self._credentials = credentials(credentials_file)
        from google.auth.transport.requests import AuthorizedSession
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        # A refused connection is told at once; an answer that says "later" is asked again.
        again = Retry(
            RETRIES,
            connect=0,
            read=0,
            backoff_factor=0.2,
            status_forcelist=BUSY,
            allowed_methods=["GET"],
            raise_on_status=False,
        )
        self._session = AuthorizedSession(self._credentials)
        self._session.mount(self.endpoint, HTTPAdapter(pool_maxsize=READERS, max_retries=again))

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the resource or list at a path below compute/v1. Raises GceError, with the HTTP status."""
        import google.auth.exceptions
        import requests

        url = f"{self.endpoint}/compute/v1/{path}"
        try:
            answer = self._session.get(url, params=query, timeout=TIMEOUT)
        except (google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
            cause = re.search(r"\[Errno[^'\")]*", str(error))
            said = cause[0] if cause else str(error).splitlines()[0]
            raise GceError(
                f"wanted an answer from Compute Engine at {self.endpoint}, found '{said}': check the endpoint, "
                "the credentials and the network."
            ) from None
        try:
            body = answer.json()
        except ValueError:
            body = None
        # A page of a proxy or of another server must not pass for "nothing there", so it has no status.
        if not isinstance(body, dict) and answer.status_code < 500:
            raise GceError(
                f"wanted JSON from Compute Engine at {self.endpoint}, found HTTP {answer.status_code} with "
                f"{answer.headers.get('Content-Type', 'no type')}: check the endpoint and the proxy before it."
            )
        if answer.status_code >= 400:
            said = " ".join(_reason(body).split()) or answer.reason
            raise GceError(
                f"wanted {path} from Compute Engine, found HTTP {answer.status_code} ({said}): check "
                "burst_project and the roles of the credentials.",
                status=answer.status_code,
            )
        found: dict[str, Any] = body
        return found

    def listed(self, path: str, fields: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page, with some of their fields."""
        token = ""
        while True:
            paging = {"pageToken": token} if token else {}
            page = self.get(path, fields=f"nextPageToken,items({fields})", **query, **paging)
            yield from page.get("items", [])
            token = page.get("nextPageToken", "")
            if not token:
                return

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
        token = ""
        while True:
            paging = {"pageToken": token} if token else {}
            page = self.get(
                f"projects/{project}/aggregated/{kind}",
                fields=f"nextPageToken,items/*/{kind}({fields})",
                **query,
                **paging,
            )
            for scope in page.get("items", {}).values():
                yield from scope.get(kind, [])
            token = page.get("nextPageToken", "")
            if not token:
                return

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

    def serial_lines(self, project: str, zone: str, instance: str, count: int) -> list[str]:
        """Return the last lines that a machine wrote to its console."""
        found = self.get(
            f"projects/{project}/zones/{zone}/instances/{quote(instance)}/serialPort", port="1"
        )
        lines = [line.strip() for line in str(found.get("contents", "")).splitlines()]
        return [line for line in lines if line][-count:]


def _reason(body: Any) -> str:
    """Return what an error's body says; "" where it is not one of Google's."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", "") if isinstance(error, dict) else error or "")


def last_part(url: str) -> str:
    """Return the last part of a resource's URL, which is its name."""
    return url.rpartition("/")[2]


def machine(instance: dict[str, Any]) -> dict[str, Any]:
    """Return a machine as our modules return it, from its REST resource."""
    return {
        "name": instance["name"],
        "id": instance["id"],
        "zone": last_part(instance["zone"]),
        "status": instance["status"],
        "machine_type": last_part(instance["machineType"]),
        "internal_ip": instance["networkInterfaces"][0].get("networkIP", ""),
    }
