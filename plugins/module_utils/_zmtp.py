# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a broker answer at an address? The greeting of ZMTP 3 (rfc.zeromq.org/spec/23) tells, before any key is used."""

from __future__ import annotations

import errno
import socket
import time

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING = SIGNATURE + b"\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
STRANGER = "something that is not a Flux broker"
MECHANISM = slice(12, 32)
# What a firewall's or a router's ICMP message is to a program.
REJECTED = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)


def problem(address: str, port: int, timeout: float) -> str:
    """Return what is wrong with a lead's port as seen from here, "" where a broker greets with CURVE.

    The text reads after "found ". It takes at most `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection((address, port), timeout) as link:
            link.sendall(GREETING)
            heard = b""
            while len(heard) < len(GREETING):
                link.settimeout(max(deadline - time.monotonic(), 0.01))
                part = link.recv(len(GREETING) - len(heard))
                if not part:
                    break
                heard += part
    except TimeoutError:
        return f"no answer within {timeout:g} s: a firewall drops it, or the address is wrong"
    except socket.gaierror as error:
        return f"no address for that name ({error.strerror})"
    except ConnectionRefusedError:
        return "the connection refused: the address is right, but nothing listens at that port"
    except ConnectionResetError:
        return STRANGER
    except OSError as error:
        said = f"'{error.strerror or error}'"
        return (
            f"{said}: a firewall rejects it, or no route leads there"
            if error.errno in REJECTED
            else said
        )
    # A peer with another mechanism hangs up at ours.
    good = len(heard) == len(GREETING) and heard[MECHANISM] == GREETING[MECHANISM]
    return "" if good else STRANGER
