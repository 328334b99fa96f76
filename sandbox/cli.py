# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of `python -m sandbox`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import urllib.error
from pathlib import Path
from typing import Any

from sandbox import cleanup, flux_files, inside, lifecycle, machines, paths, preflight, rootfs

PROJECT = "sandbox-project"
KNOWN_ERRORS = (
    flux_files.FluxFilesError,
    inside.ExecError,
    lifecycle.SandboxError,
    machines.MachineError,
    preflight.PreflightError,
    rootfs.RootError,
)


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, flush=True)


def up(options: argparse.Namespace) -> int:
    """Start the sandbox, or find that it runs."""
    wish = lifecycle.Wish(
        options.name,
        options.backend,
        options.flux,
        options.latency,
        options.lead,
        options.machines,
    )
    sandbox = lifecycle.up(wish, say)
    say(sandbox.banner)
    say(f"Compute Engine: http://127.0.0.1:{sandbox.compute_port}")
    say(f"IAP relay: wss://127.0.0.1:{sandbox.relay_port}")
    return 0


def down(options: argparse.Namespace) -> int:
    """Remove the sandbox."""
    lifecycle.down(options.name, say)
    return 0


def status(options: argparse.Namespace) -> int:
    """Say what is in the sandbox."""
    sandbox = lifecycle.load(options.name)
    found = lifecycle.status(sandbox) if sandbox else None
    if sandbox and found:
        if options.json:
            say(json.dumps(found, indent=2))
        else:
            say("\n".join([*describe(found), sandbox.banner]))
        return 0
    state = "broken" if cleanup.leftovers(options.name) else "down"
    if options.json:
        say(json.dumps({"name": options.name, "state": state}))
    elif state == "down":
        say(f"sandbox {options.name} is down")
    else:
        say(
            f"sandbox {options.name} is broken: its server is gone; up starts it again, down removes it"
        )
    return 0


def describe(found: dict[str, Any]) -> list[str]:
    """Return a status as lines of text."""
    lines = [
        f"sandbox {found['name']} is up: {found['backend']} machines, latency {found['latency']}"
    ]
    for machine in found.get("site", []):
        lines.append(f"  site  {machine['name']}  {machine['address']}  {machine['status']}")
    for project, kinds in sorted(found.get("projects", {}).items()):
        for kind, things in kinds.items():
            for thing in things:
                words = [thing] if isinstance(thing, str) else _words(thing)
                lines.append(f"  {project}  {kind}  {'  '.join(words)}")
    if not any(things for kinds in found.get("projects", {}).values() for things in kinds.values()):
        lines.append("  nothing in Compute Engine")
    return lines


def _words(instance: dict[str, Any]) -> list[str]:
    return [
        str(instance[key]) for key in ("name", "zone", "address", "status") if instance.get(key)
    ]


