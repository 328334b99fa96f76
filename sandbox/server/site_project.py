# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's machines as instances of a project of their own, so that the relay reaches them."""

from __future__ import annotations

import ipaddress

from sandbox.machines import IAP_ADDRESS, MachineSpec
from sandbox.server import catalog
from sandbox.server.state import Cloud, Key, Resource, fingerprint, now

PROJECT, ZONE, REGION, NETWORK = catalog.SITE_PROJECT, "us-central1-a", "us-central1", "site"
IAP_RANGE = "35.235.240.0/20"


def register(cloud: Cloud, specs: list[MachineSpec]) -> None:
    """Write down the site's network, its firewall and its machines, which are yet to boot."""
    if not specs:
        return
    assert ipaddress.ip_address(IAP_ADDRESS) in ipaddress.ip_network(IAP_RANGE)
    network = Key(PROJECT, "global", "networks", NETWORK)
    if cloud.find(network) is None:
        _network(cloud, network, specs[0])
    for spec in specs:
        _instance(cloud, spec, network)


def _network(cloud: Cloud, network: Key, spec: MachineSpec) -> None:
    subnetwork = Key(PROJECT, f"regions/{REGION}", "subnetworks", NETWORK)
    firewall = Key(PROJECT, "global", "firewalls", f"{NETWORK}-allow-iap-ssh")
    fields: Resource = {"autoCreateSubnetworks": False, "subnetworks": [subnetwork.link]}
    cloud.put(network, cloud.new(network, "network", fields))
    cidr = ipaddress.ip_network(f"{spec.address}/{spec.prefix}", strict=False)
    fields = {
        "network": network.link,
        "ipCidrRange": str(cidr),
        "gatewayAddress": spec.gateway,
        "region": f"{catalog.BASE}/projects/{PROJECT}/regions/{REGION}",
    }
    cloud.put(subnetwork, cloud.new(subnetwork, "subnetwork", fields))
    fields = {
        "network": network.link,
        "direction": "INGRESS",
        "priority": 1000,
        "disabled": False,
        "sourceRanges": [IAP_RANGE],
        "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
    }
    cloud.put(firewall, cloud.new(firewall, "firewall", fields))


def _instance(cloud: Cloud, spec: MachineSpec, network: Key) -> None:
    subnetwork = Key(PROJECT, f"regions/{REGION}", "subnetworks", NETWORK)
    zone = f"{catalog.BASE}/projects/{PROJECT}/zones/{ZONE}"
    keys = "\n".join(f"{user}:{key}" for user, key in spec.ssh_keys)
    items = [
        {"key": "enable-guest-attributes", "value": "TRUE"},
        {"key": "ssh-keys", "value": keys},
    ]
    nic = {
        "kind": "compute#networkInterface",
        "name": "nic0",
        "network": network.link,
        "subnetwork": subnetwork.link,
        "networkIP": spec.address,
    }
    fields: Resource = {
        "zone": zone,
        "status": "STAGING",
        "machineType": f"{zone}/machineTypes/n2-standard-2",
        "deletionProtection": True,
        "networkInterfaces": [nic],
        "metadata": {
            "kind": "compute#metadata",
            "items": items,
            "fingerprint": fingerprint(items),
        },
        "labelFingerprint": fingerprint({}),
        "tags": {"fingerprint": fingerprint([])},
    }
    key = _key(spec.name)
    cloud.put(key, cloud.new(key, "instance", fields))


def _key(name: str) -> Key:
    return Key(PROJECT, f"zones/{ZONE}", "instances", name)


def has(cloud: Cloud, name: str) -> bool:
    """Return whether there is a machine of that name."""
    return cloud.find(_key(name)) is not None


def addresses(cloud: Cloud) -> set[str]:
    """Return the addresses of the site's machines."""
    every = cloud.table(PROJECT, "instances").values()
    return {instance["networkInterfaces"][0]["networkIP"] for instance in every}


def unregister(cloud: Cloud, name: str) -> None:
    """Forget a machine that is gone. Idempotent."""
    cloud.remove(_key(name))


def running(cloud: Cloud) -> None:
    """Write down that the site's machines run."""
    for instance in cloud.table(PROJECT, "instances").values():
        if instance["status"] != "RUNNING":
            instance.update(status="RUNNING", lastStartTimestamp=now())
