# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the sandbox that can be looked at without booting anything."""

from __future__ import annotations

import base64
import os
import re
import stat
import tomllib
from pathlib import Path

import pytest

from sandbox import flux_files, inside, preflight, rootfs, rootfs_settings
from sandbox.machines import FileSpec, MachineError, MachineSpec, cgroups, cloudnet
from sandbox.machines.layer import Layer, write_layer
from sandbox.machines.records import RecordsBackend
from sandbox.site import LEAD, WORKER, site_machines

KEY = "ssh-ed25519 AAAA test"
SPEC = MachineSpec("p", "node-1", "p/s", "10.0.0.2", 24, "10.0.0.1", ssh_keys=(("ann", KEY),))


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Note who files would be given to, as a test without root cannot give them away."""
    noted: dict[str, tuple[int, int]] = {}

    def note(target: object, uid: int, gid: int) -> None:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(target)
        noted[path] = (uid, gid)

    monkeypatch.setattr(os, "chown", note)
    monkeypatch.setattr(os, "fchown", note)
    return noted


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with as much in it as a machine's layer looks at."""
    top = tmp_path / "root"
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
        "etc/group": "root:x:0:\n",
        "etc/shadow": "root:*:1:0:99999:7:::\n",
        "etc/gshadow": "root:*::\n",
        "usr/lib/systemd/system/munge.service": "[Unit]\nA=b\n[Install]\nWantedBy=multi-user.target\n",
    }
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    (top / "lib").symlink_to("usr/lib")
    (top / "etc/munge").mkdir(mode=0o700)
    (tmp_path / "upper").mkdir()
    return top


def test_a_layer_has_the_machine_s_name_user_and_units(
    root: Path, tmp_path: Path, owners: dict[str, tuple[int, int]]
) -> None:
    upper = tmp_path / "upper"
    spec = MachineSpec(
        **{
            **vars(SPEC),
            "enable": ("munge.service",),
            "files": {"/etc/munge/munge.key": FileSpec(b"k", 0o400, 402, 402)},
        }
    )
    write_layer(root, upper, spec)
    assert (upper / "etc/hostname").read_text() == "node-1\n"
    hosts = "127.0.0.1 localhost\n10.0.0.2 node-1 # Added by Google\n"
    assert (upper / "etc/hosts").read_text() == hosts
    assert re.fullmatch(r"[0-9a-f]{32}\n", (upper / "etc/machine-id").read_text())
    assert (upper / "etc/passwd").read_text().splitlines()[1].startswith("ann:x:3000:3000:")
    assert (upper / "home/ann/.ssh/authorized_keys").read_text() == f"{KEY}\n"
    assert owners[str(upper / "home/ann/.ssh/authorized_keys")] == (3000, 3000)
    link = upper / "etc/systemd/system/multi-user.target.wants/munge.service"
    assert os.readlink(link).endswith("lib/systemd/system/munge.service")
    assert stat.S_IMODE((upper / "etc/munge/munge.key").stat().st_mode) == 0o400
    assert owners[str(upper / "etc/munge/munge.key")] == (402, 402)


def test_an_account_of_the_image_is_kept_and_another_gets_a_uid_that_is_free(
    root: Path, tmp_path: Path, owners: dict[str, tuple[int, int]]
) -> None:
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write("ann:x:3000:3000::/home/ann:/bin/bash\n")
    upper = tmp_path / "upper"
    spec = MachineSpec(**{**vars(SPEC), "ssh_keys": (("ann", KEY), ("bob", KEY))})
    write_layer(root, upper, spec)
    rows = (upper / "etc/passwd").read_text().splitlines()
    assert [row.split(":")[:3] for row in rows[1:]] == [["ann", "x", "3000"], ["bob", "x", "3001"]]
    assert owners[str(upper / "home/ann/.ssh/authorized_keys")] == (3000, 3000)
    assert owners[str(upper / "home/bob/.ssh/authorized_keys")] == (3001, 3001)


def test_a_layer_keeps_the_mode_of_the_directories_it_hides(
    root: Path, tmp_path: Path, owners: dict[str, tuple[int, int]]
) -> None:
    layer = Layer(root, tmp_path / "upper")
    layer.write("/etc/munge/munge.key", FileSpec(b"key"))
    assert stat.S_IMODE((tmp_path / "upper/etc/munge").stat().st_mode) == 0o700


