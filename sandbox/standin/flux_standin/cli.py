# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The flux command, as far as a burst and its user need it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from . import VERSION, execute_on, lists, show
from .local import Client

SECURITY_VERSION = "0.15.0"
BUILTIN = {
    "exec_path": "/usr/libexec/flux/cmd",
    "module_path": "/usr/lib/flux/modules",
    "confdir": "/etc/flux",
}
POLL = 0.1


def main(words: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] == ["broker"]:
        return _broker(words[1:])
    if words[:1] in (["--version"], ["version"], ["-V"]):
        print(f"commands:    \t\t{VERSION}\nlibflux-core:\t\t{VERSION} (the sandbox's stand-in)")
        print(f"libflux-security:\t{SECURITY_VERSION}")
        return 0
    if words[:2] == ["config", "builtin"]:
        print(BUILTIN.get(words[2], ""))
        return 0 if words[2] in BUILTIN else 1
    if words[:2] == ["env", "printenv"]:
        print(Path(__file__).resolve().parent.parent if words[2:] == ["PYTHONPATH"] else "")
        return 0
    options = _parser().parse_args(words)
    try:
        code: int = options.function(options)
    except OSError as error:
        print(f"flux-{words[0]}: {error.strerror}", file=sys.stderr)
        return 1
    return code


