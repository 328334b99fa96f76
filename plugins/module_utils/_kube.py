# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a Kubernetes API by the kubernetes client, as the plain JSON of Kubernetes' API reference.

It is imported when the first cluster is read, and not before: that costs half a second.
"""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

TIMEOUT = 30.0
NOT_FOUND = 404


class KubeError(BurstError):
    """Kubernetes refused or did not answer; status is the HTTP status, 0 without one."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Kube:
    """Reads of one cluster, the one of a kubeconfig's current context. Every method raises KubeError."""

    def __init__(self, kubeconfig: str) -> None:
        try:
            from kubernetes import client, config
        except ImportError:
            raise KubeError(
                "wanted the Python package kubernetes on the controller, found none: pip install kubernetes"
            ) from None
        self.kubeconfig = os.path.expanduser(kubeconfig)
        try:
            api = config.new_client_from_config(config_file=self.kubeconfig)
        except (config.ConfigException, OSError, ValueError) as error:
            raise KubeError(
                f"wanted a kubeconfig in {self.kubeconfig}, found '{_first_line(error)}': run playbooks/lead_gke.yml, "
                "which writes it, or give another file."
            ) from None
        # An answer within a minute or none: the client would ask three times more, each time for so long.
        api.rest_client.pool_manager.connection_pool_kw["retries"] = 1
        self._host = api.configuration.host
        self._core = client.CoreV1Api(api)

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods with some labels."""
        what = f"the pods of namespace {namespace}"
        listing = self._core.list_namespaced_pod
        found: list[dict[str, Any]] = self._read(
            what, listing, namespace, label_selector=selector
        ).get("items", [])
        return found

    def node(self, name: str) -> dict[str, Any]:
        """Return a node."""
        return self._read(f"node {name}", self._core.read_node, name)

    def service(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a service; None where there is none."""
        what = f"service {name} of namespace {namespace}"
        try:
            return self._read(what, self._core.read_namespaced_service, name, namespace)
        except KubeError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def _read(self, what: str, call: Any, *words: str, **options: Any) -> dict[str, Any]:
        import urllib3
        from kubernetes.client import ApiException

        try:
            # The models that the client makes of an answer cost more than the answer.
            answer = call(*words, _preload_content=False, _request_timeout=TIMEOUT, **options)
            found: dict[str, Any] = json.loads(answer.data)
        except ApiException as error:
            raise KubeError(
                f"wanted {what} from {self._place}, found HTTP {error.status} ({_told(error)}): {self._advice(error)}.",
                status=int(error.status or 0),
            ) from None
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise KubeError(
                f"wanted {what} from {self._place}, found '{_first_line(reason)}': see that the cluster runs and that "
                "this machine reaches its API."
            ) from None
        return found

    @property
    def _place(self) -> str:
        return f"Kubernetes at {urlsplit(self._host).netloc}"

    def _advice(self, error: Any) -> str:
        if error.status == 401:
            return (
                f"see what kubectl --kubeconfig {self.kubeconfig} get nodes says of the credentials"
            )
        if error.status == 403:
            return "give the account roles/container.developer"
        return "put that right and run again"


def _told(error: Any) -> str:
    """Return the message of a Status, which is the answer to a request that failed, or what HTTP says."""
    try:
        said = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        said = error.reason
    return " ".join(str(said).split()).rstrip(".")


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
