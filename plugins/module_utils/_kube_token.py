# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The access token for a GKE cluster, for clients of Kubernetes to ask for: a kubeconfig's `exec` names this program.

So a kubeconfig holds no secret, and gke-gcloud-auth-plugin is not needed. The answer is an ExecCredential of
client.authentication.k8s.io/v1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

if __name__ == "__main__":
    # What it imports of ours is found where Ansible finds it.
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 5)))

from ansible_collections.flux.burst.plugins.module_utils._gce_token import TokenError, Tokens

API_VERSION = "client.authentication.k8s.io/v1"


def credential(token: str) -> str:
    """Return the token as a client takes it. Without a time it asks again in its next process, which is soon."""
    said = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {"token": token}}
    return json.dumps(said)


def main() -> int:
    """Print the credential; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--credentials-file", help="as burst_credentials_file")
    parser.add_argument("--impersonate", help="as burst_impersonate_service_account")
    parser.add_argument("--directory", help="where the token is kept for other processes")
    given = parser.parse_args()
    try:
        token = Tokens(given.credentials_file, given.impersonate, given.directory).get()
    except TokenError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{credential(token)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
