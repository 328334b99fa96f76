# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MiniCluster's pods as machines of the site: what the Flux Operator would put into their containers is in them.

They differ from the operator's in what boots: systemd starts the broker, as the user flux, where the container's
entrypoint does it.
"""

from __future__ import annotations

from sandbox.machines import FileSpec, MachineSpec
from sandbox.rootfs_settings import MUNGE_ID
from sandbox.server.kube.minicluster import LEAD_PORT, MiniCluster
from sandbox.site import COMMON_OPTIONS, FLUX_UID, SECURITY, broker_machine

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
# systemd makes no directories at these places.
DIRECTORIES = f"""\
[Service]
ExecStartPre=+/usr/bin/install -d -o flux -g flux -m 755 {CONFIG}/run/flux {CONFIG}/var/lib/flux
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
        # The operator has it wait for all its pods (broker.quorum): systemd would not wait that long.
        *COMMON_OPTIONS,
    ]
    files = {
        CURVE_CERT: FileSpec(certificate.encode(), 0o600, FLUX_UID, FLUX_UID),
        "/etc/munge/munge.key": FileSpec(munge_key, 0o400, MUNGE_ID, MUNGE_ID),
    }
    texts = {
        "/etc/hosts": f"127.0.0.1 localhost\n{hosts}",
        f"{CONFIG}/etc/flux/config/broker.toml": broker,
        f"{CONFIG}/etc/flux/system/hostlist": f"{mini.hostlist}\n",
        f"{VIEW}/flux-view.sh": FLUX_VIEW,
        f"{VIEW}/flux-connect.sh": FLUX_CONNECT,
        "/etc/flux/security/conf.d/security.toml": SECURITY,
        "/etc/systemd/system/flux.service.d/directories.conf": DIRECTORIES,
    }
    return broker_machine(name, addresses[index], options, files, texts, ssh_public_key)