def variables(sandbox: lifecycle.Sandbox) -> dict[str, str]:
    """Return the environment that points a Compute client at the sandbox."""
    endpoint = f"http://127.0.0.1:{sandbox.compute_port}"
    state = sandbox.state
    return {
        "FLUX_BURST_SANDBOX": sandbox.name,
        "FLUX_BURST_COMPUTE_ENDPOINT": endpoint,
        "FLUX_BURST_IAP_ENDPOINT": f"wss://127.0.0.1:{sandbox.relay_port}",
        "FLUX_BURST_IAP_CA_FILE": str(state / "ca.pem"),
        "FLUX_BURST_CONTAINER_ENDPOINT": endpoint,
        "GOOGLE_APPLICATION_CREDENTIALS": str(state / "credentials.json"),
        "GOOGLE_CLOUD_PROJECT": PROJECT,
        "FLUX_BURST_OS_LOGIN_ENDPOINT": endpoint,
        "FLUX_BURST_RESOURCE_MANAGER_ENDPOINT": endpoint,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"{endpoint}/compute/v1/",
        "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(state / "access_token"),
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_CONFIG": str(state / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }


def proxy_variables(sandbox: lifecycle.Sandbox) -> dict[str, str]:
    """Return the environment that leads a client with a fixed https endpoint into the sandbox.

    Whatever else it asks for by https is refused.
    """
    bundle, credentials = sandbox.state / "ca-bundle.pem", sandbox.state / "credentials.json"
    return {
        "HTTPS_PROXY": f"http://127.0.0.1:{sandbox.proxy_port}",
        "NO_PROXY": "127.0.0.1,localhost",
        "REQUESTS_CA_BUNDLE": str(bundle),
        "SSL_CERT_FILE": str(bundle),
        "CLOUDSDK_PROXY_TYPE": "http",
        "CLOUDSDK_PROXY_ADDRESS": "127.0.0.1",
        "CLOUDSDK_PROXY_PORT": str(sandbox.proxy_port),
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE": str(bundle),
        "GCP_AUTH_KIND": "serviceaccount",
        "GCP_SERVICE_ACCOUNT_FILE": str(credentials),
        "GCP_PROJECT": PROJECT,
    }


def env(options: argparse.Namespace) -> int:
    """Print shell exports."""
    sandbox = _running(options.name)
    wanted = variables(sandbox)
    if options.proxy:
        wanted |= proxy_variables(sandbox)
        del wanted["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"]
    for key, value in wanted.items():
        say(f"export {key}={shlex.quote(value)}")
    return 0


def logs(options: argparse.Namespace) -> int:
    """Print what a machine wrote to its serial port."""
    sandbox = _running(options.name)
    if sandbox.backend == "nspawn":
        project, name = inside.find(options.name, options.machine, options.project)
    else:
        project, name = options.project or PROJECT, options.machine
    sys.stdout.write(lifecycle.ask(sandbox, f"/sandbox/serial/{project}/{name}").decode())
    return 0


def faults(options: argparse.Namespace) -> int:
    """Say which faults Compute Engine has, or give it others."""
    sandbox = _running(options.name)
    body = None if options.rules is None else json.dumps({"faults": _rules(options.rules)}).encode()
    try:
        found = lifecycle.ask(sandbox, "/sandbox/faults", body)
    except urllib.error.HTTPError as error:
        said = json.load(error)["error"]["message"]
        raise lifecycle.SandboxError(
            f"wanted faults as in sandbox/server/faults.py: {said}"
        ) from None
    say(json.dumps(json.loads(found)["faults"], indent=2))
    return 0


def _rules(text: str) -> Any:
    """Return the rules that an argument holds, or the file that it names."""
    try:
        return json.loads(text if text.lstrip().startswith("[") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise lifecycle.SandboxError(
            f"wanted a JSON list of faults, or a file with one, found {text!r} ({error})"
        ) from None


def execute(options: argparse.Namespace) -> int:
    """Become a command in a machine."""
    preflight.check_host()
    if not options.words:
        raise inside.ExecError("wanted a command after --, found none: exec NAME -- COMMAND")
    inside.run(options.name, options.machine, options.project, options.user, options.words)


def _running(name: str) -> lifecycle.Sandbox:
    sandbox = lifecycle.load(name)
    if sandbox is None or not lifecycle.status(sandbox):
        raise lifecycle.SandboxError(
            f"wanted sandbox {name} running, found it down: python -m sandbox up --name {name}"
        )
    return sandbox


def sandbox_name(text: str) -> str:
    """Return a sandbox's name as it is, or refuse it."""
    if not paths.NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"wanted a letter, then letters, digits and hyphens, 16 at most, all small; found {text!r}"
        )
    return text


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser, for what comes before a bare --."""
    made = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="A Compute Engine on one machine, and a Flux to burst from.",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for function, text in (
        (up, "start it; a second time changes nothing"),
        (down, "remove it and all it made"),
        (status, "say what is in it"),
        (env, "print the shell exports that point any Compute client at it"),
        (logs, "print a machine's serial console"),
        (faults, "let calls of Compute Engine fail: a JSON list of rules or its file; [] ends it"),
        (execute, "run a command in a machine: exec NAME -- COMMAND"),
    ):
        word = "exec" if function is execute else function.__name__
        command = commands.add_parser(word, help=text, description=text)
        command.set_defaults(function=function)
        command.add_argument(
            "--name",
            type=sandbox_name,
            default=os.environ.get("FLUX_BURST_SANDBOX", "default"),
            help="which sandbox; several can run side by side (default: default)",
        )
        if function is up:
            command.add_argument("--backend", choices=["nspawn", "records"])
            command.add_argument("--flux", choices=["auto", "real", "standin"])
            command.add_argument("--latency", choices=["real", "none"])
            command.add_argument(
                "--lead",
                choices=["vm", "gke"],
                help="a lead that runs, or none until a MiniCluster makes one",
            )
            command.add_argument(
                "--machines",
                choices=["plain", "prepared"],
                help="prepared: the stock image has what role node_base makes, as for burst_image_prepared",
            )
        if function is env:
            command.add_argument(
                "--proxy",
                action="store_true",
                help="also lead clients with a fixed https://*.googleapis.com here; all other https is refused",
            )
        if function is status:
            command.add_argument("--json", action="store_true")
        if function is faults:
            command.add_argument("rules", metavar="RULES", nargs="?")
        if function in (logs, execute):
            command.add_argument("--project", help="where two projects have a machine of that name")
            command.add_argument("machine", metavar="NAME")
        if function is execute:
            command.add_argument("--user", default="root")
    return made


def main(words: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    words = sys.argv[1:] if words is None else words
    cut = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:cut])
    options.words = words[cut + 1 :]
    try:
        code: int = options.function(options)
    except KNOWN_ERRORS as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "sandbox: interrupted; run up again to go on, or down to remove what is there",
            file=sys.stderr,
        )
        return 130
    return code
