# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Eight machines, the first of them the overlay parent of the others, with the real Flux: one burst, in its order."""

from __future__ import annotations

import re
import shlex
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from burst_sandbox import (
    LEAD,
    Run,
    Sandbox,
    declared,
    flux_kinds,
    machines,
    sandbox_name,
    succeeded,
)

from sandbox.site import FLUX_UID, IMP, SECURITY

pytestmark = pytest.mark.machines

COUNT = 8
HOSTS = machines(COUNT)
GATEWAY, LEAVES = HOSTS[0], HOSTS[1:]
NAT = "203.0.113.20"
SPEC = ("-e", f"burst_hostlist={declared(COUNT)}", "-e", "burst_image_prepared=true")
# What role node_base does, in one go: it has tests of its own, and takes its time for eight.
BASE = f"""
useradd -u {FLUX_UID} -U -m -d /var/lib/flux flux
mkdir -p /etc/flux/system/conf.d /etc/flux/security/conf.d /etc/flux/imp/conf.d
echo {shlex.quote(SECURITY)} > /etc/flux/security/conf.d/security.toml
echo {shlex.quote(IMP)} > /etc/flux/imp/conf.d/imp.toml
"""


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def site(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A lead that declares eight machines, the first as the parent of the others, and a job for all of them."""
    made = Sandbox(sandbox_name("gateway"), request.param)
    made.command("down")
    try:
        succeeded(made.up())
        made.declare(COUNT, gateway=True)
        submit(made, COUNT + 1)
        yield made
    finally:
        down = made.command("down")
    assert down.code == 0, down.output


def submit(sandbox: Sandbox, nodes: int) -> str:
    """Submit a burstable job that says where it runs, and return its id."""
    words = ("flux", "submit", f"-N{nodes}", "--cwd=/tmp", "--setattr=burstable", "hostname")
    return succeeded(sandbox.on_lead(*words)).output.strip()


def burst(sandbox: Sandbox, *options: str) -> Run:
    """Burst with the gateway."""
    return sandbox.playbook("burst", *SPEC, "-e", "burst_topology=gateway", *options)


def ran_on(sandbox: Sandbox, job: str) -> set[str]:
    """The hosts that a job says it ran on, once it has ended."""
    return set(succeeded(sandbox.on_lead("flux", "job", "attach", job)).output.split())


def up(sandbox: Sandbox) -> set[str]:
    """The bursted hosts that are online."""
    listed = sandbox.on_lead("flux", "resource", "list", "-n", "-s", "up", "-o", "{nodelist}")
    text = succeeded(listed).output.replace("\n", ",").strip(",")
    found = sandbox.on_lead("flux", "hostlist", "-e", "-d,", text)
    return {*succeeded(found).output.strip().split(",")} & {*HOSTS}


def eventually_up(sandbox: Sandbox, wanted: set[str]) -> set[str]:
    """The bursted hosts that are online when those are, or after ten seconds."""
    deadline = time.monotonic() + 10
    while (found := up(sandbox)) != wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def addresses(sandbox: Sandbox) -> dict[str, str]:
    """The machines' addresses."""
    found = sandbox.status()["projects"]["sandbox-project"]["instances"]
    return {row["name"]: row["address"] for row in found}


def peers(sandbox: Sandbox) -> list[str]:
    """Where the connections to the lead's port come from that are not of its own site."""
    words = ("ss", "-Htn", "state", "established", "sport", "=", ":8050")
    rows = [line.split() for line in succeeded(sandbox.execute(LEAD, *words)).output.splitlines()]
    sources = [row[3].rpartition(":")[0] for row in rows]
    return [source for source in sources if not source.startswith("10.77.")]


def lose(sandbox: Sandbox, host: str) -> None:
    """Let Compute Engine take a machine away."""
    url = f"{sandbox.env['FLUX_BURST_COMPUTE_ENDPOINT']}/sandbox/preempt/sandbox-project/{host}"
    urllib.request.urlopen(urllib.request.Request(url, b"", method="POST")).close()
    while host in addresses(sandbox):
        time.sleep(0.1)


def told(done: Run) -> str:
    """What a run says, on one line."""
    return " ".join(done.output.split()).replace("''", "'")


def test_a_gateway_that_does_not_join_is_told_once_with_those_below_it(site: Sandbox) -> None:
    done = burst(site)
    assert done.code != 0, done.output
    end = told(Run(1, done.output[done.output.rindex("fatal: ") :]))
    below = f"has not joined, and with it 7 ranks below it ({declared(COUNT, 2)})"
    assert f"{GATEWAY}: stage base: the gateway {GATEWAY} {below}; wanted user flux" in end
    assert not any(f"{leaf}: stage" in end for leaf in LEAVES)
    assert set(addresses(site)) == set(HOSTS), "they stay, to be looked into"


def test_the_lead_has_one_connection_from_outside_and_a_job_spans_all(site: Sandbox) -> None:
    with ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(lambda host: site.shell(host, BASE), HOSTS))
    succeeded(burst(site))
    assert peers(site) == [NAT]
    (job,) = succeeded(site.on_lead("flux", "jobs", "-an", "-o", "{id}")).output.split()
    assert ran_on(site, job) == {"flux-sample-1", *HOSTS}


def test_what_is_lost_is_one_node_or_all_that_is_below_and_a_burst_brings_it_back(
    site: Sandbox,
) -> None:
    before = addresses(site)
    # The next machine gets the lowest address that is free.
    leaf = min(LEAVES, key=lambda host: int(before[host].rpartition(".")[2]))
    lose(site, leaf)
    kept = {*HOSTS} - {leaf}
    assert eventually_up(site, kept) == kept

    lose(site, GATEWAY)
    assert eventually_up(site, set()) == set()
    status = told(site.playbook("status", *SPEC, "-e", "burst_topology=gateway"))
    ranks = f"the gateway {GATEWAY} is gone, and with it 6 ranks below it"
    assert f"{ranks} (" in status and "stage: overlay" in status
    assert status.count("cause:") == 1

    job = submit(site, COUNT)
    done = succeeded(
        burst(site, "-e", "burst_on_node_failure=repair", "-e", "burst_join_timeout=20")
    )
    assert f"{GATEWAY} was preempted at" in told(done)
    assert ran_on(site, job) == {"flux-sample-1", *kept}
    assert peers(site) == [NAT]
    after = addresses(site)
    assert {host: after[host] for host in kept - {GATEWAY}} == {
        host: before[host] for host in kept - {GATEWAY}
    }, "the others are not made again"


def test_a_gateway_leaves_last(site: Sandbox) -> None:
    done = succeeded(site.playbook("teardown", *SPEC, "-e", "burst_topology=gateway")).output
    (*others, last) = re.split(r"PLAY \[Stop the brokers\]", done)[1:]
    assert [f"changed: [{GATEWAY}]" in part for part in (*others, last)] == [False, True]
