# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drain this machine's rank when Compute Engine says that it takes the machine away, about 30 seconds before it does.

Without an argument it waits for that. With --now it only looks: systemd calls it so when it stops the unit, as in the
shutdown that comes with the notice.
"""

import subprocess
import sys
import time
import urllib.error
import urllib.request

URL = "http://169.254.169.254/computeMetadata/v1/instance/preempted"
# It begins as every drain of ours does, so that a burst or reconcile.yml undrains the rank when the machine is gone.
REASON = "flux.burst preempted"
WAIT, LOOK, PAUSE = 600, 2, 5
TRIES = 20


def ask(query, timeout):
    """Return what the metadata server answers, and its ETag. Raises OSError."""
    request = urllib.request.Request(URL + query, headers={"Metadata-Flavor": "Google"})
    # No proxy leads there.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as answer:
        return answer.read(16).decode().strip(), answer.headers.get("ETag", "0")


def wait():
    """Return when the machine is being taken away."""
    etag = ""
    while True:
        query = f"?wait_for_change=true&timeout_sec={WAIT}&last_etag={etag}" if etag else ""
        try:
            said, etag = ask(query, WAIT + 10 if etag else LOOK)
        except (OSError, ValueError):
            etag = ""
            time.sleep(PAUSE)
            continue
        if said == "TRUE":
            return


def drain():
    """Drain the rank of the broker here; return 0, or what flux ends with."""
    rank = subprocess.run(["flux", "getattr", "rank"], stdout=subprocess.PIPE, check=False)
    if rank.returncode:
        return rank.returncode
    words = ["flux", "resource", "drain", rank.stdout.decode().strip(), REASON]
    return subprocess.run(words, check=False).returncode


def main():
    """Return the exit code."""
    if "--now" in sys.argv[1:]:
        try:
            return drain() if ask("", LOOK)[0] == "TRUE" else 0
        except OSError:
            return 0
    wait()
    print("Compute Engine takes this machine away: it takes no job any more", flush=True)
    for _try in range(TRIES):
        # A broker that is only just joining cannot be asked yet.
        if drain() == 0:
            return 0
        time.sleep(1)
    return 1


if __name__ == "__main__":
    sys.exit(main())
