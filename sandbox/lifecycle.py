# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a sandbox and find out how one is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandbox import cleanup, flux_files, inside, paths, preflight, site
from sandbox.rootfs import build_root

Say = Callable[[str], None]
TOP = Path(__file__).resolve().parent.parent
COMPUTE_PORT, RELAY_PORT, PROXY_PORT, PORT_STEP, SLOTS = 8480, 8481, 8482, 10, 100
READY = "ready"
READY_SECONDS = 120.0
ANSWER_SECONDS = 5.0
STANDIN_VERSION = "0.88.0"


class SandboxError(Exception):
    """A sandbox is not as it must be; the message is one line."""


@dataclass
class Sandbox:
    """What sandbox.json keeps. server_pid is 0 until the server runs, root "" without machines."""

    name: str
    compute_port: int
    relay_port: int
    proxy_port: int
    backend: str
    latency: str
    flux: str
    flux_version: str
    server_pid: int
    slot: int
    root: str = ""
    lead: str = "vm"
    machines: str = "plain"

    @property
    def state(self) -> Path:
        """Its directory."""
        return paths.state_of(self.name)

    @property
    def banner(self) -> str:
        """What every screen says about Flux."""
        if self.flux == "real":
            return f"Flux: real {self.flux_version}"
        why = "asked for" if flux_files.real_flux_version() else "no flux in /usr"
        return f"Flux: STAND-IN ({why}): nothing here proves that real Flux works"

    def write(self) -> None:
        """Write sandbox.json, whole or not at all."""
        self.state.mkdir(parents=True, exist_ok=True)
        self.state.chmod(0o700)
        new = self.state / "sandbox.json.new"
        new.write_text(json.dumps(asdict(self), indent=2) + "\n")
        new.rename(self.state / "sandbox.json")


