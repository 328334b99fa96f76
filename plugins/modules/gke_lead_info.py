# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a lead in Kubernetes is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gke_lead_info
short_description: Where the lead of a MiniCluster is, and how a burst reaches it
version_added: 0.1.0
description:
  - Finds the pod with index 0 of a MiniCluster of the Flux Operator, the node on which it runs, that node's address,
    and the port at which a service of type NodePort leads to it. It asks anew each time, so that it follows a pod that
    was made again elsewhere. Of several pods, the newest that runs is taken.
  - Where the pod does not run, it fails with the pod's phase and the reason that Kubernetes gives.
author:
  - flux.burst contributors (@flux-framework)
options:
  kubeconfig:
    description: The file that says where the cluster is and how to log in; its current context is used.
    type: path
    required: true
  namespace:
    description: Namespace of the MiniCluster.
    type: str
    default: default
  minicluster:
    description: Name of the MiniCluster.
    type: str
    required: true
  service:
    description: Name of the service of type NodePort. By default O(minicluster) with C(-lead) behind it.
    type: str
  address:
    description: Which of the node's addresses. A machine in the same VPC reaches the V(internal) one.
    type: str
    choices: [external, internal]
    default: external
  timeout:
    description: How long to wait for the pod to run, in seconds.
    type: int
    default: 0
extends_documentation_fragment:
  - flux.burst._attributes.info
requirements:
  - kubernetes
seealso:
  - module: flux.burst.gke_cluster
"""

EXAMPLES = r"""
- name: Find the lead
  flux.burst.gke_lead_info:
    kubeconfig: ~/.ansible/flux_burst/kubeconfig-flux-cluster
    minicluster: flux-sample
    timeout: 300
  register: lead

- name: Show where a burst reaches it
  ansible.builtin.debug:
    msg: "{{ lead.pod }} on {{ lead.node }}: {{ lead.address }}:{{ lead.port }}"
"""

RETURN = r"""
pod:
  description: Name of the pod.
  returned: success
  type: str
  sample: flux-sample-0-kktl7
container:
  description: Name of the container in which the broker runs.
  returned: success
  type: str
  sample: flux-sample
namespace:
  description: Namespace of the pod.
  returned: success
  type: str
  sample: default
hostname:
  description: Hostname of the pod, which is the lead's name in Flux.
  returned: success
  type: str
  sample: flux-sample-0
node:
  description: Name of the node on which it runs.
  returned: success
  type: str
  sample: gke-flux-cluster-default-pool-4dea9d5c-0b0d
address:
  description: Address of the node.
  returned: success
  type: str
  sample: 34.171.113.254
port:
  description: Port at the node that leads to the broker.
  returned: success
  type: int
  sample: 30093
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flux.burst.plugins.module_utils._errors import failing_module
from ansible_collections.flux.burst.plugins.module_utils._gke_lead import (
    ADDRESS_TYPES,
    find,
    service_of,
)
from ansible_collections.flux.burst.plugins.module_utils._kube import Kube


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "default": "default"},
            "minicluster": {"type": "str", "required": True},
            "service": {"type": "str"},
            "address": {"type": "str", "choices": list(ADDRESS_TYPES), "default": "external"},
            "timeout": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    with failing_module(module):
        params = module.params
        found = find(
            Kube(params["kubeconfig"]),
            params["namespace"],
            params["minicluster"],
            params["service"] or service_of(params["minicluster"]),
            params["address"],
            params["timeout"],
        )
        module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
