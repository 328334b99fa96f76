# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which project, at which endpoint, with which credentials."""

from __future__ import annotations


class ModuleDocFragment:
    """Kept in sync with ACCESS and ARGUMENTS of module_utils/_gce_client.py."""

    DOCUMENTATION = r"""
options:
  project:
    description:
      - Google Cloud project. Without it the environment variable E(GOOGLE_CLOUD_PROJECT) is used, and then the project
        of the credentials, where they have one.
    type: str
  access_token:
    description:
      - OAuth access token, which goes before all other credentials. It is not renewed, so it must outlive the play.
      - The environment variables E(FLUX_BURST_ACCESS_TOKEN) and E(GOOGLE_OAUTH_ACCESS_TOKEN) are used without it, and
        are the better place for a secret.
    type: str
  credentials_file:
    description:
      - Credentials file, a service account's key or another one that C(gcloud) makes, for instance of workload identity
        federation. Without it the environment variable E(GOOGLE_APPLICATION_CREDENTIALS) is used, and then the
        application default credentials, which are C(gcloud)'s own or those of the machine where the module runs.
    type: path
  impersonate_service_account:
    description:
      - Service account to act as. The credentials need V(roles/iam.serviceAccountTokenCreator) on it.
      - Several, separated by commas, are a chain; the last one is acted as.
      - The environment variables E(FLUX_BURST_IMPERSONATE_SERVICE_ACCOUNT) and E(GOOGLE_IMPERSONATE_SERVICE_ACCOUNT)
        are used without it.
    type: str
  scopes:
    description:
      - OAuth scopes of the access tokens, where the credentials let them be chosen. The environment variable
        E(FLUX_BURST_SCOPES), separated by commas, is used without it.
    type: list
    elements: str
    default: [https://www.googleapis.com/auth/cloud-platform]
  iam_endpoint:
    description:
      - Where the IAM Credentials API is, which O(impersonate_service_account) needs. The environment variable
        E(FLUX_BURST_IAM_ENDPOINT) is used without it.
    type: str
    default: https://iamcredentials.googleapis.com
  compute_endpoint:
    description:
      - Where the Compute Engine API is. The environment variable E(FLUX_BURST_COMPUTE_ENDPOINT) is used without it.
    type: str
    default: https://compute.googleapis.com
requirements:
  - google-auth
  - requests
  - google-cloud-compute
"""

    BURST = r"""
options:
  burst:
    description:
      - Name of the burst. What it makes carries the label C(flux-burst) with this value or, where Compute Engine has no
        labels on that kind, a name that begins with it and the description C(flux-burst=NAME).
    type: str
    required: true
"""
