# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role node_base with every option, on a machine; and what its hardened unit lets jobs of other users do.

Machines of an EL cannot be booted here: one is played by an os-release and a dnf that writes down what it is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from burst_sandbox import Run, Sandbox, flux_kinds, sandbox_name, succeeded

pytestmark = pytest.mark.machines

HOST = "gffw-compute-a-001"
GUEST = "fluxuser"
SWAP = "/var/swap"
# Two packages: a clock's, and one to be downloaded. No network leads to others, and swap is the controller's alone.
PACKAGES = """
pack() {
  mkdir -p /root/$1/DEBIAN /root/$1/lib/systemd/system
  printf 'Package: %s\\nVersion: 9\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' $1 > /root/$1/DEBIAN/control
  printf '[Service]\\nExecStart=sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \
    > /root/$1/lib/systemd/system/$1.service
  dpkg-deb --build /root/$1 /root/$1.deb
}
pack chrony
dpkg --install /root/chrony.deb
pack some-flux
printf '#!/bin/sh\\necho "$@" >> /root/swapon\\n' > /usr/local/sbin/swapon
chmod +x /usr/local/sbin/swapon
"""
EL = """
rm /etc/os-release
printf 'ID="rocky"\\nID_LIKE="rhel centos fedora"\\nVERSION_ID="9.4"\\n' > /etc/os-release
printf '#!/bin/sh\\necho "$@" | tee -a /root/dnf\\n' > /usr/local/bin/dnf
chmod +x /usr/local/bin/dnf
cp /root/some-flux.deb /root/some-flux.rpm
"""


@pytest.fixture(scope="module", params=flux_kinds()[:1])
def burst(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A burst of one machine with the real Flux."""
    made = Sandbox(sandbox_name("base"), request.param)
    made.command("down")
    try:
        succeeded(made.up())
        words = ("flux", "submit", "-N", "2", "--cwd", "/tmp", "--setattr=burstable", "hostname")
        succeeded(made.on_lead(*words))
        succeeded(made.playbook("burst"))
        made.shell(HOST, PACKAGES)
        yield made
    finally:
        down = made.command("down")
    assert down.code == 0, down.output


def base(sandbox: Sandbox, folder: Path, **options: Any) -> Run:
    """Apply the role to the machine."""
    given = {"node_base_uid": 1004, "node_base_gid": 1004, **options}
    roles = [{"role": "flux.burst.node_base", "vars": given}]
    play = {"hosts": HOST, "gather_facts": False, "become": True, "roles": roles}
    book = folder / "play.yml"
    book.write_text(yaml.safe_dump([play]))
    return sandbox.run("ansible-playbook", str(book))


def download(sandbox: Sandbox, name: str) -> dict[str, str]:
    digest = sandbox.shell(HOST, f"sha256sum /root/{name}").output.split()[0]
    return {"url": f"file:///root/{name}", "checksum": f"sha256:{digest}"}


def test_jobs_of_other_users_run_under_the_hardened_unit(burst: Sandbox) -> None:
    script = "id -un; touch /usr/x 2>&1; touch /tmp/x && echo wrote"
    words = ("flux", "run", "--requires=burst", "--cwd", "/tmp", "sh", "-c", script)
    said = burst.execute("flux-sample-0", *words, user=GUEST).output
    assert said.splitlines()[0] == GUEST, said
    assert "Read-only file system" in said
    assert "wrote" in said


def test_everything_that_is_asked_for_is_done_once(burst: Sandbox, tmp_path: Path) -> None:
    options = {
        "node_base_flux": "downloads",
        "node_base_downloads": [download(burst, "some-flux.deb")],
        "node_base_packages": ["dpkg"],
        "node_base_python": "/usr/bin/python3",
        "node_base_limits": {"CORE": 0, "NOFILE": 4096},
        "node_base_harden": False,
        "node_base_swap_mb": 1,
        "node_base_swap_file": SWAP,
        "node_base_clock": "chrony",
    }
    done = succeeded(base(burst, tmp_path, **options))
    assert done.changed.keys() == {HOST}
    show = "systemctl show flux -p LimitCORE -p LimitNOFILE -p ProtectSystem -p ActiveState"
    assert set(burst.shell(HOST, show).output.split()) == {
        "LimitCORE=0",
        "LimitNOFILE=4096",
        "ProtectSystem=no",
        "ActiveState=active",
    }
    assert "Status: install ok installed" in burst.shell(HOST, "dpkg -s some-flux").output
    assert burst.shell(HOST, "systemctl is-active chrony").output.strip() == "active"
    assert burst.shell(HOST, f"stat -c '%s %a %u' {SWAP}").output.split() == ["1048576", "600", "0"]
    assert "SWAPSPACE2" in burst.shell(HOST, f"tail -c +4087 {SWAP} | head -c 10").output
    assert burst.shell(HOST, "cat /root/swapon").output.split() == [SWAP]
    assert f"{SWAP} none swap sw 0 0" in burst.shell(HOST, "cat /etc/fstab").output
    assert succeeded(base(burst, tmp_path, **options)).changed == {}


def test_a_download_that_differs_is_not_installed(burst: Sandbox, tmp_path: Path) -> None:
    burst.shell(HOST, "dpkg --purge some-flux; rm /var/cache/some-flux.deb")
    wrong = {**download(burst, "some-flux.deb"), "checksum": "sha256:" + "0" * 64}
    done = base(burst, tmp_path, node_base_flux="downloads", node_base_downloads=[wrong])
    assert done.code != 0
    assert "checksum" in done.output
    assert burst.execute(HOST, "dpkg", "-s", "some-flux").code != 0


def test_what_is_missing_on_an_el_is_installed_by_dnf(burst: Sandbox, tmp_path: Path) -> None:
    burst.shell(HOST, EL)
    options = {
        "node_base_flux": "packages",
        "node_base_flux_packages": ["flux-core"],
        "node_base_packages": ["some-tool"],
    }
    succeeded(base(burst, tmp_path, **options))
    rpm = [download(burst, "some-flux.rpm")]
    succeeded(base(burst, tmp_path, node_base_flux="downloads", node_base_downloads=rpm))
    assert burst.shell(HOST, "cat /root/dnf").output.splitlines() == [
        "--assumeyes --quiet install some-tool flux-core",
        "--assumeyes --quiet --nogpgcheck install /var/cache/some-flux.rpm",
    ]


def test_another_distribution_is_refused(burst: Sandbox, tmp_path: Path) -> None:
    burst.shell(HOST, "echo 'ID=sles' > /etc/os-release")
    done = base(burst, tmp_path)
    assert done.code != 0
    said = " ".join(done.output.split())
    assert "stage base: wanted Debian, Ubuntu or EL 8 to 10, found sles" in said
