# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sandbox.server`: serve one sandbox until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandbox.machines import Backend, MachineError, MachineSpec
from sandbox.server.service import Service, Settings


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.server", description=__doc__)
    parser.add_argument("--name", required=True, help="the sandbox's name")
    parser.add_argument("--state", required=True, type=Path, help="its directory, which is there")
    parser.add_argument("--compute-port", required=True, type=int)
    parser.add_argument("--relay-port", required=True, type=int)
    parser.add_argument("--proxy-port", required=True, type=int)
    parser.add_argument("--backend", choices=("nspawn", "records"), default="nspawn")
    parser.add_argument("--latency", choices=("real", "none"), default="real")
    parser.add_argument("--flux", choices=("real", "standin"), default="standin")
    parser.add_argument("--lead", choices=("vm", "gke"), default="vm")
    parser.add_argument("--machines", choices=("plain", "prepared"), default="plain")
    parser.add_argument("--root", type=Path, help="the machines' root image, for backend nspawn")
    return parser.parse_args(arguments)


def parts(options: argparse.Namespace) -> tuple[Backend, Callable[[str], list[MachineSpec]]]:
    """Return the backend, and what makes the site's machines from the user's public key."""
    if options.backend == "records":
        from sandbox.machines.records import RecordsBackend

        return RecordsBackend(), lambda key: []
    from sandbox.machines.nspawn import NspawnBackend
    from sandbox.site import site_machines

    if options.root is None:
        raise MachineError("backend nspawn wants --root ROOT, a root image; found none")
    if options.lead == "gke":
        return NspawnBackend(options.name, options.state, options.root, False), lambda key: []
    backend = NspawnBackend(options.name, options.state, options.root)
    return backend, lambda key: site_machines(options.state, options.flux, key)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve; print `ready` when everything answers. Returns 1 after one line where it cannot start."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings(
        name=options.name,
        state=options.state,
        compute_port=options.compute_port,
        relay_port=options.relay_port,
        proxy_port=options.proxy_port,
        backend=options.backend,
        latency=options.latency,
        flux=options.flux,
        machines=options.machines,
    )
    try:
        backend, site = parts(options)
        service = Service(settings, backend, site)
        asyncio.run(service.run(lambda: print("ready", flush=True)))
    except (MachineError, OSError) as error:
        print(f"sandbox {options.name} cannot start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