def _broker(words: list[str]) -> int:
    from . import broker

    options: dict[str, str] = {}
    folder = Path("/etc/flux/system/conf.d")
    rest = iter(words)
    for word in rest:
        if word.startswith("-S"):
            key, _unused, value = word[2:].partition("=")
            options[key] = value
        elif word.startswith("--config-path="):
            folder = Path(word.partition("=")[2])
        elif word == "-c":
            folder = Path(next(rest))
    return broker.main(folder, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flux", description="The sandbox's stand-in for Flux.")
    commands = parser.add_subparsers(required=True)

    def command(name: str, function: Any, under: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = under.add_parser(name)
        made.set_defaults(function=function)
        return made

    for name, function in (("submit", _submit), ("run", _run)):
        job = command(name, function)
        job.add_argument("-N", "--nodes", type=int, default=0)
        job.add_argument("-n", "--ntasks", type=int, default=1)
        job.add_argument("-c", "--cores-per-task", type=int, default=1)
        job.add_argument("--cwd", default=os.getcwd())
        job.add_argument("--setattr", action="append", default=[])
        job.add_argument("--urgency", default="16")
        job.add_argument("--job-name", default="")
        job.add_argument("command", nargs=argparse.REMAINDER)
    jobs = command("jobs", show.jobs)
    jobs.add_argument("-a", action="store_true")
    jobs.add_argument("-n", "--no-header", action="store_true")
    jobs.add_argument("-o", "--format", default="")
    execute = command("exec", execute_on.main)
    execute.add_argument("-l", "--label-io", action="store_true")
    execute.add_argument("-r", "--rank", default="all")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    job_commands = commands.add_parser("job").add_subparsers(required=True)
    command("attach", _attach, job_commands).add_argument("id")
    command("last", _last, job_commands)
    command("cancel", _cancel).add_argument("ids", nargs="+")
    command("getattr", _getattr).add_argument("name")
    resource = commands.add_parser("resource").add_subparsers(required=True)
    command("list", _resource_list, resource)
    drain = command("drain", _drain, resource)
    drain.add_argument("targets", nargs="?")
    drain.add_argument("reason", nargs="*")
    command("undrain", _undrain, resource).add_argument("targets")
    return parser


def _jobspec(options: argparse.Namespace) -> str:
    core = {"type": "core", "count": options.cores_per_task}
    slot: dict[str, Any] = {"type": "slot", "count": 1, "with": [core], "label": "task"}
    if options.nodes:
        resource = {"type": "node", "count": options.nodes, "exclusive": True, "with": [slot]}
    else:
        resource = {**slot, "count": options.ntasks}
    system: dict[str, Any] = {"duration": 0, "cwd": options.cwd}
    if options.job_name:
        system["job"] = {"name": options.job_name}
    for given in options.setattr:
        key, _unused, value = given.partition("=")
        try:
            system[key] = json.loads(value) if value else 1
        except ValueError:
            system[key] = value
    tasks = [{"command": options.command, "slot": "task", "count": {"per_slot": 1}}]
    return json.dumps(
        {"resources": [resource], "tasks": tasks, "attributes": {"system": system}, "version": 1}
    )


def _take(options: argparse.Namespace, client: Client) -> int:
    named = {"hold": 0, "expedite": 31, "default": 16}
    urgency = named.get(options.urgency)
    payload = {
        "jobspec": _jobspec(options),
        "urgency": int(options.urgency) if urgency is None else urgency,
    }
    try:
        return int((client.ask("standin.submit", payload) or {})["id"])
    except OSError as error:
        raise OSError(error.errno, f"[Errno {error.errno}] {error.strerror}") from None


def _submit(options: argparse.Namespace) -> int:
    print(lists.f58(_take(options, Client())))
    return 0


def _run(options: argparse.Namespace) -> int:
    client = Client()
    return _follow(client, _take(options, client))


def _attach(options: argparse.Namespace) -> int:
    return _follow(Client(), lists.job_id(options.id))


def _follow(client: Client, number: int) -> int:
    """Wait for a job's end and print its output; return its exit code."""
    while True:
        job = client.ask("standin.job", {"id": number}) or {}
        if job["state"] == 64:
            sys.stdout.write(job["output"])
            if job["status"]:
                said = f"task(s) exited with exit code {job['status']}"
                print(f"flux-job: {said}", file=sys.stderr)
            return int(job["status"])
        time.sleep(POLL)


def _last(options: argparse.Namespace) -> int:
    jobs = sorted(show.listed(Client()), key=lambda row: -row["id"])
    if not jobs:
        print("flux-job: job history is empty", file=sys.stderr)
        return 1
    print(lists.f58(jobs[0]["id"]))
    return 0


def _cancel(options: argparse.Namespace) -> int:
    client = Client()
    for text in options.ids:
        client.ask("standin.cancel", {"id": lists.job_id(text)})
    return 0


def _getattr(options: argparse.Namespace) -> int:
    print((Client().ask("attr.get", {"name": options.name}) or {})["value"])
    return 0


def _resource_list(options: argparse.Namespace) -> int:
    client = Client()
    status = client.ask("resource.status") or {}
    allocated = (client.ask("resource.sched-status") or {})["allocated"]["execution"]["R_lite"]
    busy = {rank for entry in allocated for rank in lists.ids(entry["rank"])}
    execution = status["R"]["execution"]
    cores = {
        rank: len(lists.ids(entry["children"]["core"]))
        for entry in execution["R_lite"]
        for rank in lists.ids(entry["rank"])
    }
    hosts = dict(zip(sorted(cores), lists.expand(execution["nodelist"][0]), strict=True))
    away = set(lists.ids(status["offline"])) | {int(rank) for rank in status["drain"]}
    gone = set(lists.ids(status["exclude"]))
    tags = {name: set(lists.ids(text)) for name, text in execution.get("properties", {}).items()}
    rows: dict[tuple[str, str], list[int]] = {
        ("free", ""): [],
        ("allocated", ""): [],
        ("down", ""): [],
    }
    for rank in sorted(set(cores) - gone):
        state = "down" if rank in away else "allocated" if rank in busy else "free"
        names = ",".join(name for name, ranks in tags.items() if rank in ranks)
        rows.setdefault((state, names), []).append(rank)
    print(f"{'STATE':>10} {'PROPERTIES':<10} {'NNODES':>6} {'NCORES':>6} {'NGPUS':>5} NODELIST")
    for state in ("free", "allocated", "down"):
        mine = {names: ranks for (which, names), ranks in rows.items() if which == state}
        shown = {names: ranks for names, ranks in mine.items() if ranks} or {"": []}
        for names, ranks in shown.items():
            total = sum(cores[rank] for rank in ranks)
            nodes = lists.fold(hosts[rank] for rank in ranks)
            print(f"{state:>10} {names:<10} {len(ranks):>6} {total:>6} {0:>5} {nodes}")
    return 0


def _drain(options: argparse.Namespace) -> int:
    client = Client()
    if options.targets:
        reason = " ".join(options.reason)
        client.ask("resource.drain", {"targets": options.targets, "reason": reason})
        return 0
    status = client.ask("resource.status") or {}
    hosts = lists.expand(status["R"]["execution"]["nodelist"][0])
    print(f"{'TIME':<12} {'STATE':<8} {'REASON':<30} NODELIST")
    for ranks, drain in status["drain"].items():
        names = lists.fold(hosts[rank] for rank in lists.ids(ranks))
        when = time.strftime("%b%d %R", time.localtime(drain["timestamp"]))
        print(f"{when:<12} {'drained':<8} {drain['reason']:<30} {names}")
    return 0


def _undrain(options: argparse.Namespace) -> int:
    Client().ask("resource.undrain", {"targets": options.targets})
    return 0
