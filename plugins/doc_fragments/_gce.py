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
    description: Google Cloud project. The environment variable E(GOOGLE_CLOUD_PROJECT) is used without it.
    type: str
    required: true
  credentials_file:
    description:
      - Service account file. Without it the environment variable E(GOOGLE_APPLICATION_CREDENTIALS) is used, and then
        the application default credentials.
    type: path
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
