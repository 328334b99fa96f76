# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing Compute Engine, by google-cloud-compute.

Requests are the plain JSON of Google's REST reference; the client library carries them. It is imported when the first
change is made, and not before: that costs two seconds.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    BUSY,
    NOT_FOUND,
    credentials,
)

# Kept in sync with doc_fragments/_gce.py.
ACCESS: dict[str, Any] = {
    "project": {
        "type": "str",
        "required": True,
        "fallback": (env_fallback, ["GOOGLE_CLOUD_PROJECT"]),
    },
    "credentials_file": {
        "type": "path",
        "fallback": (env_fallback, ["GOOGLE_APPLICATION_CREDENTIALS"]),
    },
    "compute_endpoint": {
        "type": "str",
        "fallback": (env_fallback, ["FLUX_BURST_COMPUTE_ENDPOINT"]),
        "default": "https://compute.googleapis.com",
    },
}
ARGUMENTS: dict[str, Any] = {"burst": {"type": "str", "required": True}, **ACCESS}
WAIT_SECONDS = 600.0
"""How long one wait may take; Compute Engine answers after two minutes at most."""
OPERATION_SECONDS = 1800.0
RETRY_SECONDS = 30.0
"""How long to go on asking when Compute Engine says "later"."""


@dataclass(frozen=True)
class Kind:
    """A kind of resource: its client, its message, its name among a request's fields, and where it lives."""

    client: str
    message: str
    field: str
    scope: str


KINDS = {
    "network": Kind("NetworksClient", "Network", "network", "global"),
    "subnetwork": Kind("SubnetworksClient", "Subnetwork", "subnetwork", "region"),
    "router": Kind("RoutersClient", "Router", "router", "region"),
    "firewall": Kind("FirewallsClient", "Firewall", "firewall", "global"),
    "address": Kind("AddressesClient", "Address", "address", "region"),
    "instance": Kind("InstancesClient", "Instance", "instance", "zone"),
    "policy": Kind("ResourcePoliciesClient", "ResourcePolicy", "resource_policy", "region"),
    "image": Kind("ImagesClient", "Image", "image", "global"),
}
OPERATIONS = {
    "global": "GlobalOperationsClient",
    "region": "RegionOperationsClient",
    "zone": "ZoneOperationsClient",
}


@dataclass(frozen=True)
class Started:
    """An operation. `place` is its region or zone as request fields, `what` names it in messages.

    `repeated` says that it was over when it was asked for: the answer to a requestId that was used before.
    """

    name: str
    scope: str
    place: dict[str, str]
    what: str
    repeated: bool