def test_a_layer_follows_the_root_s_links(
    root: Path, tmp_path: Path, owners: dict[str, tuple[int, int]]
) -> None:
    Layer(root, tmp_path / "upper").write("/lib/systemd/system/x.service", FileSpec(b"x"))
    assert (tmp_path / "upper/usr/lib/systemd/system/x.service").read_bytes() == b"x"
    assert not (tmp_path / "upper/lib").exists()


def test_a_unit_that_is_not_there_is_named(
    root: Path, tmp_path: Path, owners: dict[str, tuple[int, int]]
) -> None:
    with pytest.raises(MachineError, match=r"flux\.service"):
        Layer(root, tmp_path / "upper").enable("flux.service")


def test_a_key_s_content_is_not_in_the_text_of_a_spec() -> None:
    assert "secret" not in repr(FileSpec(b"secret"))


def test_site_says_its_resources_on_rank_0_only() -> None:
    lead, worker = site_machines(Path("/run/x"), "real", KEY)
    configs = [
        tomllib.loads(spec.files["/etc/flux/system/conf.d/system.toml"].content.decode())
        for spec in (lead, worker)
    ]
    assert [spec.name for spec in (lead, worker)] == [LEAD, WORKER]
    assert configs[0]["bootstrap"] == configs[1]["bootstrap"]
    assert configs[0]["resource"]["exclude"] == LEAD
    assert "resource" not in configs[1]


def test_site_shares_its_secrets_and_makes_new_ones_each_time() -> None:
    lead, worker = site_machines(Path("/run/x"), "real", KEY)
    other = site_machines(Path("/run/x"), "real", KEY)[0]
    for path, owner, mode in (
        ("/etc/flux/system/curve.cert", 1004, 0o600),
        ("/etc/munge/munge.key", rootfs_settings.MUNGE_ID, 0o400),
    ):
        assert lead.files[path] == worker.files[path]
        assert lead.files[path].content != other.files[path].content
        assert (lead.files[path].uid, lead.files[path].mode) == (owner, mode)


def test_site_s_certificate_has_only_characters_that_flux_accepts() -> None:
    text = site_machines(Path("/run/a_b"), "real", KEY)[0].files["/etc/flux/system/curve.cert"]
    name = re.search(rb'name = "(.*)"', text.content)
    assert name and re.fullmatch(rb"[A-Za-z0-9.-]+", name.group(1))


def test_records_answer_like_machines_that_nobody_can_reach() -> None:
    backend = RecordsBackend()
    backend.open()
    backend.create(SPEC)
    keys = backend.host_keys("p", "node-1")
    assert base64.b64decode(keys["ssh-ed25519"])[4:15] == b"ssh-ed25519"
    assert backend.running("p", "node-1")
    with pytest.raises(ConnectionRefusedError):
        backend.connect("p", "node-1", 22)
    with pytest.raises(MachineError):
        backend.create(SPEC)
    backend.delete("p", "node-1")
    backend.delete("p", "node-1")
    assert not backend.running("p", "node-1")
    assert backend.host_keys("p", "node-1") == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("commands:  0.88.0-59-g4a\nlibflux-core:  0.88.0-59-g4a\n", "0.88.0"),
        ("libflux-core: 0.90.1\n", "0.90.1"),
        ("flux: not that flux\n", None),
    ],
)
def test_version_is_flux_core_s_without_the_build(text: str, version: str | None) -> None:
    assert flux_files.parse_version(text) == version


DEB822 = """\
Types: deb
URIs: http://mirror.test/security
Suites: trixie-security
Signed-By: /usr/share/keyrings/security.gpg

Types: deb
URIs: http://mirror.test/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/archive.gpg
"""
ONE_LINE = """\
deb [signed-by=/k/other.gpg] http://mirror.test/other stable main
deb [arch=amd64 signed-by=/k/debian.gpg] http://mirror.test/debian trixie main
"""


