# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster that is there before a burst: the lead broker and one worker, behind a NAT port.

Its secrets are made here, for this sandbox only, and go from memory into the machines.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import zmq

from sandbox.machines import Account, FileSpec, MachineSpec
from sandbox.machines.cloudnet import SITE_SEGMENT
from sandbox.rootfs_settings import MUNGE_ID

PROJECT = "sandbox-site"
SSH_USER = "burst"
LEAD = "flux-sample-0"
WORKER = "flux-sample-1"
ADDRESSES = {LEAD: "10.77.0.10", WORKER: "10.77.0.11"}
GATEWAY, PREFIX = "10.77.0.1", 24
BURSTABLE = "gffw-compute-a-[001-003]"
FLUX_UID = 1004
FLUX = Account("flux", FLUX_UID, "/var/lib/flux")

SYSTEM = f"""\
[exec]
imp = "/usr/libexec/flux/flux-imp"

[access]
allow-guest-user = true
allow-root-owner = true

# A host's rank is its place in this list. What a burst may add is declared beforehand: the list cannot grow
# while Flux runs.
[bootstrap]
curve_cert = "/etc/flux/system/curve.cert"
default_port = 8050
default_bind = "tcp://eth0:%p"
default_connect = "tcp://%h:%p"
hosts = [
  {{ host = "{LEAD}", bind = "tcp://eth0:8050", connect = "tcp://{ADDRESSES[LEAD]}:8050" }},
  {{ host = "{WORKER}" }},
  {{ host = "{BURSTABLE}" }},
]

# A machine that vanishes without a word is noticed after this time.
[tbon]
tcp_user_timeout = "20s"
"""

# Rank 0 alone says what there is; with a table of its own, a worker must have the very same one.
RESOURCES = f"""
[resource]
exclude = "{LEAD}"

[[resource.config]]
hosts = "flux-sample-[0-1],{BURSTABLE}"
cores = "0-1"

[[resource.config]]
hosts = "{BURSTABLE}"
properties = ["burst"]

[ingest.validator]
plugins = ["jobspec", "feasibility"]
"""

SECURITY = """\
[sign]
max-ttl = 1209600
default-type = "munge"
allowed-types = ["munge"]
"""

IMP = """\
[exec]
allowed-users = ["flux"]
allowed-shells = ["/usr/libexec/flux/flux-shell"]
"""

POLICIES = {
    "/etc/flux/security/conf.d/security.toml": FileSpec(SECURITY.encode()),
    "/etc/flux/imp/conf.d/imp.toml": FileSpec(IMP.encode()),
}
"""What a machine has on which role node_base was applied, beside the user FLUX."""

LEAD_OPTIONS = (
    "-Sstatedir=/var/lib/flux",
    "-Scontent.restore=auto",
    "-Scontent.dump=auto",
    "-Sbroker.quorum-warn=none",
)

UNIT = """\
[Unit]
Description=Flux message broker
Wants=munge.service network-online.target
After=munge.service network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/flux broker {options}
SyslogIdentifier=flux
User=flux
Group=flux
RuntimeDirectory=flux
RuntimeDirectoryMode=0755
StateDirectory=flux
StateDirectoryMode=0755
KillMode=mixed
TimeoutStopSec=90
Restart=always
RestartSec=5s
RestartPreventExitStatus=42
SuccessExitStatus=42
Delegate=yes

[Install]
WantedBy=multi-user.target
"""

# Whatever the broker is for. It runs without waiting for other machines, which come when they come.
COMMON_OPTIONS = (
    "-Slog-stderr-level=6",
    "-Slog-stderr-mode=local",
    "-Sbroker.rc2_none",
    "-Sbroker.quorum=1",
    "-Sbroker.exit-norestart=42",
    "-Sbroker.sd-notify=1",
)
BROKER_OPTIONS = (
    "--config-path=/etc/flux/system/conf.d",
    "-Srundir=/run/flux",
    "-Slocal-uri=local:///run/flux/local",
    *COMMON_OPTIONS,
)


def complete(resources: str) -> bool:
    """Return whether the output of `flux resource list` on the lead shows the worker free."""
    rows = [line.split() for line in resources.splitlines()]
    return any(row[0] == "free" and row[-1] == WORKER for row in rows if row)


def curve_certificate(name: str) -> bytes:
    """Return a new CURVE key pair in ZeroMQ's certificate format, as `flux keygen` writes it.

    Flux refuses a whole certificate for an underscore or another unusual character in its name.
    """
    public, secret = (key.decode("ascii") for key in zmq.curve_keypair())
    return (
        "#  ZeroMQ CURVE **Secret** Certificate\n#  DO NOT DISTRIBUTE\n\n"
        f'metadata\n    name = "{name}"\n'
        f'curve\n    public-key = "{public}"\n    secret-key = "{secret}"\n'
    ).encode()


def site_machines(state: Path, flux: str, ssh_public_key: str) -> list[MachineSpec]:
    """Return the lead and the worker of a new site, with new secrets.

    Nothing is written to state, the sandbox's directory; flux is "real" or "standin", and both read
    the same files; ssh_public_key is one line of an authorized_keys file.
    """
    shared = {
        "/etc/flux/system/curve.cert": FileSpec(
            curve_certificate("sandbox"), 0o600, FLUX_UID, FLUX_UID
        ),
        "/etc/munge/munge.key": FileSpec(secrets.token_bytes(128), 0o400, MUNGE_ID, MUNGE_ID),
        **POLICIES,
    }
    return [_machine(name, shared, ssh_public_key) for name in ADDRESSES]


def _machine(name: str, shared: dict[str, FileSpec], ssh_public_key: str) -> MachineSpec:
    options = [*BROKER_OPTIONS, *(LEAD_OPTIONS if name == LEAD else ())]
    hosts = "".join(f"{address} {host}\n" for host, address in ADDRESSES.items())
    texts = {
        "/etc/hosts": f"127.0.0.1 localhost\n{hosts}",
        "/etc/flux/system/conf.d/system.toml": SYSTEM + (RESOURCES if name == LEAD else ""),
    }
    return broker_machine(name, ADDRESSES[name], options, shared, texts, ssh_public_key)


def broker_machine(
    name: str,
    address: str,
    options: list[str],
    files: dict[str, FileSpec],
    texts: dict[str, str],
    ssh_public_key: str,
) -> MachineSpec:
    """Return a machine of the site whose systemd runs a broker with these options; everybody may read texts."""
    unit = UNIT.format(options=" \\\n  ".join(["", *options]).strip(" "))
    texts = {**texts, "/etc/systemd/system/flux.service": unit}
    return MachineSpec(
        project=PROJECT,
        name=name,
        segment=SITE_SEGMENT,
        address=address,
        prefix=PREFIX,
        gateway=GATEWAY,
        ssh_keys=((SSH_USER, ssh_public_key),),
        files={**files, **{path: FileSpec(text.encode()) for path, text in texts.items()}},
        enable=("munge.service", "flux.service"),
        accounts=(FLUX,),
    )
