# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MiniCluster's pods as machines of the site: what the Flux Operator would put into their containers is in them.

They differ from the operator's in what boots: systemd starts the broker, as the user flux, where the container's
entrypoint does it.
"""

from __future__ import annotations

from sandbox.machines import FileSpec, MachineSpec
from sandbox.machines.cloudnet import SITE_SEGMENT
from sandbox.rootfs_settings import MUNGE_ID
from sandbox.server.kube.minicluster import LEAD_PORT, MiniCluster
from sandbox.site import FLUX, FLUX_UID, GATEWAY, PREFIX, PROJECT, SECURITY, SSH_USER, UNIT

VIEW = "/mnt/flux"
CONFIG = f"{VIEW}/config"
SOCKET = f"local://{CONFIG}/run/flux/local"
CURVE_CERT = f"{CONFIG}/curve/curve.cert"
BROKER = """\
[access]
allow-guest-user = true
allow-root-owner = true

# The operator names a file here that its container writes with 'flux R encode'.
[[resource.config]]
hosts = "{hosts}"
cores = "0-1"

[bootstrap]
curve_cert = "{curve_cert}"
default_port = {port}
default_bind = "tcp://eth0:%p"
default_connect = "tcp://%h.{domain}:%p"
hosts = [
  {{ host = "{hosts}" }},
]
"""
FLUX_VIEW = f"""\
#!/bin/bash
export PATH={VIEW}/view/bin:$PATH
export fluxsocket={SOCKET}
"""
FLUX_CONNECT = f"""\
#!/bin/bash
. {VIEW}/flux-view.sh
flux proxy ${{fluxsocket}} bash
"""


def pod_machine(
    mini: MiniCluster,
    index: int,
    addresses: list[str],
    certificate: str,
    munge_key: bytes,
    ssh_public_key: str,
) -> MachineSpec:
    """Return the machine of an index of a MiniCluster; addresses are those of all its indexes."""
    name = f"{mini.name}-{index}"
    broker = BROKER.format(
        hosts=mini.hostlist, curve_cert=CURVE_CERT, port=LEAD_PORT, domain=mini.domain
    )
    hosts = "".join(
        f"{address} {mini.name}-{number} {mini.name}-{number}.{mini.domain}\n"
        for number, address in enumerate(addresses)
    )
    options = [
        f"--config-path={CONFIG}/etc/flux/config",
        "-Stbon.fanout=256",
        f"-Srundir={CONFIG}/run/flux",
        f"-Sstatedir={CONFIG}/var/lib/flux",
        f"-Slocal-uri={SOCKET}",
        "-Slog-stderr-level=6",
        "-Slog-stderr-mode=local",
        "-Sbroker.rc2_none",
        # The operator waits for all its pods: a machine's systemd does not wait that long for another machine.
        "-Sbroker.quorum=1",
        "-Sbroker.exit-norestart=42",
        "-Sbroker.sd-notify=1",
    ]
    # systemd makes no directories at these places.
    unit = UNIT.format(options=" \\\n  ".join(["", *options]).strip(" "))
    made = " ".join(f"{CONFIG}/{path}" for path in ("run/flux", "var/lib/flux"))
    before = f"ExecStartPre=+/usr/bin/install -d -o flux -g flux -m 755 {made}\n"
    unit = unit.replace("ExecStart=", f"{before}ExecStart=", 1)
    cert = FileSpec(certificate.encode(), 0o600, FLUX_UID, FLUX_UID)
    files = {
        "/etc/hosts": f"127.0.0.1 localhost\n{hosts}",
        f"{CONFIG}/etc/flux/config/broker.toml": broker,
        f"{CONFIG}/etc/flux/system/hostlist": f"{mini.hostlist}\n",
        f"{VIEW}/flux-view.sh": FLUX_VIEW,
        f"{VIEW}/flux-connect.sh": FLUX_CONNECT,
        "/etc/flux/security/conf.d/security.toml": SECURITY,
        "/etc/systemd/system/flux.service": unit,
    }
    return MachineSpec(
        project=PROJECT,
        name=name,
        segment=SITE_SEGMENT,
        address=addresses[index],
        prefix=PREFIX,
        gateway=GATEWAY,
        ssh_keys=((SSH_USER, ssh_public_key),),
        files={
            CURVE_CERT: cert,
            "/etc/munge/munge.key": FileSpec(munge_key, 0o400, MUNGE_ID, MUNGE_ID),
            **{path: FileSpec(text.encode()) for path, text in files.items()},
        },
        enable=("munge.service", "flux.service"),
        accounts=(FLUX,),
    )
