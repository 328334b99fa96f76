# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What role node_base makes of a machine: the distribution, what is missing, the unit, and what is downloaded."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TOP = Path(__file__).resolve().parents[2]
ROLE = TOP / "roles/node_base"
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
FOUND = "found_python=/usr/bin/python3\nfound_missing=\n"
RELEASES = {
    "Debian 12": ('ID=debian\nVERSION_ID="12"\nVERSION="12 (bookworm)"\n', "debian"),
    "Ubuntu 22": ('PRETTY_NAME="Ubuntu 22.04.5"\nID=ubuntu\nID_LIKE=debian\n', "debian"),
    "Ubuntu 24": ('VERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n', "debian"),
    "RHEL 8": ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.10"\n', "el8"),
    "Rocky 8": ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="8.9"\n', "el8"),
    "Alma 9": ('ID="almalinux"\r\nID_LIKE="rhel centos fedora"\r\nVERSION_ID="9.4"\r\n', "el9"),
    "CentOS Stream 9": ('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"\n', "el9"),
    "Oracle 9": ('ID="ol"\nID_LIKE="fedora"\nVERSION_ID="9.3"\n', "el9"),
    "Rocky 10": ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="10.0"\n', "el10"),
    "Fedora": ("ID=fedora\nVERSION_ID=42\n", "fedora 42"),
    "SUSE": ('ID="sles"\nID_LIKE="suse"\nVERSION_ID="15.6"\n', "sles 15"),
    "none": ("", "unknown "),
}


def templar(**given: Any) -> Templar:
    """A templar with the role's variables as Ansible would see them."""
    loader = DataLoader()
    own = loader.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
    variables = {**DEFAULTS, **own, "ansible_managed": "managed", **given}
    return Templar(loader, variables=variables)


def of_release(text: str, what: str, **given: Any) -> Any:
    made = templar(__node_base_release={"stdout": text + FOUND}, **given)
    return made.template(trust_as_template("{{ " + what + " }}"))


@pytest.mark.parametrize("name", RELEASES)
def test_the_distribution_is_told_from_os_release(name: str) -> None:
    text, wanted = RELEASES[name]
    assert of_release(text, "__node_base_distribution").strip() == wanted.strip()


@pytest.mark.parametrize(
    ("name", "python", "service"),
    [
        ("Debian 12", "/usr/bin/python3", "chrony"),
        ("Rocky 8", "/usr/bin/python3.11", "chronyd"),
        ("Alma 9", "/usr/bin/python3", "chronyd"),
        ("Rocky 10", "/usr/bin/python3", "chronyd"),
    ],
)
def test_each_distribution_has_its_python_and_its_clock(
    name: str, python: str, service: str
) -> None:
    known = of_release(RELEASES[name][0], "__node_base_known")
    assert known["python"] == python
    assert known["services"]["chrony"] == service
    assert python.removeprefix("/usr/bin/") in known["install_python"]


def find(**given: Any) -> dict[str, str]:
    """What the first task's script says on this machine."""
    [task] = [
        task
        for task in yaml.safe_load((ROLE / "tasks/find.yml").read_text())
        if "ansible.builtin.raw" in task and "register" in task
    ]
    script = templar(**given).template(trust_as_template(task["ansible.builtin.raw"]))
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    return {
        key: value
        for key, _unused, value in (line.partition("=") for line in said.splitlines())
        if key.startswith("found_")
    }


def test_what_is_installed_is_not_missing_and_the_others_are_named() -> None:
    given = {
        "node_base_packages": ["dpkg", "no-such-package"],
        "node_base_flux": "packages",
        "node_base_flux_packages": ["no-such-flux"],
        "node_base_clock": "chrony",
    }
    missing = find(**given)["found_missing"].split()
    assert [name for name in missing if name not in ("munge", "chrony")] == [
        "no-such-package",
        "no-such-flux",
    ]
    assert (
        "no-such-flux" not in find(**{**given, "node_base_flux": "preinstalled"})["found_missing"]
    )


def test_the_python_that_is_asked_for_goes_before_others_if_it_is_there() -> None:
    assert find(node_base_python=sys.executable)["found_python"] == sys.executable
    assert find(node_base_python="/no/such/python")["found_python"].startswith("/usr/bin/python3")


