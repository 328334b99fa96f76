# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The broker's configuration and certificate, refused with the words that Flux 0.88 uses."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from . import lists

BOOTSTRAP = (
    "curve_cert",
    "default_port",
    "default_bind",
    "default_connect",
    "hosts",
    "enable_ipv6",
)
HOST = ("host", "bind", "connect", "parent")
NO_RESTART = 42


class BrokerError(Exception):
    """Why the broker ends, and its exit code; with 42, systemd does not start it again."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Member:
    """A host of the instance; its place in the list is its rank."""

    host: str
    bind: str
    connect: str


def load(folder: Path) -> dict[str, Any]:
    """Return every table of a directory's *.toml files. Raises BrokerError."""
    merged: dict[str, Any] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            merged.update(tomllib.loads(path.read_text()))
        except (tomllib.TOMLDecodeError, OSError) as error:
            line = re.search(r"line (\d+)", str(error))
            where = f"{path}:{line[1]}" if line else str(path)
            raise BrokerError(f"Config file error: {where}: {error}") from None
    return merged


def members(config: dict[str, Any]) -> list[Member]:
    """Return the hosts of [bootstrap] in rank order. Raises BrokerError."""
    bootstrap = config.get("bootstrap", {})
    _no_others(bootstrap, BOOTSTRAP)
    found = []
    for entry in bootstrap.get("hosts", []):
        _no_others(entry, HOST)
        for host in lists.expand(entry["host"]):
            found.append(
                Member(
                    host,
                    _fill(entry.get("bind") or bootstrap.get("default_bind", ""), bootstrap, host),
                    _fill(
                        entry.get("connect") or bootstrap.get("default_connect", ""),
                        bootstrap,
                        host,
                    ),
                )
            )
    return found


def _no_others(table: dict[str, Any], known: tuple[str, ...]) -> None:
    others = [key for key in table if key not in known]
    if others:
        raise BrokerError(
            f"Config file error [bootstrap]: {len(others)} object item(s) left unpacked: {', '.join(others)}"
        )


def _fill(uri: str, bootstrap: dict[str, Any], host: str) -> str:
    return uri.replace("%h", host).replace("%p", str(bootstrap.get("default_port", 8050)))


def rank_of(hostname: str, found: list[Member]) -> int:
    """Return the place of exactly this name. Raises BrokerError."""
    for rank, member in enumerate(found):
        if member.host == hostname:
            return rank
    raise BrokerError(f"Config file error [bootstrap]: {hostname} not found in hosts")


def certificate(config: dict[str, Any], size: int) -> tuple[bytes, bytes]:
    """Return the (public, secret) CURVE keys in Z85. Raises BrokerError."""
    path = config.get("bootstrap", {}).get("curve_cert")
    if not path:
        if size > 1:
            raise BrokerError(
                "Config file error [bootstrap]: curve_cert must be defined for size > 1"
            )
        public, secret = zmq.curve_keypair()
        return public, secret
    wrong = f"Error loading certificate: {path}:"
    try:
        mode = os.stat(path).st_mode
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            raise BrokerError(f"{wrong} readable by group/other")
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        raise BrokerError(f"{wrong} {error.strerror}") from None
    keys = dict(re.findall(r'(public-key|secret-key) *= *"(.{40})"', text))
    try:
        public, secret = keys["public-key"].encode(), keys["secret-key"].encode()
        if zmq.curve_public(secret) != public:
            raise ValueError
    except (KeyError, ValueError, zmq.ZMQError):
        raise BrokerError(f"{wrong} Invalid argument") from None
    return public, secret


@dataclass(frozen=True)
class Node:
    """What R declares of a rank."""

    rank: int
    host: str
    cores: int
    properties: tuple[str, ...]


def nodes(config: dict[str, Any], found: list[Member]) -> list[Node]:
    """Return what [resource] declares, or what runs here where it declares nothing. Raises BrokerError."""
    ranks = {member.host: rank for rank, member in enumerate(found)}
    cores: dict[str, int] = {}
    properties: dict[str, list[str]] = {}
    for entry in config.get("resource", {}).get("config", []):
        for host in lists.expand(entry["hosts"]):
            if "cores" in entry and host in cores:
                raise BrokerError("Unable to add rnode: File exists", NO_RESTART)
            if "cores" in entry:
                cores[host] = len(lists.ids(entry["cores"]))
            properties.setdefault(host, []).extend(entry.get("properties", []))
    if not cores:
        cores = {member.host: os.cpu_count() or 1 for member in found}
    unknown = [host for host in cores if host not in ranks]
    if unknown:
        raise BrokerError(
            f"error reranking R: Host {unknown[0]} not found in resources", NO_RESTART
        )
    made = [
        Node(ranks[host], host, count, tuple(properties.get(host, ())))
        for host, count in cores.items()
    ]
    return sorted(made, key=lambda node: node.rank)
