# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TCP to a machine through IAP, on standard input and output as ssh's ProxyCommand, or on a local port.

    python -P _iap.py --project P --zone Z --instance I --endpoint wss://tunnel.cloudproxy.app [--port 22]
        [--ca-file FILE] [--credentials-file FILE] [--impersonate-service-account ACCOUNT] [--directory DIRECTORY]
        [--error-file FILE] [--listen [HOST:]PORT]

The CA file replaces the system's authorities. HTTPS_PROXY and NO_PROXY are followed. The access token is kept in the
directory, which has to be this user's alone. A failure is one line on standard error, and in the error file, too, if
one is given. A listener is on loopback if no host is given; it prints the port and serves who comes until interrupted.

It ends with
0 when either side closed in order,
2 when its arguments are wrong,
3 when the machine or its port was not reached (4003, 4047) or does not go on (4009, 4010),
4 when the credentials are not good or lack iap.tunnelInstances.accessViaIAP (roles/iap.tunnelResourceAccessor),
5 when the network, a proxy or a certificate failed, or a connection could not be resumed,
6 when the relay does not keep to the protocol, or says that we do not,
130 when it was interrupted.
"""

from __future__ import annotations

import os
import socket
import sys

if __name__ == "__main__":
    # ssh runs this file alone; what it imports of ours is found where Ansible finds it.
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 5)))

from ansible_collections.flux.burst.plugins.module_utils._gce_token import TokenError, Tokens
from ansible_collections.flux.burst.plugins.module_utils._iap_tunnel import (
    DENIED,
    USAGE,
    Target,
    Tunnel,
    TunnelError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ansible_collections.flux.burst.plugins.module_utils._iap_tunnel import Token

REQUIRED = ("project", "zone", "instance", "endpoint")
OPTIONAL = (
    "port",
    "ca-file",
    "credentials-file",
    "impersonate-service-account",
    "directory",
    "error-file",
    "listen",
)


def shared_token(
    credentials_file: str | None, impersonate: str | None, directory: str | None
) -> Token:
    """Return what gives the access token that all tunnels with the same credentials share."""
    tokens = Tokens(credentials_file, impersonate, directory)

    def token(rejected: str | None) -> str:
        try:
            return tokens.get(rejected)
        except TokenError as error:
            raise TunnelError(str(error), DENIED) from None

    return token


def listen(target: Target, token: Token, where: str) -> None:
    """Serve connections at [HOST:]PORT, each with a tunnel of its own, until interrupted. Raises TunnelError."""
    import threading

    host, _colon, port = where.rpartition(":")
    try:
        server = socket.create_server(
            (host.strip("[]") or "127.0.0.1", int(port)),
            family=socket.AF_INET6 if host.startswith("[") else socket.AF_INET,
            backlog=128,
        )
    except (OSError, ValueError, OverflowError) as error:
        raise TunnelError(
            f"wanted to listen at {where}, found '{error}': choose another.", 2
        ) from None

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                Tunnel(target, token).run(connection.fileno(), connection.fileno())
            except TunnelError as error:
                sys.stderr.write(f"iap: {error}\n")

    with server:
        sys.stdout.write(f"{server.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


def parsed(words: list[str]) -> dict[str, str]:
    """Return the options of a command line, by name. Raises TunnelError.

    argparse alone would take a tenth of the time until the first byte.
    """
    given: dict[str, str] = {}
    left = iter(words)
    for word in left:
        name, is_here, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in REQUIRED + OPTIONAL:
            raise _usage(f"'{word}'")
        try:
            given[name] = value if is_here else next(left)
        except StopIteration:
            raise _usage(f"no value of --{name}") from None
    missing = [name for name in REQUIRED if name not in given]
    if missing:
        raise _usage(f"no --{missing[0]}")
    if not given.setdefault("port", "22").isdecimal():
        raise _usage(f"--port {given['port']}")
    return given


def _usage(found: str) -> TunnelError:
    return TunnelError(f"wanted the options of a tunnel, found {found}: see --help.", USAGE)


def run(given: dict[str, str]) -> None:
    """Carry standard input and output, or listen. Raises TunnelError."""
    target = Target(
        given["project"],
        given["zone"],
        given["instance"],
        int(given["port"]),
        given["endpoint"],
        given.get("ca-file"),
    )
    names = ("credentials-file", "impersonate-service-account", "directory")
    token = shared_token(*(given.get(name) for name in names))
    if "listen" in given:
        listen(target, token, given["listen"])
    else:
        Tunnel(target, token).run(0, 1)


def main() -> int:
    """Run what the command line says; return the exit code."""
    if "--help" in sys.argv:
        sys.stdout.write(__doc__ or "")
        return 0
    error_file = None
    try:
        given = parsed(sys.argv[1:])
        error_file = given.get("error-file")
        run(given)
    except TunnelError as error:
        sys.stderr.write(f"iap: {error}\n")
        if error_file:
            with open(error_file, "w", encoding="utf-8") as file:
                file.write(f"iap: {error}\n")
        return error.code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