def unit(**given: Any) -> list[str]:
    text = trust_as_template((ROLE / "templates/node_base.conf.j2").read_text())
    lines = templar(**given).template(text).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_unit_s_limits_are_what_is_asked_for() -> None:
    assert unit()[:3] == ["[Service]", "LimitNOFILE=65536", "LimitMEMLOCK=infinity"]
    assert unit(node_base_limits={"CORE": 0}, node_base_harden=False) == [
        "[Service]",
        "LimitCORE=0",
    ]


def test_the_hardened_unit_has_nothing_that_takes_the_imp_its_setuid_bit() -> None:
    hardened = {line.split("=")[0] for line in unit()} - {"[Service]"}
    assert "ProtectSystem" in hardened
    # systemd.exec(5): these imply NoNewPrivileges= for a unit with User=.
    implied = {
        "NoNewPrivileges", "SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies",
        "RestrictNamespaces", "PrivateDevices", "ProtectKernelTunables", "ProtectKernelModules",
        "ProtectKernelLogs", "ProtectClock", "MemoryDenyWriteExecute", "RestrictRealtime",
        "RestrictSUIDSGID", "DynamicUser", "LockPersonality", "ProtectHostname",
        "SystemCallLog", "RestrictFileSystems",
    }  # fmt: skip
    assert hardened & implied == set()


def test_owner_and_shell_are_in_the_imp_s_configuration() -> None:
    text = trust_as_template((ROLE / "templates/imp.toml.j2").read_text())
    made = templar(node_base_user="other").template(text)
    assert 'allowed-users = ["other"]' in made


def play(
    tmp_path: Path, tasks: list[dict[str, Any]], **given: Any
) -> subprocess.CompletedProcess[str]:
    """Run tasks of the role on this machine, without its first ones."""
    book = tmp_path / "play.yml"
    variables = {
        **DEFAULTS,
        "__node_base_release": {"stdout": RELEASES["Debian 12"][0] + FOUND},
        "ansible_python_interpreter": sys.executable,
        **given,
    }
    book.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "localhost",
                    "connection": "local",
                    "gather_facts": False,
                    "vars": variables,
                    "tasks": tasks,
                }
            ]
        )
    )
    return subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", book],
        cwd=TOP,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def include(part: str, **given: Any) -> dict[str, Any]:
    role = {"name": "flux.burst.node_base", "tasks_from": part}
    return {"ansible.builtin.include_role": role, "vars": given}


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, str]:
    """An archive with one file, as node_base_downloads has it."""
    (tmp_path / "there").mkdir()
    (tmp_path / "flux").write_text("flux")
    with tarfile.open(tmp_path / "flux.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "flux", "bin/flux")
    digest = hashlib.sha256((tmp_path / "flux.tar.gz").read_bytes()).hexdigest()
    return {
        "url": f"file://{tmp_path}/flux.tar.gz",
        "checksum": f"sha256:{digest}",
        "dest": str(tmp_path / "there"),
        "creates": str(tmp_path / "there/bin/flux"),
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to root")
def test_an_archive_is_unpacked_once_and_only_as_its_publisher_made_it(
    tmp_path: Path, archive: dict[str, str]
) -> None:
    def download(**change: str) -> dict[str, Any]:
        return include(
            "download.yml",
            __node_base_download={**archive, **change},
            __node_base_file=str(tmp_path / "cached.tar.gz"),
        )

    done = play(tmp_path, [download(checksum="sha256:" + "0" * 64)])
    assert done.returncode != 0
    assert "checksum" in done.stdout
    assert not Path(archive["creates"]).exists()
    first = play(tmp_path, [download()])
    assert first.returncode == 0, first.stdout
    assert Path(archive["creates"]).read_text() == "flux"
    again = play(tmp_path, [download()])
    assert "changed=0" in again.stdout, again.stdout


@pytest.mark.parametrize("checksum", ["", "md5:0123", "sha256:http://example.org/sums"])
def test_a_download_that_could_not_be_verified_is_refused(
    tmp_path: Path, archive: dict[str, str], checksum: str
) -> None:
    rows = [{**archive, "checksum": checksum}]
    given = {"node_base_flux": "downloads", "node_base_downloads": rows}
    done = play(tmp_path, [include("install.yml")], **given)
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "stage base: node_base_downloads: wanted a checksum sha256:DIGEST" in said
    assert not Path(archive["creates"]).exists()
