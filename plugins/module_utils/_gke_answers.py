# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What we read of Kubernetes Engine's answers, a cluster or an operation, by Google's discovery document."""

from __future__ import annotations

from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._answers import Each

NODE = {
    "machineType?": str,
    "tags?": [str],
    "serviceAccount?": str,
}
ANSWER: dict[str, Any] = {
    "name": str,
    "status": str,
    "statusMessage?": str,
    # A cluster.
    "endpoint?": str,
    "masterAuth?": {"clusterCaCertificate?": str},
    "currentMasterVersion?": str,
    "currentNodeCount?": int,
    "network?": str,
    "subnetwork?": str,
    "networkConfig?": {"enableIntraNodeVisibility?": bool},
    "networkPolicy?": {"enabled?": bool},
    "workloadIdentityConfig?": {"workloadPool?": str},
    "resourceLabels?": Each(str),
    "labelFingerprint?": str,
    "nodeConfig?": NODE,
    "nodePools?": [{"name": str, "initialNodeCount?": int, "config?": NODE}],
    # An operation.
    "operationType?": str,
    "error?": {"code?": int, "message?": str},
}
