# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines that really boot: what they reach, what reaches them, and that nothing of them stays."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sandbox import flux_files, inside, preflight
from sandbox.machines import MachineError, MachineSpec, cgroups, cloudnet, processes
from sandbox.machines.nspawn import NspawnBackend, sweep
from sandbox.pods import pod_machine
from sandbox.rootfs import build_root, remove_tree
from sandbox.server.kube.minicluster import MiniCluster
from sandbox.site import LEAD, PROJECT, WORKER, curve_certificate, site_machines

pytestmark = [
    pytest.mark.machines,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(not shutil.which(tool) for tool in preflight.TOOLS),
        reason="boots machines: needs root and systemd-nspawn, nft, ip, debootstrap",
    ),
]
CLOUD = "sandbox-project"
SEGMENT = f"{CLOUD}/flux-burst-subnet"
NAMES = ("t-machines", "t-other")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzZWQgaW4gdGVzdHMgb25seSwgbm8gcHJpdmF0ZSBwYXJ0 test"
REAL = flux_files.real_flux_version() is not None


@pytest.fixture(scope="session")
def root() -> Path:
    return build_root("real" if REAL else "standin", print)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    for name in NAMES:
        sweep(name, Path("/nonexistent"))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    remove_tree(tmp_path)


@pytest.fixture
def backend(root: Path, state: Path) -> Iterator[NspawnBackend]:
    made = NspawnBackend(NAMES[0], state, root)
    made.open()
    yield made
    for log in state.glob("machines/*/*/console.log"):
        print(f"console of {log.parent.name}:", log.read_text(errors="replace")[-3000:])
    made.close()


def cloud_machine(
    name: str = "gffw-compute-a-001", last: int = 2, segment: str = SEGMENT
) -> MachineSpec:
    return MachineSpec(
        CLOUD, name, segment, f"10.10.0.{last}", 24, "10.10.0.1", ssh_keys=(("burst", KEY),)
    )