@pytest.mark.parametrize(
    ("text", "keyring"),
    [
        (DEB822, "/usr/share/keyrings/archive.gpg"),
        (ONE_LINE, "/k/debian.gpg"),
        ("deb http://mirror.test/debian trixie main\n", None),
    ],
)
def test_keyring_is_the_one_that_apt_s_source_names(
    text: str, keyring: str | None, tmp_path: Path
) -> None:
    (tmp_path / "x.sources").write_text(text)
    assert rootfs.signed_by(tmp_path / "x.sources", "trixie") == keyring


def test_debootstrap_s_output_becomes_few_lines() -> None:
    said: list[str] = []
    lines = [f"I: Unpacking package{n}..." for n in range(100)]
    last = rootfs._report_phases(["I: Retrieving a 1.0\n", *lines, "E: it broke\n"], said.append)
    assert said == [
        "  retrieving packages",
        "  unpacking packages",
        "  unpacking packages: 40 done",
        "  unpacking packages: 80 done",
    ]
    assert last == "E: it broke"


MOUNTS = """\
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
"""


def test_control_groups_are_made_where_systemd_looks_for_them() -> None:
    found = [str(path) for path in cgroups.hierarchies(MOUNTS)]
    assert found == ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"]


def test_sandboxes_never_share_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudnet, "NETNS", tmp_path)
    names = ["a", "a-m", "a-net", "a-m-12345678"]
    for name in names:
        (tmp_path / cloudnet.cloud_namespace(name)).touch()
        (tmp_path / cloudnet.machine_namespace(name, "p", "x")).touch()
    found = [cloudnet.namespaces(name) for name in names]
    assert [len(part) for part in found] == [2, 2, 2, 2]
    assert len({one for part in found for one in part}) == 8


def test_interface_names_fit_the_kernel() -> None:
    assert len(cloudnet.CloudNet.bridge("sandbox-project/" + "x" * 63)) <= 15


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: preflight._check_inotify(128, 100), r"wanted 35 .* found 28 .*sysctl"),
        (lambda: preflight._check_memory("MemAvailable:  1000 kB\n"), r"wanted 1 GiB .*memory"),
        (lambda: preflight._check_cpus(1), r"wanted 2 CPUs, found 1"),
        (
            preflight._check_tools,
            r"found .*nft.* missing: run apt-get install .*nftables",
        ),
    ],
)
def test_preflight_says_what_is_wanted_found_and_to_do(
    check: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(preflight.PreflightError, match=message) as caught:
        check()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_preflight_refuses_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "DISK_BYTES", 2**60)
    with pytest.raises(preflight.PreflightError, match="free disk at"):
        preflight._check_disk(tmp_path / "not" / "there")
    assert not (tmp_path / "not").exists()


def test_preflight_refuses_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(preflight.PreflightError, match="wanted root, found user id 1000"):
        preflight.check_host()


def test_exec_runs_as_the_user_with_its_home_and_nothing_of_ours() -> None:
    who = inside.person("flux:x:1004:1004::/var/lib/flux:/bin/bash\n", "flux")
    words = inside.command(77, who, ["flux", "jobs"], "xterm")
    assert words[-2:] == ["flux", "jobs"]
    assert words.index("HOME=/var/lib/flux") > words.index("-i")
    assert "--reuid=1004" in words
    assert "setpriv" not in inside.command(
        77, inside.Person("root", 0, 0, "/root", "sh"), ["x"], "dumb"
    )
    with pytest.raises(inside.ExecError, match="wanted the user nobody2"):
        inside.person("flux:x:1004:1004::/var/lib/flux:/bin/bash\n", "nobody2")


def test_exec_names_the_machines_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside.paths, "STATE", tmp_path)
    for project in ("one", "two"):
        (tmp_path / "box/machines" / project / "twin").mkdir(parents=True)
    (tmp_path / "box/machines/one/single").mkdir()
    assert inside.find("box", "single") == ("one", "single")
    assert inside.find("box", "twin", "two") == ("two", "twin")
    with pytest.raises(inside.ExecError, match="say which with --project"):
        inside.find("box", "twin")
    with pytest.raises(inside.ExecError, match="found single, twin, twin"):
        inside.find("box", "missing")
