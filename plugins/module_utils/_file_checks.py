# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What broker, munge and systemd demand of their files, looked at before any file is replaced.

What a file must be is told by its name: *.toml, munge.key, *.cert and whatever a TOML file calls curve_cert, and by
their suffix systemd's units and their drop-ins.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError
from ansible_collections.flux.burst.plugins.module_utils._files import File

try:
    import tomllib
except ImportError:
    # Python before 3.11.
    tomllib = None  # type: ignore[assignment, unused-ignore]

UNITS = "/etc/systemd/system/"
UNIT = re.compile(
    r"([^/]+)\.(service|socket|mount|automount|timer|target|path|slice|swap|device|scope)"
    r"(?:\.d/[^/]+\.conf)?"
)
SETTING = re.compile(r"[A-Za-z][A-Za-z0-9-]*\s*=.*")
START = {("[Service]", key) for key in ("ExecStart", "ExecStop", "SuccessAction")}
CURVE_CERT = re.compile(r'^\s*curve_cert\s*=\s*["\']([^"\']+)["\']', re.MULTILINE)
# See munged(8), and flux-keygen(1): 32 bytes of a CURVE key are 40 characters in Z85, rfc.zeromq.org/spec/32.
MUNGE_KEY_BYTES = range(32, 1025)
Z85 = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
OTHERS = 0o077
MUNGE_OTHERS = 0o066
# flux-core 0.88 reads an array that is not closed at the end of a file without end.
FLUX_SECONDS, FLUX_BYTES = 2, 2**30


def check(files: Sequence[File], user: str, munge_user: str) -> None:
    """Raise BurstError with one line for each thing that is wrong with a set of files.

    user owns the instance, munged runs as munge_user.
    """
    found = list(problems(files, user, munge_user))
    if found:
        raise BurstError("\n".join(f"stage file: {text}." for text in found), stage="file")


def problems(files: Sequence[File], user: str, munge_user: str) -> Iterator[str]:
    """Yield what is wrong, with file, line and what to do."""
    paths = [file.path for file in files]
    certificates = curve_certs(files)
    for number, file in enumerate(files):
        name = os.path.basename(file.path)
        if not file.path.startswith("/") or os.path.normpath(file.path) != file.path:
            yield f"{file.path}: wanted an absolute path without '..', found another: give that"
        if file.path in paths[:number]:
            yield f"{file.path}: wanted one content, found two: name it once"
        if name.endswith(".toml"):
            yield from toml(file)
        elif name == "munge.key":
            yield from munge_key(file, munge_user)
        elif name.endswith(".cert") or file.path in certificates:
            yield from curve_cert(file, user)
        elif unit_of(file.path):
            yield from unit(file)


def curve_certs(files: Iterable[File]) -> set[str]:
    """Return the paths that TOML files name as the broker's certificate."""
    texts = [file.content.decode(errors="replace") for file in files if is_toml(file.path)]
    return {path for text in texts for path in CURVE_CERT.findall(text)}


def is_toml(path: str) -> bool:
    """Return whether a path is one of Flux's configuration."""
    return path.endswith(".toml")


def unit_of(path: str) -> str:
    """Return the unit that a path is a file of or a drop-in for, "" where it is none."""
    inner = path[len(UNITS) :] if path.startswith(UNITS) else ""
    found = UNIT.fullmatch(inner)
    return f"{found[1]}.{found[2]}" if found else ""


def service_of(path: str) -> str:
    """Return the service whose own file, and no drop-in, a path is, "" where it is none."""
    name = unit_of(path)
    return name if name.endswith(".service") and path == UNITS + name else ""


def unit_name(name: str) -> Iterator[str]:
    """Yield what is wrong with the name of a unit that may run a broker."""
    if name.startswith("flux-"):
        yield (
            f"wanted a unit whose name does not begin with flux-, found {name}: flux-security takes its cgroup for a "
            "job's, and jobs of other users never end; call it flux.service"
        )


def toml(file: File) -> Iterator[str]:
    """Yield why a file is no TOML."""
    wrong = _tomllib_says(file) if tomllib else _flux_says(file)
    if wrong:
        line, said = wrong
        yield (
            f"{file.path}, line {line}: wanted TOML, found '{said}': correct that line of what is rendered there"
        )


def _tomllib_says(file: File) -> tuple[str, str] | None:
    try:
        text = file.content.decode()
    except UnicodeDecodeError as error:
        line = file.content.count(b"\n", 0, error.start) + 1
        return str(line), "a byte that is not UTF-8"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        found = re.search(r" \(at line (\d+), column \d+\)$", said)
        if found:
            return found[1], said[: found.start()]
        return str(text.count("\n") + 1), said.replace(" (at end of document)", " at the end")
    return None


