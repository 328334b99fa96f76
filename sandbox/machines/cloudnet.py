# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a sandbox: everything is inside namespaces, the machine's own network is untouched.

`fbs-NAME-net` holds a bridge per L2 segment, which is the segment's gateway, and the rules between
segments; each machine has a namespace of its own with one veth to its bridge.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sandbox.machines import IAP_ADDRESS, METADATA_ADDRESS, MachineError, MachineSpec

NETNS = Path("/run/netns")
SITE_SEGMENT = "site"
# The lead's broker behind a NAT port, as a NodePort is; there whether or not anyone is let out to it, but for leads
# that are pods, whose services say where they are.
NAT_PORT = ("203.0.113.10", 30093, "10.77.0.10", 8050)
METADATA_PORT = 80
CONNECT_SECONDS = 5.0
CLONE_NEWNET = 0x40000000
SO_BINDTODEVICE = 25

Result = TypeVar("Result")


def short(*parts: str) -> str:
    """Return eight characters that stand for a machine or a segment in names of the kernel."""
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:8]


def cloud_namespace(sandbox: str) -> str:
    """Return the name of the namespace with the bridges."""
    return f"fbs-{sandbox}-net"


def machine_namespace(sandbox: str, project: str, name: str) -> str:
    """Return the name of a machine's namespace, which is what nspawn calls the machine, too."""
    return f"fbs-{sandbox}-m-{short(project, name)}"


def namespaces(sandbox: str) -> list[str]:
    """Return the names of this sandbox's namespaces that exist."""
    ours = re.compile(rf"fbs-{re.escape(sandbox)}-(net|m-[0-9a-f]{{8}})")
    if not NETNS.is_dir():
        return []
    return sorted(path.name for path in NETNS.iterdir() if ours.fullmatch(path.name))


