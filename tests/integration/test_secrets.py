# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst at -vvvv with a facts cache and a hostile job: no secret is anywhere but in its own file, in any form."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from burst_sandbox import LEAD, TOP, Sandbox, flux_kinds, succeeded

pytestmark = pytest.mark.machines
HOSTS = ["gffw-compute-a-001", "gffw-compute-a-002", "gffw-compute-a-003"]
HOSTILE = "{{ lookup('pipe', 'touch OWNED') }}\x1b[2J\u202e"
PAUSE = 0.05


def forms(secret: bytes) -> list[bytes]:
    """A secret as it is, and in base64 wherever in a longer text it begins."""
    coded = [base64.b64encode(b"\0" * shift + secret) for shift in range(3)]
    # The first characters are of what was before, and the last ones of what follows.
    return [secret, *(text[4:-4] for text in coded)]


def planted(sandbox: Sandbox) -> dict[str, list[bytes]]:
    """Every secret of a burst, in every form. A key is known by a part of it that no header shares."""
    key = base64.b64decode(sandbox.shell(LEAD, "base64 -w0 /etc/munge/munge.key").output)
    cert = sandbox.shell(LEAD, "cat /etc/flux/system/curve.cert").output
    curve = next(line for line in cert.splitlines() if "secret-key" in line).split('"')[1]
    found = {"munge key": key, "certificate": curve.encode()}
    for name, path in {
        "service account key": sandbox.state / "credentials.json",
        "SSH key": sandbox.state / "bursts/flux-burst/ssh_key",
    }.items():
        if path.exists():
            lines = path.read_text().replace("\\n", "\n").splitlines()
            start = next(place for place, line in enumerate(lines) if "PRIVATE KEY" in line)
            found[name] = lines[start + 3].encode()
    return {name: forms(secret) for name, secret in found.items()}


def seen(known: dict[str, list[bytes]], text: bytes) -> set[str]:
    """The secrets that a text shows."""
    return {name for name, texts in known.items() if any(each in text for each in texts)}


@contextmanager
def sampled() -> Iterator[set[bytes]]:
    """Look again and again at arguments and environments of all processes, those of the machines too."""
    words: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(PAUSE):
            for process in Path("/proc").glob("[0-9]*"):
                # It may have ended.
                with suppress(OSError):
                    words.add((process / "cmdline").read_bytes())
                    words.add((process / "environ").read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield words
    finally:
        over.set()
        thread.join()


def files(*tops: Path) -> Iterator[tuple[Path, bytes]]:
    """Every regular file below some directories; the machines' own disks are left out."""
    for top in tops:
        for folder, names, found in os.walk(top):
            names[:] = [name for name in names if name != "machines"]
            for path in (Path(folder) / name for name in found):
                with suppress(OSError):
                    if path.is_file() and not path.is_symlink():
                        yield path, path.read_bytes()


@pytest.mark.parametrize("sandbox", flux_kinds()[:1], indirect=True)
def test_no_secret_is_anywhere_but_in_its_own_file(sandbox: Sandbox, tmp_path: Path) -> None:
    words = ["flux", "submit", "-N4", "--cwd=/tmp", "--setattr=burstable"]
    succeeded(sandbox.on_lead(*words, f"--job-name={HOSTILE}", "hostname"))
    facts = tmp_path / "facts"
    cache = {
        "ANSIBLE_CACHE_PLUGIN": "jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(facts),
        "ANSIBLE_LOG_PATH": str(tmp_path / "ansible.log"),
        "ANSIBLE_INJECT_FACT_VARS": "False",
    }
    with sampled() as words_seen:
        done = succeeded(sandbox.playbook("burst", "-vvvv", "--diff", **cache))
    facts_of = sandbox.run("ansible", "all", "-m", "setup", "-o", **cache)
    known = planted(sandbox)
    assert set(known) == {"munge key", "certificate", "service account key", "SSH key"}
    tokens = [
        content.partition(b"\n")[2].strip()
        for path, content in files(sandbox.state, Path.home() / ".ansible/flux_burst")
        if path.name.startswith("token-") and not path.suffix
    ]
    assert any(tokens), "no access token was fetched"
    known["access token"] = [form for token in tokens if token for form in forms(token)]

    assert seen(known, done.output.encode()) == set(), "in the output of -vvvv"
    assert seen(known, facts_of.output.encode()) == set(), "in facts"
    assert any(HOSTS[0].encode() in each for each in words_seen), "no process was seen"
    assert {name for each in words_seen for name in seen(known, each)} == set(), "in ps"
    assert list(facts.iterdir()), "no facts were cached"
    shown = {
        (name, path.name.partition("-")[0])
        for path, content in files(
            sandbox.state, tmp_path, Path.home() / ".ansible", Path("/dev/shm")
        )
        for name in seen(known, content)
    }
    # Among them the facts, Ansible's own log, and the requests to Compute Engine with their bodies.
    assert shown == {
        ("service account key", "credentials.json"),
        ("SSH key", "ssh_key"),
        ("access token", "token"),
    }
    for machine in (LEAD, *HOSTS):
        journal = sandbox.execute(machine, "journalctl", "--no-pager", "-o", "export").output
        assert len(journal) > 1000
        assert seen(known, journal.encode()) == set(), f"in the journal of {machine}"

    # Nothing that holds a key leaves it in a dump of its memory; a job may still ask for one of its own.
    limits = "grep 'Max core file size' /proc/$(systemctl show -P MainPID flux)/limits"
    assert sandbox.shell(HOSTS[0], limits).output.split()[4] == "0"

    # The job's name was data: nobody ran it, and no terminal gets what is in it.
    assert not (TOP / "OWNED").exists()
    assert "\x1b" not in done.output and "\u202e" not in done.output
    succeeded(sandbox.playbook("teardown"))
