# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that claims the same jobs and hosts again and again, in step with others; a process of its own for each.

Each line of input is a round: the jobs and the hosts that it claims at once, or null to give all back. Each line of
output is what jobs it claimed, and which jobs and which hosts others hold.
"""

from __future__ import annotations

import json
import sys

from ansible_collections.flux.burst.plugins.module_utils import _flux
from ansible_collections.flux.burst.plugins.modules.flux_job_claim import Claiming


def main(uri: str, burst: str) -> None:
    """Do what the rounds say."""
    for line in sys.stdin:
        asked = json.loads(line)
        jobs, hosts = asked or (None, None)
        params = {"burst": burst, "jobs": jobs, "hosts": hosts, "ttl": 3600, "by": burst}
        claiming = Claiming(_flux.FluxClient(uri, 30), params)
        done = claiming.release(check=False) if asked is None else claiming.claim(check=False)
        sys.stdout.write(json.dumps([done["claimed"], done["held"], done["held_hosts"]]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
