# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image is baked and a burst boots from it: the tests of this module run in their order, in one sandbox.

Burst from the base image -> bake -> burst from what was baked, with fewer remote executions -> bakes that fail.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from burst_sandbox import Run, Sandbox, one_flux, sandbox_name
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from sandbox.server.validate import check_log

pytestmark = pytest.mark.machines

HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
PROJECT, FAMILY = "sandbox-project", "flux-fw-bursted-x86-64"
ALWAYS_THERE = f"{FAMILY}-v20261101"
JOB = ["flux", "submit", "-N", "4", "--cwd", "/tmp", "--setattr=burstable", "hostname"]
EXECUTION = re.compile(r"^(?:\x1b\[\d+m)?<([\w-]+)> SSH: EXEC ", re.MULTILINE)
SECRET = (
    "etc/munge/munge.key",
    "var/lib/munge/*",
    "etc/flux/system/curve.cert",
    "etc/ssh/ssh_host_*",
    "home/*/.ssh/authorized_keys",
    "etc/hostname",
    "var/lib/systemd/random-seed",
)
"""What may not be in an image, below its root."""


@pytest.fixture(scope="module", params=[one_flux()])
def site(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox with the real Flux where there is one, else the stand-in."""
    made = Sandbox(sandbox_name("image"), request.param)
    made.command("down")
    try:
        succeeded(made.up())
        yield made
    finally:
        down = made.command("down")
    assert down.code == 0, down.output
    assert not made.state.exists()


def succeeded(done: Run) -> Run:
    """Return the run, or fail with all that it printed."""
    assert done.code == 0, done.output
    return done


def images(sandbox: Sandbox) -> list[Any]:
    """The images that were made, oldest first, as google-cloud-compute's client lists them."""
    client = compute_v1.ImagesClient(
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": sandbox.env["FLUX_BURST_COMPUTE_ENDPOINT"]},
    )
    found = [image for image in client.list(project=PROJECT) if image.name != ALWAYS_THERE]
    return sorted(found, key=lambda image: int(image.id))


def held(sandbox: Sandbox) -> list[str]:
    """Everything that the project holds and that costs something, images aside."""
    projects = sandbox.status()["projects"]
    rows = projects.get(PROJECT, {}).items()
    return [
        f"{kind}/{it['name'] if isinstance(it, dict) else it}" for kind, its in rows for it in its
    ]


def burst(sandbox: Sandbox, *options: str) -> dict[str, tuple[int, int]]:
    """Burst for a job, see it run, and tear down; return what it took to configure each host.

    That is the remote executions that Ansible started, and those of them that the host's sudo saw: what Ansible
    does as itself (find its directory, copy a file) is not among these.
    """
    succeeded(sandbox.on_lead(*JOB))
    done = succeeded(sandbox.playbook("burst", "-vvv", *options))
    started = EXECUTION.findall(done.output)
    name = succeeded(sandbox.on_lead("flux", "job", "last")).output.strip()
    output = succeeded(sandbox.on_lead("timeout", "60", "flux", "job", "attach", name)).output
    assert set(HOSTS) <= set(output.split())
    counts = {}
    for host in HOSTS:
        journal = succeeded(sandbox.execute(host, "journalctl", "-t", "sudo", "-o", "cat")).output
        counts[host] = (started.count(host), journal.count("COMMAND="))
    return counts


@pytest.fixture(scope="module")
def baked(site: Sandbox) -> Run:
    """The run that baked the first image."""
    return succeeded(site.playbook("image"))


def test_check_mode_shows_the_build_machine_and_makes_nothing(site: Sandbox) -> None:
    done = succeeded(site.playbook("image", "--check", "--diff"))
    assert "instance flux-burst-image" in done.output
    assert "network flux-burst-image-net" in done.output
    assert (held(site), images(site)) == ([], [])


def test_an_image_is_made_and_nothing_else_is_left(site: Sandbox, baked: Run) -> None:
    assert held(site) == []
    [image] = images(site)
    assert re.fullmatch(rf"{FAMILY}-\d{{8}}-\d{{6}}", image.name)
    assert (image.family, image.architecture, image.status) == (FAMILY, "X86_64", "READY")
    assert image.labels == {"flux-burst-image": "flux-burst"}
    version = succeeded(site.on_lead("flux", "version")).output.split()[1]
    assert image.description.startswith(f"Flux {version} for burst flux-burst, from projects/")
    report = baked.output[baked.output.rindex("TASK [Report]") :]
    assert image.name in report
    assert f"burst_image: projects/{PROJECT}/global/images/family/{FAMILY}" in report
    assert "burst_image_prepared: true" in report


def test_nothing_of_the_build_machine_s_own_is_in_the_image(site: Sandbox, baked: Run) -> None:
    [image] = images(site)
    root = site.state / "machines" / ".images" / str(image.id) / "view"
    assert (root / "etc/flux/security/conf.d/security.toml").is_file(), "it has what was baked"
    assert [str(path) for pattern in SECRET for path in root.glob(pattern)] == []
    assert (root / "etc/machine-id").read_text() == ""
    left = [*(root / "var/log").rglob("*"), *(root / "tmp").rglob("*")]
    assert [path for path in left if path.is_file() and not path.is_symlink()] == []
    key = (site.state / "ssh_key.pub").read_bytes().split()[1]
    layer = root.parent / "layer"
    texts = (path for path in layer.rglob("*") if path.is_file() and not path.is_symlink())
    found = [path for path in texts if key in path.read_bytes() or b"-image\n" in path.read_bytes()]
    assert found == [], "the build's key or the build machine's name"


def test_a_burst_boots_from_the_image_with_one_remote_execution_for_each_machine(
    site: Sandbox, baked: Run
) -> None:
    counts = burst(site, "-e", "burst_image_prepared=true")
    [image] = images(site)
    for host in HOSTS:
        disk = f"/zones/us-central1-a/disks/{host}"
        assert boot_source(site, disk) == image.name
    assert counts == dict.fromkeys(HOSTS, (1, 1))
    machines = {host: identity(site, host) for host in HOSTS}
    assert len({machine[0] for machine in machines.values()}) == len(HOSTS), "machine ids"
    assert len({machine[1] for machine in machines.values()}) == len(HOSTS), "host keys"
    succeeded(site.playbook("teardown"))


def boot_source(sandbox: Sandbox, disk: str) -> str:
    """The name of the image that a disk was made of."""
    client = compute_v1.DisksClient(
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": sandbox.env["FLUX_BURST_COMPUTE_ENDPOINT"]},
    )
    zone, name = disk.split("/")[2::2]
    return str(client.get(project=PROJECT, zone=zone, disk=name).source_image.rpartition("/")[2])


def identity(sandbox: Sandbox, host: str) -> tuple[str, str]:
    """A machine's id and its SSH host key."""
    words = ("cat", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub")
    machine, key = succeeded(sandbox.execute(host, *words)).output.splitlines()
    return machine, key


def test_a_second_run_makes_a_second_image_and_keep_deletes_the_first(
    site: Sandbox, baked: Run
) -> None:
    [first] = images(site)
    done = succeeded(site.playbook("image", "-e", "image_keep=1"))
    [second] = images(site)
    assert second.name != first.name
    assert first.name in done.output or "delete" in done.output
    assert held(site) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-e", '{"image_packages": ["no-such-package"]}'], "prepared, found"),
        (["-e", "image_base=projects/sandbox-project/global/images/none"], "images/none"),
        (["-e", "image_name=Bad"], "image_name: wanted lower case letters"),
        (["-e", f"image_name={ALWAYS_THERE}"], "wanted one that no image has"),
        (["-e", "image_architecture=ARM64"], "image_architecture ARM64, found x86_64"),
        (["-e", "image_machine_type=none"], "none in us-central1-a: NO_SUCH_MACHINE_TYPE"),
    ],
)
def test_a_step_that_fails_leaves_nothing_and_tells_the_cause_at_the_end(
    site: Sandbox, baked: Run, options: list[str], said: str
) -> None:
    before = images(site)
    done = site.playbook("image", *options)
    assert done.code != 0
    end = done.output[done.output.rindex("TASK [") :]
    assert said in " ".join(end.split())
    assert "Traceback" not in done.output
    assert held(site) == []
    assert images(site) == before


def test_a_machine_that_cannot_be_reached_leaves_nothing(
    site: Sandbox, baked: Run, tmp_path: Path
) -> None:
    before = images(site)
    key = tmp_path / "key"
    succeeded(site.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)))
    # The lead knows this one; the machine gets the public half of the other.
    shutil.copy(site.state / "ssh_key", key)
    done = site.playbook("image", "-e", f"burst_ssh_private_key_file={key}")
    assert done.code != 0
    assert "could not be reached" in done.output[done.output.rindex("TASK [") :]
    assert (held(site), images(site)) == ([], before)


def test_every_request_agrees_with_google_s_discovery_document(site: Sandbox) -> None:
    lines = [json.loads(line)["path"] for line in site.requests]
    assert any(path.endswith("/stop") for path in lines)
    assert check_log(site.state / "requests.jsonl") == []
