# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of machines that failed, without the secrets that may be in it, as files on the controller."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _burst_directory
from ansible_collections.flux.burst.plugins.module_utils._errors import printable

HIDDEN = "(hidden)"
WINDOW = 16
"""So many characters in a row of a secret are taken for it: it may be cut off, or broken into lines."""
MOST = 2**21
"""Characters of one text that are kept, the last ones."""
# What is a secret by its form, whosever it is; the group before it stays.
FORMS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:(?=-----END [A-Z ]*PRIVATE KEY)|\Z)",
        r"((?i:secret[-_]key)[\"']?\s*[=:]\s*[\"']?)[^\s\"']+",
        r"((?i:\bbearer)\s+)[A-Za-z0-9._~+/=-]{8,}",
        r"((?i:\b(?:access|refresh|id)_token)[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+",
        r"()\bya29\.[A-Za-z0-9._-]+",
        r"()\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
        r"(\bMUNGE:)[A-Za-z0-9+/=]+",
    )
]
CURVE_SECRET = re.compile(rb'secret-key\s*=\s*"([^"]+)"')
WORD = re.compile(rf"\S{{{WINDOW},}}")


def scrubbed(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without what is a secret by its form, and without these secrets in whatever form.

    A secret is given as it is or in base64; of a CURVE certificate its secret key counts. It is found plain, in
    hexadecimal, and in base64 wherever in a longer text it begins.
    """
    for pattern in FORMS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    forms = {form for secret in secrets for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    windows = {
        form[start : start + WINDOW] for form in forms for start in range(len(form) - WINDOW + 1)
    }
    return WORD.sub(lambda word: _without(word[0], windows), text) if windows else text


def _without(word: str, windows: set[str]) -> str:
    """Return a word with every character hidden that is in one of the windows."""
    starts = [at for at in range(len(word) - WINDOW + 1) if word[at : at + WINDOW] in windows]
    made, done = "", 0
    for start in starts:
        if start >= done:
            made += word[done:start] + HIDDEN
        done = start + WINDOW
    return made + word[done:]


def _forms(secret: str) -> set[str]:
    """Return the texts in which a secret may appear."""
    given = secret.strip()
    if len(given) < WINDOW // 2:
        return set()
    plain = given.encode()
    with contextlib.suppress(binascii.Error, ValueError):
        plain = base64.b64decode(given, validate=True)
    found = CURVE_SECRET.search(plain)
    contents = [found[1]] if found else [plain, given.encode()]
    forms = set()
    for content in contents:
        if content.isascii():
            forms.add(content.decode())
        forms |= {content.hex(), content.hex().upper(), base64.b64encode(content).decode()}
        for shift in range(3):
            # The first characters are of what was before, and the last ones of what follows.
            coded = base64.b64encode(b"\0" * shift + content).decode()[4:-4]
            forms |= {coded, coded.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= WINDOW // 2}


def readable(text: str) -> str:
    """Return the end of a text, in lines without characters that a terminal acts on."""
    return "".join(f"{printable(line)}\n" for line in text[-MOST:].splitlines())


def files(
    hosts: Iterable[str],
    findings: Iterable[Mapping[str, Any]],
    reports: Mapping[str, Any],
    logs: Mapping[str, Mapping[str, str]],
    secrets: Iterable[str],
) -> dict[str, str]:
    """Return the files to write, by name, of each host: HOST.json with what was found, and one for each of its logs.

    A finding whose `below` names a host counts for it, too. reports is what the host's own tasks said.
    """
    known = list(secrets)
    rows = list(findings)
    made = {}
    for host in hosts:
        told = {
            "host": host,
            "findings": [row for row in rows if host in (row["host"], *row.get("below", ()))],
            "evidence": reports.get(host) or {},
        }
        made[f"{host}.json"] = json.dumps(_each(told, known), indent=2) + "\n"
        for name, text in sorted(logs.get(host, {}).items()):
            made[f"{host}.{name}.log"] = readable(scrubbed(text, known))
    return made


def _each(value: Any, secrets: list[str]) -> Any:
    """Return a value of JSON with all its texts scrubbed."""
    if isinstance(value, Mapping):
        return {str(key): _each(inner, secrets) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(inner, secrets) for inner in value]
    return scrubbed(value, secrets) if isinstance(value, str) else value


def write(directory: str, burst: str, run: str, made: Mapping[str, str]) -> Path:
    """Write files of one run of a burst, for their owner alone, and return their directory. Raises BurstError."""
    top = _burst_directory.made(directory, burst)
    folder = _burst_directory.made(str(top), run)
    for name, text in made.items():
        _burst_directory.replace(folder / name, text)
    return folder