def load(name: str) -> Sandbox | None:
    """Return a sandbox as it was started; None where there is none."""
    try:
        return Sandbox(**json.loads((paths.state_of(name) / "sandbox.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def ask(sandbox: Sandbox, path: str, body: bytes | None = None) -> bytes:
    """Return the body that the sandbox's server answers a GET with, or the POST of a body. Raises OSError."""
    url = f"http://127.0.0.1:{sandbox.compute_port}{path}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, body, timeout=ANSWER_SECONDS) as answer:
        said: bytes = answer.read()
    return said


def status(sandbox: Sandbox) -> dict[str, Any] | None:
    """Return what the server says of itself; None where it is dead or does not answer."""
    if sandbox.server_pid not in cleanup.servers(sandbox.name):
        return None
    try:
        found: dict[str, Any] = json.loads(ask(sandbox, "/sandbox/status"))
    except (OSError, ValueError):
        return None
    return found


@dataclass(frozen=True)
class Wish:
    """What `up` was asked for; None where it was left open."""

    name: str
    backend: str | None = None
    flux: str | None = None
    latency: str | None = None
    lead: str | None = None
    machines: str | None = None


def up(wish: Wish, say: Say) -> Sandbox:
    """Return the running sandbox, started where it was not; say gets lines of progress.

    Raises SandboxError, PreflightError, RootError, FluxFilesError, MachineError, OSError.
    """
    preflight.check_host()
    with paths.locked(paths.STATE / f".{wish.name}.lock"):
        found = load(wish.name)
        if found and status(found):
            _check_same(found, wish)
            say(f"sandbox {wish.name} is up")
            return found
        if cleanup.leftovers(wish.name):
            say(
                f"sandbox {wish.name} was left half-dead (its server is gone): removing it to start again"
            )
            cleanup.remove(wish.name)
        flux, version = choose_flux(wish.flux or "auto")
        backend = wish.backend or "nspawn"
        if backend == "nspawn":
            preflight.check_machines()
        sandbox = _claim(wish, backend, flux, version)
        try:
            _start(sandbox, flux, say)
        except BaseException:
            cleanup.remove(wish.name)
            raise
        return sandbox


def _check_same(found: Sandbox, wish: Wish) -> None:
    for option in ("backend", "flux", "latency", "lead", "machines"):
        wanted, has = getattr(wish, option), getattr(found, option)
        if wanted not in (None, "auto", has):
            raise SandboxError(
                f"wanted sandbox {wish.name} with --{option} {wanted}, found it running with {has}: "
                f"take it down first (python -m sandbox down --name {wish.name}), or use another --name"
            )


def choose_flux(wanted: str) -> tuple[Literal["real", "standin"], str]:
    """Return which Flux the machines get, and its version. Raises SandboxError."""
    version = flux_files.real_flux_version()
    if wanted == "real" and not version:
        raise SandboxError(
            "wanted a real Flux in /usr, found none (no 'flux version' there): "
            "install flux-core and flux-security with prefix /usr, or use --flux standin"
        )
    if version and wanted != "standin":
        return "real", version
    return "standin", STANDIN_VERSION


def _claim(wish: Wish, backend: str, flux: str, version: str) -> Sandbox:
    """Take the first free slot, which says which ports the sandbox has. Raises PreflightError."""
    with paths.locked(paths.STATE / ".slots.lock"):
        others = [load(other) for other in paths.sandboxes() if other != wish.name]
        taken = {other.slot for other in others if other}
        slot = 0
        if wish.name != "default":
            slot = next(
                slot
                for slot in range(1, SLOTS)
                if slot not in taken and all(map(preflight.port_free, ports_of(slot)))
            )
        preflight.check_ports(ports_of(slot))
        sandbox = Sandbox(
            wish.name,
            *ports_of(slot),
            backend,
            wish.latency or "real",
            flux,
            version,
            0,
            slot,
            lead=wish.lead or "vm",
            machines=wish.machines or "plain",
        )
        sandbox.write()
    return sandbox


def ports_of(slot: int) -> tuple[int, int, int]:
    """Return the ports (Compute Engine, relay, proxy) of a slot."""
    shift = PORT_STEP * slot
    return COMPUTE_PORT + shift, RELAY_PORT + shift, PROXY_PORT + shift


def _start(sandbox: Sandbox, flux: Literal["real", "standin"], say: Say) -> None:
    if sandbox.backend == "nspawn":
        sandbox.root = str(build_root(flux, say))
        sandbox.write()
    _write_ssh_key(sandbox.state)
    say(f"starting sandbox {sandbox.name}: {sandbox.backend} machines, latency {sandbox.latency}")
    log = sandbox.state / paths.LOG
    with log.open("ab") as output:
        server = subprocess.Popen(
            _server_command(sandbox),
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    sandbox.server_pid = server.pid
    sandbox.write()
    deadline = time.monotonic() + READY_SECONDS
    while READY not in log.read_text(errors="replace").splitlines():
        if server.poll() is not None or time.monotonic() > deadline:
            raise SandboxError(_why_not(server.poll(), log))
        time.sleep(0.05)
    if sandbox.backend == "nspawn" and sandbox.lead == "vm":
        _wait_for_flux(sandbox, deadline)


def _wait_for_flux(sandbox: Sandbox, deadline: float) -> None:
    """Return when the worker has joined the lead, which is where a user's cluster begins."""
    words = ["flux", "resource", "list"]
    while True:
        try:
            whole = inside.whole_command(
                sandbox.name, site.LEAD, site.PROJECT, site.FLUX.user, words
            )
            listed = subprocess.run(whole, capture_output=True, text=True, check=False)
            said = listed.stderr.strip() or listed.stdout.strip() or "nothing"
            if listed.returncode == 0 and site.complete(listed.stdout):
                return
        except inside.ExecError as error:
            said = str(error)
        if time.monotonic() > deadline:
            raise SandboxError(
                f"wanted {site.WORKER} free in 'flux resource list' on {site.LEAD} within "
                f"{READY_SECONDS:.0f} s, found '{said.splitlines()[-1]}': Flux does not run in the "
                "sandbox's machines"
            )
        time.sleep(0.1)


def _why_not(code: int | None, log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    found = "none of it" if code is None else f"exit code {code}"
    last = lines[-1].strip() if lines else "no message"
    return (
        f"wanted the sandbox's server ready within {READY_SECONDS:.0f} s, found {found}: its last line "
        f"was '{last}'; put that right and run up again"
    )


def _server_command(sandbox: Sandbox) -> list[str]:
    options = {
        "--name": sandbox.name,
        "--state": sandbox.state,
        "--compute-port": sandbox.compute_port,
        "--relay-port": sandbox.relay_port,
        "--proxy-port": sandbox.proxy_port,
        "--backend": sandbox.backend,
        "--latency": sandbox.latency,
        "--flux": sandbox.flux,
        "--lead": sandbox.lead,
        "--machines": sandbox.machines,
        "--root": sandbox.root or os.devnull,
    }
    words = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, "-u", "-m", "sandbox.server", *words]


def _write_ssh_key(state: Path) -> None:
    """Write the user's key pair: to get into machines with, as a person's ~/.ssh is."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path = state / "ssh_key"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(private)
    (state / "ssh_key.pub").write_bytes(public + b" burst\n")


def down(name: str, say: Say) -> None:
    """Remove a sandbox, running, half-dead or not there at all. Raises PreflightError."""
    preflight.check_host()
    lock = paths.STATE / f".{name}.lock"
    with paths.locked(lock):
        if cleanup.leftovers(name):
            say(f"removing sandbox {name}")
            cleanup.remove(name)
        say(f"sandbox {name} is down")
        lock.unlink(missing_ok=True)
    _remove_empty_state()


def _remove_empty_state() -> None:
    """Remove what is left when the last sandbox went; another `up` at this moment makes it again."""
    if paths.STATE.is_dir() and {path.name for path in paths.STATE.iterdir()} <= {".slots.lock"}:
        with paths.locked(paths.STATE / ".slots.lock"):
            (paths.STATE / ".slots.lock").unlink(missing_ok=True)
        try:
            paths.STATE.rmdir()
        except OSError:
            return