class GceClient:
    """Starts changes and waits for them. Every method raises GceError."""

    def __init__(self, project: str, compute_endpoint: str, credentials_file: str | None) -> None:
        try:
            from google.cloud import compute_v1
        except ImportError:
            raise GceError(
                "wanted google-cloud-compute on the controller, found none: pip install google-cloud-compute"
            ) from None
        self.project = project
        self._api: Any = compute_v1
        self._clients: dict[str, Any] = {}
        self._options = {
            "credentials": credentials(credentials_file),
            "client_options": {"api_endpoint": compute_endpoint},
        }

    def insert(self, kind: str, body: Mapping[str, Any], request_id: str, **place: str) -> Started:
        """Start to create a resource."""
        resource = {f"{KINDS[kind].field}_resource": self._message(KINDS[kind].message, body)}
        what = f"create {kind} {body['name']}"
        return self._start(kind, "insert", what, place, resource, request_id=request_id)

    def patch(self, kind: str, name: str, body: Mapping[str, Any], **place: str) -> Started:
        """Start to change some fields of a resource."""
        resource = {f"{KINDS[kind].field}_resource": self._message(KINDS[kind].message, body)}
        named = {KINDS[kind].field: name}
        return self._start(kind, "patch", f"change {kind} {name}", place, {**resource, **named})

    def replace(self, kind: str, name: str, body: Mapping[str, Any], **place: str) -> Started:
        """Start to replace all that can be changed of a resource."""
        resource = {f"{KINDS[kind].field}_resource": self._message(KINDS[kind].message, body)}
        named = {KINDS[kind].field: name}
        return self._start(kind, "update", f"change {kind} {name}", place, {**resource, **named})

    def set_private_access(self, name: str, on: bool, region: str) -> Started:
        """Start to let a subnetwork's machines reach Google's APIs without a public address, or not."""
        field = "subnetworks_set_private_ip_google_access_request_resource"
        message = self._message(
            "SubnetworksSetPrivateIpGoogleAccessRequest", {"privateIpGoogleAccess": on}
        )
        return self._start(
            "subnetwork",
            "set_private_ip_google_access",
            f"change subnetwork {name}",
            {"region": region},
            {"subnetwork": name, field: message},
        )

    def delete(self, kind: str, name: str, **place: str) -> Started | None:
        """Start to delete a resource. None: it is gone already, by its own time limit or somebody else."""
        named = {KINDS[kind].field: name}
        try:
            return self._start(kind, "delete", f"delete {kind} {name}", place, named)
        except GceError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def bulk_insert(self, body: Mapping[str, Any], request_id: str, zone: str) -> Started:
        """Start to create many instances, all of them or none."""
        resource = {
            "bulk_insert_instance_resource_resource": self._message(
                "BulkInsertInstanceResource", body
            )
        }
        what = f"create {body['count']} instances in zone {zone}"
        return self._start(
            "instance", "bulk_insert", what, {"zone": zone}, resource, request_id=request_id
        )

    def set_labels(self, name: str, body: Mapping[str, Any], zone: str) -> Started:
        """Start to set an instance's labels."""
        message = self._message("InstancesSetLabelsRequest", body)
        fields = {"instance": name, "instances_set_labels_request_resource": message}
        return self._start(
            "instance", "set_labels", f"label instance {name}", {"zone": zone}, fields
        )

    def stop(self, name: str, zone: str) -> Started:
        """Start to shut an instance down; its disks stay."""
        return self._start(
            "instance", "stop", f"stop instance {name}", {"zone": zone}, {"instance": name}
        )

    def label_image(self, name: str, body: Mapping[str, Any]) -> Started:
        """Start to set an image's labels."""
        message = self._message("GlobalSetLabelsRequest", body)
        fields = {"resource": name, "global_set_labels_request_resource": message}
        # A request of this one method has no id.
        return self._start(
            "image", "set_labels", f"label image {name}", {}, fields, request_id=None
        )

    def set_metadata(self, name: str, body: Mapping[str, Any], zone: str) -> Started:
        """Start to set an instance's metadata."""
        fields = {"instance": name, "metadata_resource": self._message("Metadata", body)}
        what = f"set metadata of instance {name}"
        return self._start("instance", "set_metadata", what, {"zone": zone}, fields)

    def wait(self, started: Started) -> None:
        """Wait until an operation is done. Raises GceError with its own error where it failed."""
        client = self._client(OPERATIONS[started.scope])
        request = {"project": self.project, "operation": started.name, **started.place}
        done = self._api.Operation.Status.DONE
        deadline = time.monotonic() + OPERATION_SECONDS
        while True:
            operation = self._call(started.what, client.wait, request, timeout=WAIT_SECONDS)
            if operation.status == done:
                break
            if time.monotonic() > deadline:
                raise GceError(
                    f"wanted to {started.what} within {OPERATION_SECONDS:.0f} s, found operation {started.name} "
                    f"{operation.status}: look it up with gcloud compute operations describe, then run again."
                )
        for error in operation.error.errors:
            raise GceError(
                explain(started.what, error.code, error.message, started.place),
                status=operation.http_error_status_code,
                codes=tuple(each.code for each in operation.error.errors),
            )
        if operation.http_error_status_code >= 400:
            code = f"HTTP {operation.http_error_status_code}"
            raise GceError(
                explain(started.what, code, operation.http_error_message, started.place),
                status=operation.http_error_status_code,
            )

    def _message(self, name: str, body: Mapping[str, Any]) -> Any:
        return getattr(self._api, name).from_json(json.dumps(body))

    def _client(self, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = getattr(self._api, name)(**self._options)
        return self._clients[name]

    def _start(
        self,
        kind: str,
        method: str,
        what: str,
        place: dict[str, str],
        fields: Mapping[str, Any],
        **more: Any,
    ) -> Started:
        call = getattr(self._client(KINDS[kind].client), f"{method}_unary")
        # With a requestId Compute Engine does a request that is sent again only once.
        request = {
            "project": self.project,
            "request_id": str(uuid.uuid4()),
            **place,
            **fields,
            **more,
        }
        given = {key: value for key, value in request.items() if value is not None}
        operation = self._call(what, call, given)
        over = operation.status == self._api.Operation.Status.DONE
        return Started(operation.name, KINDS[kind].scope, place, what, over)

    def _call(self, what: str, call: Any, request: Mapping[str, Any], **options: Any) -> Any:
        import google.api_core.exceptions
        import google.auth.exceptions
        import requests
        from google.api_core.retry import Retry

        again = Retry(
            lambda error: getattr(error, "code", None) in BUSY,
            initial=0.2,
            timeout=RETRY_SECONDS,
        )
        try:
            return call(request=request, retry=again, **options)
        except google.api_core.exceptions.RetryError as error:
            said = " ".join(str(error.cause).split())
            raise GceError(
                f"wanted to {what}, found '{said}' for {RETRY_SECONDS:.0f} s: run again later."
            ) from None
        except google.api_core.exceptions.GoogleAPICallError as error:
            status = int(error.code or 0)
            reasons = [error.reason, *(each.get("reason") for each in error.errors)]
            codes = tuple(str(each) for each in reasons if each)
            code = " ".join([f"HTTP {status}", *codes[:1]])
            place = {"zone": request["zone"]} if "zone" in request else {}
            said = explain(what, code, error.message, place)
            raise GceError(said, status=status, codes=codes) from None
        except (google.auth.exceptions.GoogleAuthError, requests.RequestException) as error:
            said = str(error).splitlines()[0]
            raise GceError(
                f"wanted to {what}, found '{said}': check the endpoint, the credentials and the network."
            ) from None


def explain(what: str, code: str, message: str, place: Mapping[str, str]) -> str:
    """Return a failure as one line: what was wanted, what was found, what to do."""
    where = place.get("zone", "the zone")
    advice = "put that right and run again; what exists already is kept."
    if "RESOURCE_POOL_EXHAUSTED" in code or "STOCKOUT" in code:
        advice = f"{where} has none left; add zones to burst_zones or types to burst_machine_types."
    elif "QUOTA" in code.upper():
        advice = "raise the quota, or lower burst_max_hosts."
    elif "403" in code:
        advice = "give the credentials roles/compute.admin on burst_project."
    said = " ".join(message.split()) or "no message"
    return f"wanted to {what}, found {code} ({said.rstrip('.')}): {advice}"