def until(what: Callable[[], object], seconds: float = 20.0) -> float:
    """Wait for something to be so; return how long it took, in seconds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"still not so after {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - began


def run(sandbox: str, project: str, machine: str, *words: str, user: str = "root") -> str:
    """Return what a command in a machine prints on both its outputs."""
    leader = processes.leader(cloudnet.machine_namespace(sandbox, project, machine))
    if leader is None:
        return ""
    who = inside.person(Path(f"/proc/{leader}/root/etc/passwd").read_text(), user)
    done = subprocess.run(
        inside.command(leader, who, list(words), "dumb"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.stdout + done.stderr


def reaches(sandbox: str, project: str, machine: str, address: str, port: int) -> bool:
    """Return whether a TCP connection from one machine to an address is accepted."""
    script = f"exec 3<>/dev/tcp/{address}/{port} && echo accepted"
    return "accepted" in run(sandbox, project, machine, "timeout", "1", "bash", "-c", script)


def banner(backend: NspawnBackend, project: str, name: str) -> bytes:
    with backend.connect(project, name, 22) as connection:
        return connection.recv(4)


def traces(name: str) -> list[str]:
    """Return what of a sandbox the kernel and the file system still know."""
    found = [*cloudnet.namespaces(name), *map(str, processes.of_sandbox(name))]
    found += ["control groups"] if cgroups.exist(name) else []
    mounts = Path("/proc/self/mountinfo").read_text()
    found += re.findall(rf"^.* fbs-{name} .*$", mounts, re.MULTILINE)
    return found + list(map(str, Path("/run/systemd/nspawn").glob(f"*/*fbs-{name}-*")))


def test_published_host_keys_mean_that_sshd_answers_the_relay(backend: NspawnBackend) -> None:
    spec = cloud_machine()
    backend.create(spec)
    assert backend.host_keys(CLOUD, spec.name) == {}
    until(lambda: backend.host_keys(CLOUD, spec.name))
    assert banner(backend, CLOUD, spec.name) == b"SSH-"
    served = run(NAMES[0], CLOUD, spec.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()
    assert backend.host_keys(CLOUD, spec.name) == {served[0]: served[1]}
    assert backend.running(CLOUD, spec.name)
    with backend.connect(CLOUD, spec.name, 22) as connection:
        assert connection.getsockname()[0] == "35.235.240.1"
        assert connection.gettimeout() is None


def test_three_machines_at_once_answer_within_seconds(backend: NspawnBackend) -> None:
    specs = [cloud_machine(f"gffw-compute-a-00{n}", n + 1) for n in (1, 2, 3)]
    for spec in specs:
        backend.create(spec)
    took = until(lambda: all(backend.host_keys(CLOUD, spec.name) for spec in specs), 10)
    print(f"three machines answered after {took:.2f} s")
    assert {banner(backend, CLOUD, spec.name) for spec in specs} == {b"SSH-"}


def test_a_machine_is_itself(backend: NspawnBackend) -> None:
    spec = cloud_machine()
    backend.create(spec)
    until(lambda: backend.host_keys(CLOUD, spec.name))
    assert run(NAMES[0], CLOUD, spec.name, "hostname").strip() == spec.name
    assert "10.10.0.2/24" in run(NAMES[0], CLOUD, spec.name, "ip", "-4", "address", "show", "eth0")
    assert run(NAMES[0], CLOUD, spec.name, "sudo", "-n", "id", "-u", user="burst").strip() == "0"
    assert run(NAMES[0], CLOUD, spec.name, "cat", "/home/burst/.ssh/authorized_keys") == f"{KEY}\n"
    assert "no such user" in run(NAMES[0], CLOUD, spec.name, "id", "flux")
    assert "uid=2001(fluxuser)" in run(NAMES[0], CLOUD, spec.name, "id", "fluxuser")
    assert run(NAMES[0], CLOUD, spec.name, "systemctl", "--failed", "--quiet").strip() == ""
    assert run(NAMES[0], CLOUD, spec.name, "sh", "-c", "ls -A /etc/munge").strip() == ""
    assert "Startup finished" in backend.serial(CLOUD, spec.name)


def test_a_stopped_machine_s_disk_becomes_what_others_boot_from(
    backend: NspawnBackend, state: Path
) -> None:
    def made_of(image: str, name: str, last: int) -> None:
        backend.create(dataclasses.replace(cloud_machine(name, last), image=image))
        until(lambda: backend.host_keys(CLOUD, name))

    def shell(name: str, script: str) -> str:
        return run(NAMES[0], CLOUD, name, "sh", "-c", script).strip()

    made_of("", "first", 2)
    shell(
        "first", "echo baked > /srv/one; rm -r /usr/share/doc; mkdir /usr/share/doc; rm /etc/issue"
    )
    shell("first", "rm /etc/ssh/ssh_host_*")
    with pytest.raises(MachineError, match="runs: stop it first"):
        backend.save_image(CLOUD, "first", "1")
    began = time.monotonic()
    backend.stop(CLOUD, "first")
    print(f"the machine was down after {time.monotonic() - began:.2f} s")
    assert not backend.running(CLOUD, "first")
    assert "Reached target" in backend.serial(CLOUD, "first"), "it was shut down in order"
    assert backend.save_image(CLOUD, "first", "1") > 0
    backend.delete(CLOUD, "first")

    made_of("1", "second", 3)
    assert shell("second", "cat /srv/one; ls -A /usr/share/doc; ls /etc/issue") == (
        "baked\nls: cannot access '/etc/issue': No such file or directory"
    )
    assert shell("second", "hostname; id -u burst") == "second\n3000"
    assert shell("second", "grep -c ^burst: /etc/passwd") == "1"
    shell("second", "echo more > /srv/two; mkdir /etc/issue")
    backend.stop(CLOUD, "second")
    backend.save_image(CLOUD, "second", "2")

    # The first image is gone, but what was built on it goes on.
    backend.delete_image("1")
    made_of("2", "third", 4)
    assert shell("third", "cat /srv/one /srv/two; ls -d /etc/issue") == "baked\nmore\n/etc/issue"
    with pytest.raises(MachineError, match="wanted saved image 1, found none"):
        made_of("1", "fourth", 5)
    layers = state / "machines" / ".images"
    assert sorted(path.name for path in layers.iterdir()) == ["1", "2"]
    for name in ("second", "third"):
        backend.delete(CLOUD, name)
    backend.delete_image("2")
    backend.delete_image("2")
    assert list(layers.iterdir()) == []


def test_the_site_has_a_flux_whose_worker_joins(backend: NspawnBackend, state: Path) -> None:
    for spec in site_machines(state, "real" if REAL else "standin", KEY):
        backend.create(spec)

    def free() -> list[str]:
        listed = ("flux", "resource", "list", "-s", "free", "-n", "-o", "{nodelist}")
        return run(NAMES[0], PROJECT, LEAD, *listed, user="flux").split()

    took = until(lambda: free() == [WORKER])
    print(f"the worker was free after {took:.2f} s")
    ran = run(NAMES[0], PROJECT, LEAD, "flux", "run", "--cwd", "/tmp", "hostname", user="flux")
    assert ran.strip() == WORKER


def test_the_lead_is_reached_through_the_nat_port_only_and_only_with_nat(
    backend: NspawnBackend, state: Path
) -> None:
    for spec in site_machines(state, "real" if REAL else "standin", KEY):
        backend.create(spec)
    cloud = cloud_machine()
    backend.create(cloud)
    until(lambda: backend.host_keys(CLOUD, cloud.name))
    until(lambda: reaches(NAMES[0], PROJECT, WORKER, "10.77.0.10", 8050))
    through = (NAMES[0], CLOUD, cloud.name, "203.0.113.10", 30093)
    assert not reaches(*through)
    backend.set_nat(SEGMENT, "203.0.113.20")
    backend.set_nat(SEGMENT, "203.0.113.20")
    assert reaches(*through)
    script = "exec 3<>/dev/tcp/203.0.113.10/30093; sleep 3"
    subprocess.Popen(
        [
            "nsenter",
            f"--net=/run/netns/{cloudnet.machine_namespace(*through[:3])}",
            "bash",
            "-c",
            script,
        ]
    )
    until(
        lambda: "203.0.113.20" in run(NAMES[0], PROJECT, LEAD, "cat", "/proc/net/tcp") or peers(), 5
    )
    for address, port in (("10.77.0.10", 8050), ("10.77.0.10", 22), ("203.0.113.10", 22)):
        assert not reaches(NAMES[0], CLOUD, cloud.name, address, port)
    assert not reaches(NAMES[0], PROJECT, LEAD, cloud.address, 22)
    backend.set_nat(SEGMENT, None)
    assert not reaches(*through)


def test_the_pods_of_a_minicluster_are_a_flux_that_only_its_node_port_leads_to(
    root: Path, state: Path
) -> None:
    with closing(NspawnBackend(NAMES[0], state, root, fixed_port=False)) as backend:
        backend.open()
        mini = MiniCluster(
            "default", "flux-sample", 2, 2, f"{LEAD},{WORKER},gffw-1", "flux-service"
        )
        shared = (["10.77.0.10", "10.77.0.11"], curve_certificate("t").decode(), bytes(128), KEY)
        for index in (0, 1):
            backend.create(pod_machine(mini, index, *shared))
        script = ". /mnt/flux/flux-view.sh; FLUX_URI=$fluxsocket flux resource list -s free -n -o {nodelist}"

        until(lambda: backend.running(PROJECT, LEAD))

        def free() -> str:
            words = backend.command(PROJECT, LEAD, ["bash", "-c", script])
            return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()

        until(lambda: free() == "flux-sample-[0-1]")
        cloud = cloud_machine()
        backend.create(cloud)
        until(lambda: backend.host_keys(CLOUD, cloud.name))
        backend.set_nat(SEGMENT, "203.0.113.20")
        through = (NAMES[0], CLOUD, cloud.name, "203.0.113.11", 30093)
        assert not reaches(*through)
        backend.set_forwards({(SEGMENT, "203.0.113.11", 30093): ("10.77.0.10", 8050)})
        assert reaches(*through)
        assert not reaches(NAMES[0], CLOUD, cloud.name, "203.0.113.10", 30093)
        backend.set_forwards({})
        assert not reaches(*through)


def peers() -> bool:
    """Return whether the lead sees the NAT's address on its broker's port."""
    leader = processes.leader(cloudnet.machine_namespace(NAMES[0], PROJECT, LEAD))
    table = Path(f"/proc/{leader}/net/tcp").read_text()
    # 203.0.113.20, as the kernel writes it.
    return socket.inet_aton("203.0.113.20")[::-1].hex().upper() in table


def test_segments_do_not_reach_each_other(
    backend: NspawnBackend,
) -> None:
    one = cloud_machine()
    two = cloud_machine("elsewhere", 3, f"{CLOUD}/another")
    for spec in (one, two):
        backend.create(spec)
        backend.set_nat(spec.segment, "203.0.113.20")
    until(lambda: all(backend.host_keys(CLOUD, spec.name) for spec in (one, two)))
    assert reaches(NAMES[0], CLOUD, one.name, one.address, 22)
    assert not reaches(NAMES[0], CLOUD, one.name, two.address, 22)
    assert banner(backend, CLOUD, two.name) == b"SSH-"


def test_the_network_of_this_machine_is_untouched(root: Path, state: Path) -> None:
    before = own_network()
    backend = NspawnBackend(NAMES[0], state, root)
    backend.open()
    try:
        backend.create(cloud_machine())
        backend.set_nat(SEGMENT, "203.0.113.20")
        assert own_network() == before
    finally:
        backend.close()
    assert own_network() == before


def own_network() -> str:
    """Return the links, addresses, routes and filter rules of this machine itself."""
    commands = (
        "ip -brief link",
        "ip -brief address",
        "ip route show table all",
        "nft list ruleset",
    )
    return "".join(
        subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
        for command in commands
    )


def test_delete_leaves_nothing_of_a_machine_and_its_name_can_be_used_again(
    backend: NspawnBackend, state: Path
) -> None:
    spec = cloud_machine()
    backend.create(spec)
    until(lambda: backend.host_keys(CLOUD, spec.name))
    first = backend.host_keys(CLOUD, spec.name)
    with pytest.raises(MachineError, match="is there already"):
        backend.create(spec)
    backend.delete(CLOUD, spec.name)
    backend.delete(CLOUD, spec.name)
    assert not backend.running(CLOUD, spec.name)
    assert traces(NAMES[0]) == [f"fbs-{NAMES[0]}-net", "control groups", *mount_of(state)]
    assert not (state / "machines" / CLOUD / spec.name).exists()
    with pytest.raises(OSError):
        backend.connect(CLOUD, spec.name, 22)
    backend.create(spec)
    until(lambda: backend.host_keys(CLOUD, spec.name))
    assert backend.host_keys(CLOUD, spec.name) != first


def mount_of(state: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == str(state / "machines")]


@pytest.mark.parametrize("victim", ["systemd-nspawn", "init", "nobody"])
def test_a_sweep_leaves_nothing_whatever_was_killed_before(
    backend: NspawnBackend, state: Path, victim: str
) -> None:
    spec = cloud_machine()
    backend.create(spec)
    until(lambda: backend.host_keys(CLOUD, spec.name))
    machine = cloudnet.machine_namespace(NAMES[0], CLOUD, spec.name)
    if victim == "systemd-nspawn":
        processes.kill(processes.nspawns(re.compile(machine)))
    elif victim == "init":
        leader = processes.leader(machine)
        assert leader is not None
        os.kill(leader, signal.SIGKILL)
    sweep(NAMES[0], state / "machines")
    assert traces(NAMES[0]) == []
    assert not (state / "machines").exists()


def test_two_sandboxes_do_not_touch_each_other(
    backend: NspawnBackend, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spec = cloud_machine()
    state = tmp_path_factory.mktemp("other")
    other = NspawnBackend(NAMES[1], state, root)
    other.open()
    for one in (backend, other):
        one.create(spec)
    until(lambda: all(one.host_keys(CLOUD, spec.name) for one in (backend, other)))
    kept = other.host_keys(CLOUD, spec.name)
    assert kept != backend.host_keys(CLOUD, spec.name)
    backend.close()
    assert traces(NAMES[0]) == []
    assert other.running(CLOUD, spec.name)
    assert other.host_keys(CLOUD, spec.name) == kept
    assert banner(other, CLOUD, spec.name) == b"SSH-"
    other.close()
    assert traces(NAMES[1]) == []


def test_a_machine_that_cannot_be_made_leaves_nothing(backend: NspawnBackend, state: Path) -> None:
    spec = cloud_machine()
    broken = MachineSpec(**{**vars(spec), "enable": ("no-such.service",)})
    with pytest.raises(MachineError, match=r"no-such\.service"):
        backend.create(broken)
    assert traces(NAMES[0])[:1] == [f"fbs-{NAMES[0]}-net"]
    assert processes.of_sandbox(NAMES[0]) == []
    backend.create(spec)
    until(lambda: backend.host_keys(CLOUD, spec.name))
