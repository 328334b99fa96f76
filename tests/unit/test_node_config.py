# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bursted machine gets the lead's configuration, with the lead's address as it sees it, as TOML that parses."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.flux.burst.plugins.filter.overlay_hosts import overlay_hosts

TEMPLATE = Path(__file__).resolve().parents[2] / "roles/node/templates/system.toml.j2"
LEAD: dict[str, Any] = {
    "access": {"allow-guest-user": True},
    "exec": {"imp": "/usr/libexec/flux/flux-imp"},
    "bootstrap": {
        "curve_cert": "/etc/flux/system/curve.cert",
        "default_port": 8050,
        "hosts": [
            {"host": "lead", "bind": "tcp://eth0:8050", "connect": "tcp://10.77.0.10:8050"},
            {"host": "b-[1-2]"},
            {"host": "b-3", "parent": "b-1"},
        ],
    },
    "resource": {"exclude": "lead", "config": [{"hosts": "lead", "cores": "0-1"}]},
    "ingest": {"validator": {"plugins": ["jobspec"]}},
}


def rendered(config: dict[str, Any], port: Any = 30093, **changed: str) -> dict[str, Any]:
    variables = {
        "node_config": config,
        "node_lead_address": "203.0.113.10",
        "node_lead_port": port,
        "node_gateway": "",
        "node_gateway_address": "",
        **changed,
    }
    templar = Templar(DataLoader(), variables={**variables, "ansible_managed": "managed"})
    # Unit tests have no collection loader, which would find it.
    templar.environment.filters["flux.burst.overlay_hosts"] = overlay_hosts
    return tomllib.loads(templar.template(trust_as_template(TEMPLATE.read_text())))


def test_only_the_lead_s_address_differs_and_there_are_no_resources() -> None:
    made = rendered(LEAD)
    hosts = LEAD["bootstrap"]["hosts"]
    assert made["bootstrap"]["hosts"] == [
        {**hosts[0], "connect": "tcp://203.0.113.10:30093"},
        *hosts[1:],
    ]
    assert {**made["bootstrap"], "hosts": hosts} == LEAD["bootstrap"]
    assert set(made) == {"access", "exec", "tbon", "bootstrap"}
    assert (made["access"], made["exec"]) == (LEAD["access"], LEAD["exec"])


@pytest.mark.parametrize("port", [None, 8051])
def test_a_gateway_listens_at_its_own_address_and_the_lead_s_default_port(port: int | None) -> None:
    bootstrap = {**LEAD["bootstrap"], "hosts": [{"host": "lead"}, {"host": "b-1"}]}
    bootstrap["hosts"].append({"host": "b-[2-3]", "parent": "b-1"})
    del bootstrap["default_port"]
    config = {**LEAD, "bootstrap": {**bootstrap, **({"default_port": port} if port else {})}}
    made = rendered(config, node_gateway="b-1", node_gateway_address="10.10.0.6")
    here = f"tcp://10.10.0.6:{port or 8050}"
    assert made["bootstrap"]["hosts"] == [
        {"host": "lead", "connect": "tcp://203.0.113.10:30093"},
        {"host": "b-1", "bind": here, "connect": here},
        bootstrap["hosts"][2],
    ]


def test_a_lead_that_is_gone_is_noticed_though_the_lead_s_configuration_does_not_say_when() -> None:
    assert rendered(LEAD)["tbon"] == {"tcp_user_timeout": "20s"}
    assert rendered({**LEAD, "tbon": {"torpid_max": "30s"}})["tbon"] == {
        "torpid_max": "30s",
        "tcp_user_timeout": "20s",
    }
    assert rendered({**LEAD, "tbon": {"tcp_user_timeout": "9s"}})["tbon"] == {
        "tcp_user_timeout": "9s"
    }


def test_a_port_from_the_command_line_is_a_text_and_does_as_well() -> None:
    assert rendered(LEAD, "31")["bootstrap"]["hosts"][0]["connect"] == "tcp://203.0.113.10:31"
