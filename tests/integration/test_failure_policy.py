# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run ends that fails, by burst_on_failure, and what it leaves to look into; and how a spot machine goes.

The tests are steps of one story, in one sandbox.
"""

from __future__ import annotations

import json
import re
import stat
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from burst_sandbox import (
    LEAD,
    PREPARED,
    Run,
    Sandbox,
    flux_kinds,
    machines,
    running,
    submit,
    succeeded,
)

pytestmark = pytest.mark.machines

HOSTS = machines(3)
ALL = "gffw-compute-a-[001-003]"
IMP = "/usr/libexec/flux/flux-imp"


SPOT = ("-e", "burst_spot=true")


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def burst(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with the real Flux."""
    with running("ends", request.param) as made:
        yield made


def run(burst: Sandbox, policy: str, *options: str) -> str:
    """Burst, which has to fail, and return the last message in one line."""
    given = (*PREPARED, *SPOT, "-e", f"burst_on_failure={policy}")
    done: Run = burst.playbook("burst", *given, *options)
    assert done.code != 0, done.output
    assert "Traceback" not in done.output
    text = done.output[done.output.rindex("fatal: ") : done.output.rindex("PLAY RECAP")]
    return " ".join(text.split())


def there(burst: Sandbox) -> set[str]:
    """The burst's machines."""
    return {row["name"] for row in burst.status()["projects"]["sandbox-project"]["instances"]}


def free(burst: Sandbox) -> str:
    """The bursted hosts that are free."""
    words = ("flux", "resource", "list", "-n", "-s", "free", "-i", ALL, "-o", "{nodelist}")
    return succeeded(burst.on_lead(*words)).output.strip()


def drains(burst: Sandbox) -> str:
    """The nodes that are drained, with the reasons."""
    words = ("flux", "resource", "drain", "-n", "-o", "{nodelist} {reason}")
    return succeeded(burst.on_lead(*words)).output.strip()


def kept(burst: Sandbox) -> list[Path]:
    """The directories with what is known of machines, the latest last."""
    return sorted((burst.state / "bursts/_diagnostics/flux-burst").glob("*"))


def test_a_burst_of_which_nothing_joined_leaves_nothing_where_it_is_to_be_deleted(
    burst: Sandbox,
) -> None:
    job = submit(burst, "-N", "4").replace("ƒ", "f")
    nobody = ("-e", "burst_lead_port=30999", "-e", "burst_diagnostics_directory=")
    told = run(burst, "delete", *nobody)
    assert all(f"{host}: stage base: " in told for host in HOSTS)
    assert f"claims: given back on jobs {job} and hosts {ALL} machines: deleted {ALL} (3)" in told
    assert "diagnostics: switched off" in told
    found = burst.status()["projects"]["sandbox-project"]
    assert not any(found.values()), found


def test_a_preempted_machine_drains_itself_before_it_goes_and_the_next_burst_makes_it_again(
    burst: Sandbox,
) -> None:
    succeeded(burst.playbook("burst", *PREPARED, *SPOT))
    url = f"{burst.env['FLUX_BURST_COMPUTE_ENDPOINT']}/sandbox/preempt/sandbox-project/{HOSTS[2]}"
    notice = urllib.request.Request(f"{url}?notice=5", b"", method="POST")
    with ThreadPoolExecutor() as pool:
        gone = pool.submit(lambda: urllib.request.urlopen(notice).close())
        deadline = time.monotonic() + 4
        while not (seen := drains(burst)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert seen == f"{HOSTS[2]} flux.burst preempted"
        assert HOSTS[2] in there(burst), "it is told before it goes"
        job = submit(burst, "-N", "4")
        gone.result()
    assert there(burst) == set(HOSTS[:2])
    state = succeeded(burst.on_lead("flux", "jobs", "-n", "-o", "{state}", job)).output.strip()
    assert state == "SCHED", "it did not start on a machine that went"


def test_what_the_run_made_is_deleted_and_what_is_known_of_a_machine_is_kept_without_secrets(
    burst: Sandbox,
) -> None:
    key = burst.shell(LEAD, "base64 -w0 /etc/munge/munge.key").output.strip()
    cert = burst.shell(LEAD, "grep secret-key /etc/flux/system/curve.cert").output.split('"')[1]
    spill = f"echo 'the key is {key[8:80]}, and {cert}' | systemd-cat -t flux; "
    burst.shell(HOSTS[1], f"{spill} chmod 755 {IMP}; systemctl stop flux")
    told = run(burst, "delete")
    assert f"{HOSTS[1]}: stage base: wanted {IMP} setuid root" in told
    # It was drained by the notice, and joined all the same.
    assert f"{HOSTS[2]}: stage" not in told
    assert f"machines: deleted {HOSTS[2]} (1); kept gffw-compute-a-[001-002] (2), " in told
    (folder,) = kept(burst)
    assert f"diagnostics: {folder}" in told
    names = [f"{HOSTS[1]}.{part}" for part in ("journal.log", "json", "serial.log", "status.log")]
    assert sorted(path.name for path in folder.iterdir()) == names, "of that machine alone"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())]
    assert modes == [0o700, *[0o600] * 4]
    texts = {path.name.split(".", 1)[1]: path.read_text() for path in folder.iterdir()}
    (finding,) = json.loads(texts["json"])["findings"]
    assert finding["stage"] == "base" and finding["cause"] and finding["remedy"]
    assert "munge.service" in texts["journal.log"] and "flux.service" in texts["status.log"]
    whole = "".join(texts.values())
    assert "the key is " in texts["serial.log"] and key[8:40] not in whole and cert not in whole


def test_those_that_did_not_join_are_deleted_but_never_one_with_a_job(burst: Sandbox) -> None:
    succeeded(burst.on_lead("flux", "cancel", "--all"))
    words = ("flux", "submit", f"--requires=host:{HOSTS[0]}", "--cwd=/tmp", "sleep", "inf")
    job = succeeded(burst.on_lead(*words)).output.strip()
    burst.shell(HOSTS[0], f"chmod 755 {IMP}")
    told = run(burst, "keep_joined")
    assert all(f"{host}: stage base: " in told for host in HOSTS[:2])
    assert re.search(
        rf"machines: deleted {HOSTS[1]} \(1\); kept {HOSTS[0]} \(1\), 0\.\d\d an ", told
    )
    assert f"a job runs on {HOSTS[0]} (1), which therefore stays" in told
    assert len(kept(burst)) == 2
    assert there(burst) == {HOSTS[0]} and drains(burst) == ""
    state = succeeded(burst.on_lead("flux", "jobs", "-n", "-o", "{state}", job)).output.strip()
    assert state == "RUN"
    succeeded(burst.on_lead("flux", "cancel", job))
    succeeded(burst.playbook("teardown"))
    assert len(kept(burst)) == 2, "a teardown leaves it"
