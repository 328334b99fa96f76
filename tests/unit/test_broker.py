# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a broker and its unit say is read as what it means."""

from __future__ import annotations

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _broker, _units
from ansible_collections.flux.burst.plugins.module_utils._errors import BurstError

SHOWN = """LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
StatusText=Running as member of 5 node Flux instance
Result=success
ExecMainStatus=0
NRestarts=1
"""


def test_a_unit_is_what_systemctl_shows() -> None:
    unit = _units.parse("flux.service", SHOWN)
    assert unit.loaded and unit.enabled
    assert (unit.active, unit.sub, unit.restarts, unit.exit_code) == ("active", "running", 1, 0)
    assert unit.status_text == "Running as member of 5 node Flux instance"


def test_a_unit_that_is_not_there_is_not_loaded() -> None:
    unit = _units.parse("flux.service", "LoadState=not-found\nActiveState=inactive\n")
    assert not unit.loaded and not unit.enabled


@pytest.mark.parametrize(
    ("line", "stage"),
    [
        (
            "Error loading certificate: /etc/flux/system/curve.cert: readable by group/other",
            "certificate",
        ),
        ("Config file error [bootstrap]: curve_cert must be defined for size > 1", "certificate"),
        ("Config file error [bootstrap]: gffw-1 not found in hosts", "hostname"),
        ("Config file error: /etc/x.toml:36: invalid or missing key", "configuration"),
        ("error reranking R: Number of hosts (4) is less than node count (5)", "resources"),
        ("flux_security_configure: pattern ... matched nothing", "security"),
        ("overlay.hello: Invalid argument", "overlay"),
        ("client (0.87.0) version mismatched with server (0.88.0)", "overlay"),
        ("something else", "broker"),
    ],
)
def test_a_log_line_of_flux_names_its_stage(line: str, stage: str) -> None:
    assert _broker.stage_of(["rc1 began", line]) == stage


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("commands: 0.88.0-59-g4a5e79f56", "0.88"), ("0.88.0", "0.88"), ("none", "")],
)
def test_the_version_that_counts_is_major_and_minor(text: str, wanted: str) -> None:
    assert _broker.major_minor(text) == wanted


def test_another_hostname_fails_at_the_base_before_anything_else() -> None:
    base = _broker.Base("not-this-host", "root", 0, 0, "0.88.0", "/usr/libexec/flux/flux-imp")
    with pytest.raises(BurstError, match="stage base: wanted the kernel's hostname not-this-host"):
        _broker.check_base(base)
