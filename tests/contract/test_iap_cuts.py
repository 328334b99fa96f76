# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever happens to the line, both directions of a tunnel arrive whole, once and in little memory.

FLUX_BURST_CUTS is how many faults a transfer suffers: 200 in 64 MiB each way is the full size, the default is less.
FLUX_BURST_SEED repeats a run.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from echo_relay import EchoBackend, EchoRelay, echoing
from fault_relay import FaultRelay
from tunnel_program import peak, running

FAULTS = int(os.environ.get("FLUX_BURST_CUTS", "16"))
SEED = int(os.environ.get("FLUX_BURST_SEED") or random.SystemRandom().getrandbits(32))
PER_FAULT = (64 << 20) // 200
SIZE = FAULTS * PER_FAULT
PATIENCE = 30 + FAULTS
"""Seconds after which a transfer hangs."""
MEMORY = 48
"""MiB that the tunnel may take: a third of that is Python's, the rest what it holds for both sides."""
CHUNK = 1 << 16


@dataclass
class End:
    """One end of the transfer: what it sends, and what arrives. A slow one dawdles over what it reads."""

    seed: int
    slow: bool
    count: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def content(self) -> list[bytes]:
        """Return what is sent, in pieces of all sizes."""
        chance = random.Random(self.seed)
        pieces, left = [], SIZE
        while left:
            size = min(left, chance.choice((1, 100, 16384, 16385, CHUNK, 4 * CHUNK)))
            pieces.append(chance.randbytes(size))
            left -= size
        return pieces

    def digest_of_content(self) -> str:
        """Return what the other end should have at last."""
        return hashlib.sha256(b"".join(self.content())).hexdigest()

    def write(self, send: Callable[[bytes], object]) -> None:
        """Send all, in a thread of its own."""

        def writing() -> None:
            for piece in self.content():
                while piece:
                    piece = piece[send(piece) or len(piece) :]  # type: ignore[misc]

        threading.Thread(target=writing, daemon=True).start()

    def read(self, receive: Callable[[int], bytes]) -> None:
        """Read until all has come, or the end."""
        chance = random.Random(self.seed)
        pause = SIZE // 8
        while self.count < SIZE and (data := receive(CHUNK)):
            self.count += len(data)
            self.digest.update(data)
            if self.slow and self.count > pause:
                pause += SIZE // 8
                time.sleep(chance.uniform(0.05, 0.3))


def transfer(seed: int, slow_reader: bool, slow_target: bool) -> tuple[End, End, list[str], float]:
    """Transfer both ways at once; return both ends, what happened, and the tunnel's memory."""
    ours, theirs = End(2 * seed, slow_reader), End(2 * seed + 1, slow_target)
    done = threading.Event()

    def serve(end: socket.socket) -> None:
        with end:
            theirs.write(end.sendall)
            theirs.read(end.recv)
            done.wait(PATIENCE)

    relays: list[FaultRelay] = []

    def relay_of(*parts: object) -> FaultRelay:
        every = 2 * SIZE // (FAULTS + 1)
        relays.append(FaultRelay(*parts, random.Random(seed), every, FAULTS))  # type: ignore[arg-type]
        return relays[-1]

    with (
        tempfile.TemporaryDirectory() as state,
        echoing(Path(state), EchoBackend(serve), relay_of) as relay,
    ):
        memory = carried(relay, ours, done)
    return ours, theirs, relays[0].happened, memory


def carried(relay: EchoRelay, ours: End, done: threading.Event) -> float:
    """Be the end that the tunnel's program serves; return its memory."""
    with running(relay) as process:
        assert process.stdin and process.stdout and process.stderr
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        ours.write(process.stdin.write)
        ours.read(process.stdout.read)
        memory = peak(process) if process.poll() is None else 0.0
        done.set()
        assert process.stdout.read(1) == b"", "nothing comes twice"
        process.stdin.close()
        code = ended(process)
        watchdog.cancel()
        assert (code, process.stderr.read()) == (0, b"")
    return memory


def ended(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a program that ends."""
    return process.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slow_reader", "slow_target"),
    [(False, False), (True, False), (False, True)],
    ids=["swift", "slow reader", "slow target"],
)
def test_nothing_is_lost_doubled_or_kept_by_a_line_that_fails(
    slow_reader: bool, slow_target: bool
) -> None:
    ours, theirs, happened, memory = transfer(SEED, slow_reader, slow_target)
    told = f"FLUX_BURST_SEED={SEED}: {', '.join(happened)}"
    assert (ours.count, theirs.count) == (SIZE, SIZE), told
    assert ours.digest.hexdigest() == theirs.digest_of_content(), told
    assert theirs.digest.hexdigest() == ours.digest_of_content(), told
    assert len(happened) > FAULTS // 2, told
    assert 0 < memory < MEMORY