def _flux_says(file: File) -> tuple[str, str] | None:
    """Ask Flux itself, which takes a directory."""
    with tempfile.TemporaryDirectory(prefix="flux-burst-") as folder:
        place = os.path.join(folder, "a.toml")
        with open(place, "wb") as copy:
            copy.write(file.content)
        try:
            done = subprocess.run(
                ["flux", "config", "get", "-c", place],
                capture_output=True,
                text=True,
                check=False,
                timeout=2 * FLUX_SECONDS,
                preexec_fn=_limited,
            )
        except subprocess.TimeoutExpired:
            code, said = -1, ""
        else:
            code, said = done.returncode, done.stderr
    if code < 0:
        return "unknown", "an array, a table or a string that is not closed"
    found = re.search(rf"{re.escape(place)}:(\d+): (.*)", said)
    if found:
        return found[1], found[2]
    return ("unknown", said.strip().replace(place, file.path)) if code else None


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (FLUX_SECONDS, FLUX_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (FLUX_BYTES, FLUX_BYTES))


def munge_key(file: File, munge_user: str) -> Iterator[str]:
    """Yield why munged would refuse its key."""
    size = len(file.content)
    if size not in MUNGE_KEY_BYTES:
        yield (
            f"{file.path}: wanted a munge key of {MUNGE_KEY_BYTES.start} to {MUNGE_KEY_BYTES.stop - 1} bytes, found "
            f"{size}: give the lead's as it is, in base64 once"
        )
    yield from _closed(file, MUNGE_OTHERS, munge_user, "0400", "munged")


def curve_cert(file: File, user: str) -> Iterator[str]:
    """Yield why the broker would refuse its certificate. No word of it is told."""
    section, line = "", 0
    seen: dict[tuple[str, str], tuple[int, str]] = {}
    for line, text in enumerate(file.content.decode(errors="replace").splitlines(), 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        if not text[0].isspace():
            section = text.strip()
            continue
        key, sign, value = (part.strip() for part in text.partition("="))
        quoted = value[:1] == '"' == value[-1:] and len(value) > 1
        if not sign or not quoted:
            yield _no_cert(file, line, 'key = "value"', "something else")
            return
        seen[section, key] = line, value[1:-1]
    for key in ("public-key", "secret-key"):
        if ("curve", key) not in seen:
            yield _no_cert(file, max(line, 1), f"{key} in section curve by its end", "none")
        elif not Z85.fullmatch(seen["curve", key][1]):
            yield _no_cert(file, seen["curve", key][0], f"40 Z85 characters as {key}", "others")
    yield from _closed(file, OTHERS, user, "0600", "the broker")


def _no_cert(file: File, line: int, wanted: str, found: str) -> str:
    return (
        f"{file.path}, line {line}: wanted {wanted} of a CURVE certificate, found {found}: "
        "give the lead's, which flux keygen made"
    )


def _closed(file: File, others: int, owner: str, mode: str, reader: str) -> Iterator[str]:
    """Yield what is wrong with the mode and the owner of a secret."""
    if file.mode & others:
        yield (
            f"{file.path}: wanted a mode that gives group and others nothing, as {reader} demands, found "
            f"{file.mode:04o}: use {mode}"
        )
    if owner and file.owner != owner:
        yield (
            f"{file.path}: wanted owner {owner}, as whom {reader} runs, found {file.owner}: give it to {owner}"
        )


def unit(file: File) -> Iterator[str]:
    """Yield why systemd would not take a unit or a drop-in: by its form, as systemd-analyze verify needs a second."""
    yield from (f"{file.path}: {text}" for text in unit_name(unit_of(file.path)))
    section, going_on = "", False
    keys: set[tuple[str, str]] = set()
    for line, raw in enumerate(file.content.decode(errors="replace").splitlines(), 1):
        text = raw.strip()
        if not text or text[0] in "#;":
            # Such a line does not end one that goes on.
            continue
        if not going_on:
            if text[0] == "[" and text[-1] == "]":
                section = text
            else:
                problem = _setting(section, text)
                if problem:
                    yield f"{file.path}, line {line}: {problem}"
                    return
                keys.add((section, text.partition("=")[0].strip()))
        going_on = text.endswith("\\")
    if going_on:
        yield f"{file.path}: wanted its last line ended, found a backslash at its end: remove that"
    if not keys:
        yield f"{file.path}: wanted a unit, found no setting in it: render it, or leave it out"
    elif file.path.endswith(".service") and not keys & START:
        yield f"{file.path}: wanted ExecStart in [Service], found none: say what it runs"


def _setting(section: str, text: str) -> str:
    if not SETTING.fullmatch(text):
        return "wanted [Section] or Key=value, found something else: correct that line"
    if not section:
        return "wanted a [Section] before the first setting, found none: put one above it"
    return ""
