# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One access token for all processes that need one: fetched once, kept in a file that only its owner reads.

A process that takes the token from there starts without google-auth, whose import costs 0.2 s and 25 MiB; it is fetched
in a process of its own, which is gone afterwards.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import sys
import time

if __name__ == "__main__":
    # Run as a program, this fetches; what it imports of ours is found where Ansible finds it.
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 5)))

FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
TOKEN_VARIABLES = ("FLUX_BURST_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN")
IMPERSONATE_VARIABLES = (
    "FLUX_BURST_IMPERSONATE_SERVICE_ACCOUNT",
    "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT",
)
MATTERS = ("FLUX_BURST_", "GOOGLE_", "CLOUDSDK_", "AWS_")
"""How the names of variables begin that may lead to other credentials."""
DIRECTORY = "~/.ansible/flux_burst"
FRESH = 60.0
"""Seconds that a token has to be good for."""
FETCH_SECONDS = 120.0


class TokenError(Exception):
    """What was wanted, what was found, what to do, in one line."""


def environment(*names: str) -> str | None:
    """Return the first variable of some that is set and not empty."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


class Tokens:
    """Access tokens for the credentials in a file or in the environment.

    impersonate is the service account to act as, if any; directory is where the token is kept, for this user alone;
    it must be there, or else a default one is made.
    """

    def __init__(
        self,
        credentials_file: str | None = None,
        impersonate: str | None = None,
        directory: str | None = None,
    ) -> None:
        self._credentials_file, self._impersonate = credentials_file, impersonate
        self._directory = os.path.expanduser(directory or DIRECTORY)
        # One that is given is its giver's to make: a tunnel that outlives its burst must not bring it back.
        self._make = not directory

    def get(self, rejected: str | None = None) -> str:
        """Return a token, another one than that which was rejected if there can be one. Raises TokenError."""
        given = environment(*TOKEN_VARIABLES)
        if given and not (self._impersonate or environment(*IMPERSONATE_VARIABLES)):
            return given
        name = f"token-{self._key()}"
        try:
            folder = opened(self._directory, self._make)
            try:
                return kept(folder, name, rejected) or self._fetched(folder, name, rejected)
            finally:
                os.close(folder)
        except OSError as error:
            raise TokenError(
                f"wanted the access token kept in {self._directory}, found '{error.strerror or error}': see to "
                "the owner and the mode of that directory."
            ) from None

    def _key(self) -> str:
        """Return what tells these credentials from others."""
        gcloud = os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
        path = self._credentials_file or os.environ.get(FILE_VARIABLE)
        path = path or os.path.join(gcloud, "application_default_credentials.json")
        found = hashlib.sha256()
        settings = sorted(it for it in os.environ.items() if it[0].startswith(MATTERS))
        found.update(repr((os.path.realpath(path), self._impersonate, settings)).encode())
        try:
            with open(path, "rb") as file:
                found.update(file.read())
        except OSError:
            # Whoever fetches says what is wrong with it.
            pass
        return found.hexdigest()[:32]

    def _fetched(self, folder: int, name: str, rejected: str | None) -> str:
        """Return a new token, fetched once for all who wait for it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(f"{name}.lock", flags, 0o600, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = kept(folder, name, rejected)
            if not found:
                expires, found = self._fetch()
                keep(folder, name, f"{expires}\n{found}\n")
            return found
        finally:
            os.close(lock)

    def _fetch(self) -> tuple[str, str]:
        """Return until when a new token is good, in seconds since 1970, and the token."""
        import subprocess

        command = [sys.executable, "-P", os.path.abspath(__file__)]
        command += [self._credentials_file or "", self._impersonate or ""]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=FETCH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TokenError(
                f"wanted an access token, found none within {FETCH_SECONDS:g} s: check the network, the proxy and "
                "the address that the credentials name."
            ) from None
        if done.returncode:
            raise TokenError((done.stderr.strip().splitlines() or ["no access token"])[-1])
        expires, token = done.stdout.split()
        return expires, token


def opened(directory: str, make: bool) -> int:
    """Return a descriptor of a directory that is this user's alone; make it where it is missing. Raises OSError."""
    if make:
        os.makedirs(os.path.dirname(directory), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(folder)
    wrong = "it belongs to another user" if found.st_uid != os.geteuid() else ""
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        wrong = "others can write to it"
    if wrong:
        os.close(folder)
        raise PermissionError(0, wrong)
    return folder


def kept(folder: int, name: str, rejected: str | None) -> str:
    """Return the token in a file of ours, "" where there is none that is good any more. Raises OSError."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return ""
    with os.fdopen(handle) as file:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return ""
        expires, _line, token = file.read().strip().partition("\n")
    good = expires.isdecimal() and int(expires) >= time.time() + FRESH
    return token if good and token != rejected else ""


def keep(folder: int, name: str, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all. Raises OSError."""
    new = f"{name}.new"
    # Whoever holds the lock is alone here: this one was left by a process that was killed.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, 0o600, dir_fd=folder), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
    os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)


def main(credentials_file: str, impersonate: str) -> int:
    """Print until when a new token is good, and the token; return the exit code."""
    from datetime import UTC

    from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
    from ansible_collections.flux.burst.plugins.module_utils._gce_auth import Auth, load

    try:
        found = load(Auth.from_environment(credentials_file or None, impersonate or None))
        token = found.token()
    except GceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    until = getattr(found.credentials, "expiry", None)
    # One that does not say when it ends is for who asked for it, and no more.
    expires = int(until.replace(tzinfo=UTC).timestamp()) if until else 0
    sys.stdout.write(f"{expires}\n{token}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
