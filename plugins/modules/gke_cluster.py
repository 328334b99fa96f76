# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GKE cluster for a lead."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gke_cluster
short_description: A GKE cluster in which a lead can run
version_added: 0.1.0
description:
  - Makes a cluster with one node pool, network policy, intra-node visibility, network tags on its nodes, and workload
    identity, so that no pod needs a copied credentials file. It waits until the cluster runs.
  - Of a cluster that exists, the number of nodes, network policy, intra-node visibility, workload identity and labels
    are put right. What cannot be changed in place is kept, warned of and returned (RV(differences)).
author:
  - flux.burst contributors (@flux-framework)
options:
  state:
    description: Whether the cluster shall exist. V(absent) deletes it with all that runs there.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the cluster.
    type: str
    required: true
  location:
    description: Zone of the cluster, or region of one that has nodes in several zones.
    type: str
    required: true
  nodes:
    description: How many nodes it has, in each zone. One that is in use by others may be another number.
    type: int
    default: 4
  machine_type:
    description: Machine type of the nodes.
    type: str
    default: n2-standard-4
  tags:
    description: Network tags of the nodes, which a firewall can name.
    type: list
    elements: str
    default: []
  network:
    description: Network of the nodes. By default the project's V(default).
    type: str
  subnetwork:
    description: Subnetwork of the nodes. By default that of the network in the location's region.
    type: str
  network_policy:
    description: Whether network policies are enforced among pods.
    type: bool
    default: true
  intranode_visibility:
    description: Whether the network sees traffic among pods of one node.
    type: bool
    default: true
  workload_identity:
    description: Whether pods get Google credentials of service accounts of Kubernetes, by the project's own pool.
    type: bool
    default: true
  service_account:
    description: Service account of the nodes. By default the project's Compute Engine account.
    type: str
  labels:
    description: Labels of the cluster. Without it, those that it has are kept.
    type: dict
  timeout:
    description: How long the cluster may take, in seconds.
    type: int
    default: 1800
  container_endpoint:
    description:
      - Where the Kubernetes Engine API is. The environment variable E(FLUX_BURST_CONTAINER_ENDPOINT) is used
        without it.
    type: str
    default: https://container.googleapis.com
extends_documentation_fragment:
  - flux.burst._gce
  - flux.burst._attributes
seealso:
  - module: flux.burst.gke_lead_info
"""

EXAMPLES = r"""
- name: Make a cluster for the lead
  flux.burst.gke_cluster:
    project: my-project
    name: flux-cluster
    location: us-central1-a
    nodes: 4
    machine_type: n2-standard-4
    tags: [flux-cluster]
  register: cluster

- name: Show where it is
  ansible.builtin.debug:
    msg: "https://{{ cluster.endpoint }}"

- name: Delete it, with all that runs there
  flux.burst.gke_cluster:
    project: my-project
    name: flux-cluster
    location: us-central1-a
    state: absent
"""

RETURN = r"""
endpoint:
  description: Address of the cluster's API, with the port where that is not 443. Empty where there is no cluster.
  returned: success
  type: str
  sample: 34.69.1.2
ca_certificate:
  description: The certificate of the authority that signs the API's certificate, as PEM in base64. It is no secret.
  returned: success
  type: str
  sample: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t
status:
  description: V(RUNNING), or another state of a cluster. Empty where there is none.
  returned: success
  type: str
  sample: RUNNING
version:
  description: Version of Kubernetes there. Empty where there is no cluster.
  returned: success
  type: str
  sample: 1.31.4-gke.1183000
network:
  description: Name of the network of the nodes. Empty where there is no cluster.
  returned: success
  type: str
  sample: default
tags:
  description: Network tags of the nodes.
  returned: success
  type: list
  elements: str
  sample: [flux-cluster]
differences:
  description: What is not as wanted and cannot be changed in place.
  returned: success
  type: list
  elements: dict
  sample:
    - option: machine_type
      wanted: n2-standard-8
      found: n2-standard-4
resources:
  description: What was changed, or in check mode would be.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: cluster
      name: flux-cluster
      action: create
