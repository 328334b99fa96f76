# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play of five tasks on four machines through IAP: by our connection, and by google.cloud's, which runs gcloud."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from figures import TOP, figure, say, timed

from sandbox.paths import LOG
from tools.peers import google_cloud

sys.path.append(str(TOP / "tests/integration"))

from burst_sandbox import Run, Sandbox

RUNS = 3
HERE = Path(__file__).parent
MACHINES = [f"bench-{number:03}" for number in range(1, 5)]
CONNECT = "sandbox.relay INFO connect "


@contextmanager
def machines(folder: Path) -> Iterator[Sandbox]:
    """Run a sandbox with machines that let the key in that is in the folder."""
    site = Sandbox("bench-play", "standin")
    site.command("down")
    try:
        succeeded(site.up())
        key = folder / "ssh_key"
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(made, check=True, stdin=subprocess.DEVNULL)
        variables = {
            "burst": "bench",
            "machines": MACHINES,
            "endpoint": site.env["FLUX_BURST_COMPUTE_ENDPOINT"],
            "credentials": site.env["GOOGLE_APPLICATION_CREDENTIALS"],
            "public_key": key.with_suffix(".pub").read_text().strip(),
        }
        words = ("ansible-playbook", "-i", "localhost,", str(HERE / "our_machines.yml"))
        succeeded(site.run(*words, "-e", json.dumps(variables)))
        yield site
    finally:
        site.command("down")


def succeeded(done: Run) -> None:
    """End the bench where a command did not succeed."""
    if done.code:
        raise SystemExit(f"bench: wanted a command to succeed, found\n{done.output[-3000:]}")


def inventories(site: Sandbox, folder: Path) -> dict[str, Path]:
    """Write an inventory of the machines for our connection, and one for google.cloud's."""
    spec: dict[str, Any] = {
        "burst_name": "bench",
        "burst_project": site.env["GOOGLE_CLOUD_PROJECT"],
        "burst_directory": str(folder / "bursts"),
        "burst_ssh_private_key_file": str(folder / "ssh_key"),
        "burst_compute_endpoint": site.env["FLUX_BURST_COMPUTE_ENDPOINT"],
        "burst_credentials_file": site.env["GOOGLE_APPLICATION_CREDENTIALS"],
        "burst_iap_endpoint": site.env["FLUX_BURST_IAP_ENDPOINT"],
        "burst_iap_ca_file": site.env["FLUX_BURST_IAP_CA_FILE"],
    }
    peer = {
        "ansible_connection": "google.cloud.iap",
        "ansible_user": "burst",
        "ansible_private_key_file": str(folder / "ssh_key"),
        "ansible_known_hosts_file": str(folder / "known_hosts"),
        "ansible_gcloud_project": site.env["GOOGLE_CLOUD_PROJECT"],
        "ansible_gcloud_zone": "us-central1-a",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    files = {
        "spec.yml": spec,
        "gce.yml": {"plugin": "flux.burst.gce", "specification": "spec.yml"},
        "peer.yml": {"all": {"hosts": {name: {} for name in MACHINES}, "vars": peer}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return {"ours": folder / "gce.yml", "peer": folder / "peer.yml"}


def play() -> bool:
    """Run the play by either connection, and count the tunnels that the relay has opened for it."""
    with (
        tempfile.TemporaryDirectory(prefix="flux-burst-bench-") as name,
        machines(Path(name)) as site,
    ):
        files = inventories(site, Path(name))
        if not shutil.which("gcloud"):
            say("# play: gcloud is not installed: google.cloud's connection is left out")
            del files["peer"]
        seconds: dict[str, list[float]] = {kind: [] for kind in files}
        tunnels: dict[str, list[float]] = {kind: [] for kind in files}
        for number in range(RUNS):
            for kind, file in files.items():
                before = opened(site)
                control = Path(name) / f"{kind[0]}{number}"
                seconds[kind].append(timed(lambda: five_tasks(site, kind, file, control)))  # noqa: B023
                tunnels[kind].append((opened(site) - before) / len(MACHINES))
    good = figure("play_tunnels_per_machine", tunnels["ours"], "tunnels", "<= 1")
    if "peer" not in files:
        return good
    ratios = [ours / peer for ours, peer in zip(seconds["ours"], seconds["peer"], strict=True)]
    detail = (
        f"median {sorted(seconds['ours'])[RUNS // 2]:.3g} s beside {sorted(seconds['peer'])[RUNS // 2]:.3g} s, which "
        f"opened {sorted(tunnels['peer'])[RUNS // 2]:.3g} tunnels a machine"
    )
    return figure("play_beside_google_cloud", ratios, "ratio", "<= 0.4", detail) and good


def opened(site: Sandbox) -> int:
    """Return how many tunnels the relay has opened so far."""
    return (site.state / LOG).read_text().count(CONNECT)


def five_tasks(site: Sandbox, kind: str, inventory: Path, control: Path) -> None:
    """Run the play with no connection open from before."""
    settings = {
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control),
        "ANSIBLE_PIPELINING": "true",
        "ANSIBLE_COLLECTIONS_PATH": f"{TOP}/.cache/collections:{google_cloud()}",
    }
    if kind == "peer":
        settings |= site.exports("--proxy")
    words = ("ansible-playbook", "-i", str(inventory), str(HERE / "five_tasks.yml"))
    succeeded(site.run(*words, **settings))