def run(command: list[str], stdin: str = "") -> str:
    """Run a command that changes the network; return its output. Raises MachineError."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(
            f"'{' '.join(command)}' failed: {(done.stderr or done.stdout).strip() or 'no message'}"
        )
    return done.stdout


def delete_namespaces(sandbox: str) -> None:
    """Delete this sandbox's namespaces, and with them its bridges, veths and rules. Idempotent."""
    for name in namespaces(sandbox):
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def inside(namespace: str, function: Callable[[], Result]) -> Result:
    """Return what a function returns in a network namespace; a socket it makes stays in there.

    A thread of its own enters the namespace and ends there, so the caller's is not changed.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with (NETNS / namespace).open("rb") as handle:
                if libc.setns(handle.fileno(), CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), namespace)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


RULES = """\
table ip sandbox {{
  map sources {{ type ifname : ipv4_addr; }}
  map forwards {{ type ifname . ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  set let_out {{ type ifname; }}
  chain before {{
    type nat hook prerouting priority dstnat;
    {fixed}
    dnat ip to iifname . ip daddr . tcp dport map @forwards
  }}
  chain after {{
    type nat hook postrouting priority srcnat;
    ct status dnat snat to iifname map @sources
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname @let_out ct status dnat accept
    oifname @let_out ct state established,related accept
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    meta l4proto icmp accept
  }}
}}
"""


class CloudNet:
    """The network of one sandbox. Its methods may be called from several threads."""

    def __init__(self, sandbox: str, fixed_port: bool = True) -> None:
        self.sandbox, self._fixed_port = sandbox, fixed_port
        self.namespace = cloud_namespace(sandbox)
        self._members: dict[str, set[str]] = {}  # segment -> the namespaces of its machines
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the namespace with its rules. Idempotent. Raises MachineError."""
        with self._lock:
            if (NETNS / self.namespace).exists():
                return
            run(["ip", "netns", "add", self.namespace])
            commands = ["link set lo up", f"address add {IAP_ADDRESS}/32 dev lo"]
            run(["ip", "-n", self.namespace, "-batch", "-"], "\n".join(commands))
            inside(self.namespace, _forward)
            address, port, lead, lead_port = NAT_PORT
            fixed = f"ip daddr {address} tcp dport {port} dnat to {lead}:{lead_port}"
            self._nft(RULES.format(fixed=fixed if self._fixed_port else ""))

    def _nft(self, rules: str) -> None:
        run(["ip", "netns", "exec", self.namespace, "nft", "-f", "-"], rules)

    @staticmethod
    def bridge(segment: str) -> str:
        """Return the name of a segment's bridge."""
        return f"br{short(segment)}"

    def attach(self, spec: MachineSpec) -> str:
        """Make a machine's namespace with eth0 on its segment; return the name. Raises MachineError."""
        machine = machine_namespace(self.sandbox, spec.project, spec.name)
        bridge = self.bridge(spec.segment)
        veth = f"v{short(spec.project, spec.name)}"
        commands = [
            f"link add {veth} type veth peer name eth0 netns {machine}",
            f"link set {veth} master {bridge}",
            f"link set {veth} up",
        ]
        run(["ip", "netns", "add", machine])
        with self._lock:
            if not self._members.get(spec.segment):
                commands[:0] = [
                    f"link add {bridge} type bridge forward_delay 0",
                    f"address add {spec.gateway}/{spec.prefix} dev {bridge}",
                    f"link set {bridge} up",
                ]
            run(["ip", "-n", self.namespace, "-batch", "-"], "\n".join(commands))
            self._members.setdefault(spec.segment, set()).add(machine)
        commands = [
            "link set lo up",
            f"address add {METADATA_ADDRESS}/32 dev lo",
            f"address add {spec.address}/{spec.prefix} dev eth0",
            "link set eth0 up",
            f"route add default via {spec.gateway}",
        ]
        run(["ip", "-n", machine, "-batch", "-"], "\n".join(commands))
        return machine

    def detach(self, project: str, name: str) -> None:
        """Delete a machine's veth and namespace, and the bridge when it was its last. Idempotent."""
        machine = machine_namespace(self.sandbox, project, name)
        links = [f"v{short(project, name)}"]
        with self._lock:
            for segment, members in self._members.items():
                if machine in members:
                    members.remove(machine)
                    links += [self.bridge(segment)] if not members else []
            commands = [["ip", "-n", self.namespace, "link", "delete", link] for link in links]
            for command in [*commands, ["ip", "netns", "delete", machine]]:
                subprocess.run(command, capture_output=True, check=False)

    def set_nat(self, segment: str, address: str | None) -> None:
        """Let a segment out with a source address, or shut it in again. Raises MachineError."""
        bridge = self.bridge(segment)
        with self._lock:
            # Adding first makes the deletion of what may not be there succeed, in one transaction.
            rules = [
                f'add element ip sandbox let_out {{ "{bridge}" }}',
                f'delete element ip sandbox let_out {{ "{bridge}" }}',
            ]
            known = f'"{bridge}" :' in run(
                [
                    "ip",
                    "netns",
                    "exec",
                    self.namespace,
                    "nft",
                    "list",
                    "map",
                    "ip",
                    "sandbox",
                    "sources",
                ]
            )
            if known:
                rules.append(f'delete element ip sandbox sources {{ "{bridge}" }}')
            if address is not None:
                rules.append(f'add element ip sandbox sources {{ "{bridge}" : {address} }}')
                rules.append(f'add element ip sandbox let_out {{ "{bridge}" }}')
            self._nft("\n".join(rules) + "\n")

    def set_forwards(self, forwards: Mapping[tuple[str, str, int], tuple[str, int]]) -> None:
        """Let a segment's machines reach the site's ports at these addresses, and no others. Raises MachineError."""
        rules = ["flush map ip sandbox forwards"]
        for (segment, address, port), (there, port_there) in sorted(forwards.items()):
            element = f'"{self.bridge(segment)}" . {address} . {port} : {there} . {port_there}'
            rules.append(f"add element ip sandbox forwards {{ {element} }}")
        with self._lock:
            self._nft("\n".join(rules) + "\n")

    def connect(self, segment: str, address: str, port: int) -> socket.socket:
        """Return a TCP connection to a machine, from the relay's address. Raises OSError."""
        device = self.bridge(segment).encode()

        def dial() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                # Two networks may use one range of addresses: the segment says which is meant.
                made.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device)
                made.bind((IAP_ADDRESS, 0))
                made.settimeout(CONNECT_SECONDS)
                made.connect((address, port))
                made.settimeout(None)
            except OSError:
                made.close()
                raise
            return made

        return inside(self.namespace, dial)

    @staticmethod
    def listen(machine: str) -> socket.socket:
        """Return a socket that listens in a machine's namespace, which is there as long as it is. Raises OSError."""
        return inside(machine, lambda: socket.create_server((METADATA_ADDRESS, METADATA_PORT)))

    def close(self) -> None:
        """Delete all of it. Idempotent."""
        with self._lock:
            delete_namespaces(self.sandbox)
            self._members.clear()


def _forward() -> None:
    """Switch routing on, and keep the host's bridge filters off these bridges."""
    _write_sysctl("net/ipv4/ip_forward", "1")
    for name in ("all", "default"):
        _write_sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
    _write_sysctl("net/bridge/bridge-nf-call-iptables", "0")


def _write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys") / name
    if path.exists():
        path.write_text(value)
