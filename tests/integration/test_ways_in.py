# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways to the machines of one burst, step by step: with one tunnel for all, one for each, and none.

On each, a machine whose host key was swapped is refused. The tests of this module run in their order.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from burst_sandbox import PREPARED, Run, Sandbox, flux_kinds, sandbox_name

from sandbox.machines.cloudnet import cloud_namespace
from sandbox.paths import LOG

pytestmark = pytest.mark.machines

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
SWAPPED = HOSTS[1]
# What the first burst has set up is not looked at again.
TUNNEL = re.compile(r"sandbox\.relay INFO connect \S*instance=(gffw-[^&]+)\S*: [0-9.]+ s$", re.M)
SECRETS = ("/etc/munge/munge.key", "/etc/flux/system/curve.cert")
# As if another machine stood where this one was: no secret of the lead's, other host keys, no connection from before.
SWAP = f"""
systemctl stop flux munge
rm {" ".join(SECRETS)} /etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key
systemctl restart ssh
pkill -u burst
ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
"""


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def site(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with a job that waits for three machines."""
    made = Sandbox(sandbox_name("ways"), request.param)
    made.command("down")
    try:
        assert made.up("--machines", "prepared").code == 0
        words = ("flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname")
        assert made.on_lead(*words).code == 0
        yield made
    finally:
        made.command("down")


def tunnels(site: Sandbox) -> Counter[str]:
    """How many tunnels the relay has opened to each bursted machine so far."""
    return Counter(TUNNEL.findall((site.state / LOG).read_text()))


def hostnames(site: Sandbox, *options: str, **env: str) -> Run:
    """Ask every machine for its name."""
    return site.run(
        "ansible", "burst_nodes", "-o", "-m", "command", "-a", "hostname", *options, **env
    )


def answered(done: Run) -> list[str]:
    """The machines that told their own name."""
    return re.findall(r"^(\S+) \| CHANGED.*\(stdout\) \1$", done.output, re.M)


def test_a_burst_through_the_first_machine_costs_one_tunnel(site: Sandbox) -> None:
    done = site.playbook("burst", *PREPARED, "-e", "burst_ssh_via=gateway")
    assert done.code == 0, done.output
    assert tunnels(site) == {HOSTS[0]: 1}
    assert sorted(answered(hostnames(site, "-e", "burst_ssh_via=gateway"))) == HOSTS


def test_a_controller_in_the_same_network_needs_no_tunnel(site: Sandbox, tmp_path: Path) -> None:
    ssh = tmp_path / "ssh"
    namespace = cloud_namespace(site.name)
    ssh.write_text(f'#!/bin/sh\nexec ip netns exec {namespace} {shutil.which("ssh")} "$@"\n')
    ssh.chmod(0o755)
    before = tunnels(site)
    done = hostnames(site, "-e", "burst_ssh_via=internal", ANSIBLE_SSH_EXECUTABLE=str(ssh))
    assert sorted(answered(done)) == HOSTS, done.output
    assert tunnels(site) == before


def test_a_key_pair_that_was_lost_is_made_again_and_let_in_with_a_tunnel_for_each_machine(
    site: Sandbox,
) -> None:
    """As on another controller: the machines that stand get the new one's key. All of a play's tasks share a tunnel."""
    shutil.rmtree(site.state / "bursts")
    before = tunnels(site)
    done = site.playbook("burst", *PREPARED, "--diff")
    assert done.code == 0, done.output
    assert done.changed == {"localhost": 2}
    assert "PRIVATE" not in done.output
    assert tunnels(site) - before == dict.fromkeys(HOSTS, 1)


def test_with_os_login_the_account_logs_in_and_the_user_of_the_metadata_no_more(
    site: Sandbox, tmp_path: Path
) -> None:
    done = site.playbook("burst", *PREPARED, "-e", "burst_os_login=true")
    assert done.code == 0, done.output
    # The key is imported, and the machines are told to look there, and whose it is.
    assert done.changed == {"localhost": 2}
    who = site.run("ansible", "burst_nodes", "-o", "-m", "command", "-a", "whoami")
    assert len(re.findall(r"\(stdout\) sa_\d+$", who.output, re.M)) == len(HOSTS), who.output
    # Over no connection of before.
    fresh = {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(tmp_path), "FLUX_BURST_KEY_TIMEOUT": "0"}
    refused = hostnames(site, "-e", "ansible_user=burst", **fresh)
    assert answered(refused) == []
    assert refused.output.count("Permission denied (publickey)") >= len(HOSTS)


def test_a_machine_with_a_swapped_host_key_gets_no_secret_and_the_others_join(
    site: Sandbox,
) -> None:
    known = site.state / "bursts" / "flux-burst" / "known_hosts"
    pinned = site.run("ssh-keygen", "-lf", str(known)).output
    swapped = site.execute(SWAPPED, "sh", "-c", SWAP)
    assert swapped.code == 0, swapped.output
    found = re.findall(r"SHA256:\S+", swapped.output)[-1]
    site.execute(HOSTS[2], "systemctl", "stop", "flux")
    done = site.playbook("burst", *PREPARED, "-e", "burst_join_timeout=15")
    assert done.code != 0
    assert done.changed["localhost"] == 1, "the user of the metadata logs in again"
    said = " ".join(done.output.split())
    refusal = re.search(
        rf"stage host_key: wanted {SWAPPED} with the SSH host key ssh-ed25519 (SHA256:\S+) that is pinned in "
        rf"{known}, found {re.escape(found)} presented by its sshd",
        said,
    )
    assert refusal, done.output
    assert refusal[1] in pinned
    assert refusal[1] != found
    for path in SECRETS:
        assert site.execute(SWAPPED, "test", "-e", path).code != 0, path
    assert done.changed[HOSTS[2]] == 1
    words = ("flux", "resource", "list", "-n", "-s", "free", "-o", "{nodelist}")
    assert f"gffw-compute-a-[{HOSTS[0][-3:]},{HOSTS[2][-3:]}]" in site.on_lead(*words).output


def test_it_is_refused_through_the_gateway_too(site: Sandbox) -> None:
    done = hostnames(site, "-e", "burst_ssh_via=gateway")
    assert sorted(answered(done)) == [HOSTS[0], HOSTS[2]]
    assert f"stage host_key: wanted {SWAPPED}" in done.output


def test_guest_attributes_that_changed_are_no_reason_to_trust_it(site: Sandbox) -> None:
    words = ("/etc/ssh/ssh_host_ed25519_key.pub", "/var/lib/sandbox-host-keys/")
    site.execute(SWAPPED, "cp", *words)
    done = hostnames(site)
    assert sorted(answered(done)) == [HOSTS[0], HOSTS[2]]
    assert "among its guest attributes: nothing was sent to it" in done.output
