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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible.module_utils.common import warnings
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import (
    CLOUD_PLATFORM,
    IAM_ENDPOINT,
    IAM_VARIABLE,
    PROJECT_VARIABLE,
    Auth,
    first_line,
    load,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import (
    Refusal,
    explain,
    from_answer,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_retry import (
    Later,
    dropped,
    pauses,
    persist,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_session import NOT_FOUND, last_part
from ansible_collections.flux.burst.plugins.module_utils._gce_token import (
    FILE_VARIABLE,
    IMPERSONATE_VARIABLES,
    TOKEN_VARIABLES,
)

# Kept in sync with doc_fragments/_gce.py.
ACCESS: dict[str, Any] = {
    "project": {"type": "str", "fallback": (env_fallback, [PROJECT_VARIABLE])},
    "credentials_file": {"type": "path", "fallback": (env_fallback, [FILE_VARIABLE])},
    "access_token": {
        "type": "str",
        "no_log": True,
        "fallback": (env_fallback, list(TOKEN_VARIABLES)),
    },
    "impersonate_service_account": {
        "type": "str",
        "fallback": (env_fallback, list(IMPERSONATE_VARIABLES)),
    },
    "scopes": {
        "type": "list",
        "elements": "str",
        "fallback": (env_fallback, ["FLUX_BURST_SCOPES"]),
        "default": [CLOUD_PLATFORM],
    },
    "iam_endpoint": {
        "type": "str",
        "fallback": (env_fallback, [IAM_VARIABLE]),
        "default": IAM_ENDPOINT,
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
CONFLICT = 409
TRIPPED = (AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What Google's library falls over with when an answer is JSON of another kind."""
WRITERS = 10
"""How many requests at once: as many connections as the client library keeps."""


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

    `repeated` says that it was over when it was asked for: the answer to a requestId that was used before. `kind`,
    `target` and `method` say of which resource it is; target is "" where that is more than one.
    """

    name: str
    scope: str
    place: dict[str, str]
    what: str
    repeated: bool
    kind: str = ""
    target: str = ""
    method: str = ""


class GceClient:
    """Starts changes and waits for them. Every method raises GceError.

    What passes is asked again, with the same requestId. warn gets what Compute Engine warns of; as it is by default, a
    module tells that in its result.
    """

    def __init__(
        self,
        project: str,
        compute_endpoint: str,
        auth: Auth,
        warn: Callable[[str], object] = warnings.warn,
    ) -> None:
        try:
            from google.cloud import compute_v1
        except ImportError:
            raise GceError(
                "wanted google-cloud-compute on the controller, found none: pip install google-cloud-compute"
            ) from None
        self.project = project
        self._api: Any = compute_v1
        self._clients: dict[str, Any] = {}
        self._warn = warn
        self._identity = load(auth)
        self._options = {
            "credentials": self._identity.credentials,
            "client_options": {"api_endpoint": compute_endpoint},
        }

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> GceClient:
        """Return the client that a module's options describe."""
        return cls(params["project"], params["compute_endpoint"], Auth.from_params(params))

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
        """Wait until an operation is done. Raises GceError with all that it tells where it failed."""
        operation = self._finished(started)
        if operation is None:
            return
        for each in operation.warnings:
            said = " ".join(each.message.split())
            self._warn(f"Compute Engine was to {started.what} and warns: {each.code} ({said})")
        status = operation.http_error_status_code
        told = [(error.code, error.message) for error in operation.error.errors]
        if not told and status >= 400:
            told = [("", operation.http_error_message)]
        if told:
            refusal = Refusal(status, tuple(told), operation=True)
            said = explain(started.what, refusal, started.place, self._identity.who)
            raise GceError(said, status=status, codes=refusal.codes, said=refusal.message)

    def wait_all(self, started: Iterable[Started]) -> None:
        """Wait for several operations, also where one fails. Raises GceError with every failure."""
        _tell(self._failures(started))

    def together(self, starts: Iterable[Callable[[], Started | None]]) -> None:
        """Start changes that need nothing of one another, and wait for all that could be started.

        Raises GceError with every failure.
        """
        with ThreadPoolExecutor(WRITERS) as writers:
            begun = list(writers.map(_attempted, starts))
        failures = [each for each in begun if isinstance(each, GceError)]
        _tell([*failures, *self._failures(each for each in begun if isinstance(each, Started))])

    def _failures(self, started: Iterable[Started]) -> list[GceError]:
        with ThreadPoolExecutor(WRITERS) as waiters:
            ended = list(waiters.map(_attempted, (partial(self.wait, each) for each in started)))
        return [each for each in ended if isinstance(each, GceError)]

    def _finished(self, started: Started) -> Any:
        """Return an operation that is done; None where it has vanished and its outcome is as wanted, or unknown."""
        client = self._client(OPERATIONS[started.scope])
        request = {"project": self.project, "operation": started.name, **started.place}
        deadline = time.monotonic() + OPERATION_SECONDS
        paused = pauses()
        while True:
            try:
                operation = self._call(started.what, client.wait, request, timeout=WAIT_SECONDS)
            except GceError as error:
                if error.status != NOT_FOUND:
                    raise
                self._check_outcome(started)
                return None
            if operation.status == self._api.Operation.Status.DONE:
                return operation
            if time.monotonic() > deadline:
                raise GceError(
                    f"wanted to {started.what} within {OPERATION_SECONDS:.0f} s, found operation {started.name} "
                    f"{operation.status}: look it up with gcloud compute operations describe, then run again."
                )
            # A server with much to do answers at once, though nothing is done.
            time.sleep(next(paused))

    def _check_outcome(self, started: Started) -> None:
        """See whether an operation that nobody knows any more did what it was for. Raises GceError."""
        lost = f"wanted to {started.what}, found operation {started.name} gone before it was done"
        if not started.target or started.method not in ("insert", "delete"):
            self._warn(f"{lost}: run again to see that all is as wanted.")
            return
        there = self._exists(started)
        if there != (started.method == "insert"):
            raise GceError(
                f"{lost} and {started.kind} {started.target} {'still there' if there else 'missing'}: run again."
            )

    def _exists(self, started: Started) -> bool:
        request = {"project": self.project, KINDS[started.kind].field: started.target}
        get = self._client(KINDS[started.kind].client).get
        try:
            self._call(f"read {started.kind} {started.target}", get, {**request, **started.place})
        except GceError as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

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
        try:
            operation = self._call(what, call, given)
        except GceError as error:
            if error.status != CONFLICT or "request_id" not in given:
                raise
            operation = self._own_operation(KINDS[kind].scope, place, given["request_id"])
            if operation is None:
                raise
        over = operation.status == self._api.Operation.Status.DONE
        target = "" if method == "bulk_insert" else last_part(operation.target_link)
        return Started(operation.name, KINDS[kind].scope, place, what, over, kind, target, method)

    def _own_operation(self, scope: str, place: Mapping[str, str], request_id: str) -> Any:
        """Return the operation that a request with this id began, or None.

        Where its answer was lost, its repeat may find the very thing that it made in its way.
        """
        request = {
            "project": self.project,
            "filter": f'clientOperationId = "{request_id}"',
            **place,
        }
        listing = self._client(OPERATIONS[scope]).list
        try:
            found = self._call("find an operation of ours", listing, request)
        except GceError:
            # What was refused in the first place is what has to be told.
            return None
        return next(iter(found), None)

    def _call(self, what: str, call: Any, request: Mapping[str, Any], **options: Any) -> Any:
        return persist(lambda: self._attempt(what, call, request, options))

    def _attempt(
        self, what: str, call: Any, request: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Any:
        import google.api_core.exceptions
        import google.auth.exceptions
        import google.protobuf.json_format
        import requests

        try:
            return call(request=request, retry=None, **options)
        except google.api_core.exceptions.GoogleAPICallError as error:
            refusal = _refusal(error)
            place = {"zone": request["zone"]} if "zone" in request else {}
            said = explain(what, refusal, place, self._identity.who)
            failure = GceError(
                said, status=refusal.status, codes=refusal.codes, said=refusal.message
            )
            if refusal.passes:
                raise Later(failure, refusal.retry_after) from None
        except google.auth.exceptions.GoogleAuthError as error:
            failure = self._identity.refused(f"to {what}", error)
            if dropped(error):
                raise Later(failure) from None
        except requests.RequestException as error:
            failure = GceError(
                f"wanted to {what}, found '{first_line(error)}': check the endpoint and the network."
            )
            if dropped(error):
                raise Later(failure) from None
        except (google.protobuf.json_format.Error, *TRIPPED) as error:
            failure = GceError(
                f"wanted to {what}, found an answer that is none of Compute Engine's ({first_line(error)}): check the "
                "endpoint and the proxy before it."
            )
        raise failure


def _refusal(error: Any) -> Refusal:
    """Return what an error of the client library says."""
    answer = error.response
    if answer is None:
        return Refusal(int(error.code or 0), (("", str(error.message)),))
    try:
        body = answer.json()
    except ValueError:
        body = None
    return from_answer(answer.status_code, body, answer.reason, answer.headers.get("Retry-After"))


def _attempted(action: Callable[[], Started | None]) -> Started | GceError | None:
    """Return what an action returns, or the error that it raises."""
    try:
        return action()
    except GceError as error:
        return error


def _tell(failures: list[GceError]) -> None:
    """Raise the failures that there are, as one."""
    if not failures:
        return
    said = " Also ".join(dict.fromkeys(str(failure) for failure in failures))
    codes = dict.fromkeys(code for failure in failures for code in failure.codes)
    raise GceError(said, status=failures[0].status, codes=tuple(codes))