"""

import time
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule, env_fallback
from ansible_collections.flux.burst.plugins.module_utils import _changes, _gke_cluster
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError, failing_module
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth, with_project
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS, CONFLICT
from ansible_collections.flux.burst.plugins.module_utils._gce_retry import pauses
from ansible_collections.flux.burst.plugins.module_utils._gce_session import (
    NOT_FOUND,
    ContainerSession,
    last_part,
)

READY = ("RUNNING", "RECONCILING")
PASSING = ("PROVISIONING", "STOPPING")


class Cluster:
    """A cluster as it is, and the changes to it."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.session = ContainerSession(params["container_endpoint"], Auth.from_params(params))
        self.place = f"projects/{params['project']}/locations/{params['location']}"
        self.name = params["name"]
        self.path = f"{self.place}/clusters/{quote(self.name)}"
        self.end = time.monotonic() + params["timeout"]
        self.found = self.read()

    def read(self) -> dict[str, Any] | None:
        """Return the REST resource; None where there is none. Raises GceError."""
        try:
            return self.session.get(self.path)
        except GceError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def settle(self) -> None:
        """Wait until a cluster that is being made or deleted is there or gone. Raises GceError."""
        paused = pauses()
        while self.found and self.found.get("status") in PASSING:
            self._pause(paused, f"cluster {self.name}", self.found["status"])
            self.found = self.read()

    def _pause(self, paused: Any, what: str, status: str) -> None:
        wait = next(paused)
        if time.monotonic() + wait > self.end:
            raise GceError(
                f"wanted {what} done within {self.params['timeout']} s, found it {status}: see the Google Cloud "
                "console, raise timeout, and run again, which goes on waiting."
            )
        time.sleep(wait)

    def act(self, stage: _changes.Stage) -> None:
        """Do it and wait for it. Raises GceError."""
        for change in stage:
            if change.action == "create":
                self._create(dict(change.after))
            elif change.action == "delete":
                self._do("DELETE", "", None)
            else:
                for verb, below, body in _gke_cluster.requests(change, self.found or {}):
                    self._do(verb, below, body)
        self.found = self.read()

    def _create(self, body: dict[str, Any]) -> None:
        try:
            self._wait(self.session.ask("POST", f"{self.place}/clusters", {"cluster": body}))
        except GceError as error:
            # The answer to the first attempt was lost, or somebody else made it just now.
            if error.status != CONFLICT:
                raise
            self.found = self.read()
            self.settle()

    def _do(self, verb: str, below: str, body: dict[str, Any] | None) -> None:
        self._wait(self.session.ask(verb, f"{self.path}{below}", body))

    def _wait(self, operation: dict[str, Any]) -> None:
        paused = pauses()
        path = f"{self.place}/operations/{operation['name']}"
        while operation.get("status") != "DONE":
            self._pause(paused, f"operation {operation['name']}", str(operation.get("status")))
            operation = self.session.get(path)
        error = operation.get("error") or {}
        if error.get("code") or error.get("message"):
            said = " ".join(str(error.get("message", "no message")).split()).rstrip(".")
            raise GceError(
                f"wanted {operation.get('operationType', 'an operation')} of cluster {self.name}, found '{said}': "
                "put that right and run again; what exists already is kept."
            )

    def ready(self) -> None:
        """Raise GceError unless the cluster runs."""
        status = (self.found or {}).get("status")
        if status not in READY:
            said = (self.found or {}).get("statusMessage") or "no message"
            raise GceError(
                f"wanted cluster {self.name} running, found it {status} ({said}): repair or delete it, then run again."
            )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **ACCESS,
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "location": {"type": "str", "required": True},
            "nodes": {"type": "int", "default": 4},
            "machine_type": {"type": "str", "default": "n2-standard-4"},
            "tags": {"type": "list", "elements": "str", "default": []},
            "network": {"type": "str"},
            "subnetwork": {"type": "str"},
            "network_policy": {"type": "bool", "default": True},
            "intranode_visibility": {"type": "bool", "default": True},
            "workload_identity": {"type": "bool", "default": True},
            "service_account": {"type": "str"},
            "labels": {"type": "dict"},
            "timeout": {"type": "int", "default": 1800},
            "container_endpoint": {
                "type": "str",
                "default": "https://container.googleapis.com",
                "fallback": (env_fallback, ["FLUX_BURST_CONTAINER_ENDPOINT"]),
            },
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = with_project(module.params)
        cluster = Cluster(params)
        if not module.check_mode:
            cluster.settle()
        differences: list[dict[str, Any]] = []
        if params["state"] == "absent":
            gone = _changes.Change(
                "cluster", params["name"], "delete", {"name": params["name"]}, {}
            )
            plan = [gone] if cluster.found else []
        else:
            want = _gke_cluster.wanted(params)
            plan = _gke_cluster.plan(params["name"], want, cluster.found)
            differences = differing(cluster, want)
        for each in differences:
            module.warn(
                f"cluster {params['name']}: wanted {each['option']} {each['wanted']}, found {each['found']}, which "
                "Kubernetes Engine cannot change in place: it is kept; make another cluster for it."
            )
        result = _changes.apply([plan], cluster.act, check=module.check_mode)
        if params["state"] == "present" and not module.check_mode:
            cluster.ready()
        module.exit_json(**result, differences=differences, **told(cluster.found or {}))


def differing(cluster: Cluster, want: _gke_cluster.Settings) -> list[dict[str, Any]]:
    """Return what cannot be changed in place."""
    if not cluster.found:
        return []
    have = _gke_cluster.found(cluster.found)
    pairs = _gke_cluster.differing(want, have, _gke_cluster.FIXED)
    return [{"option": name, "wanted": it[1], "found": it[0]} for name, it in pairs.items()]


def told(cluster: dict[str, Any]) -> dict[str, Any]:
    """Return what the module returns of a cluster."""
    return {
        "endpoint": cluster.get("endpoint", ""),
        "ca_certificate": cluster.get("masterAuth", {}).get("clusterCaCertificate", ""),
        "status": cluster.get("status", ""),
        "version": cluster.get("currentMasterVersion", ""),
        "network": last_part(cluster.get("network", "")),
        "tags": _gke_cluster.found(cluster)["tags"],
    }


if __name__ == "__main__":
    main()
