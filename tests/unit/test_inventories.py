# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sample inventories that a site copies are whole and right as they stand."""

from __future__ import annotations

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.flux.burst.plugins.module_utils._spec import specification
from documented import TOP, entry_points, role_options

SITES = ["onprem", "vm"]


@pytest.mark.parametrize("site", SITES)
def test_an_inventory_shows_the_whole_specification_and_it_is_right(site: str) -> None:
    path = f"inventory/{site}/group_vars/all.yml"
    shown = yaml.safe_load((TOP / path).read_text())
    missing = [name for name in role_options("burst") if name not in shown]
    assert missing == [], f"{path}: show {', '.join(missing)}"
    # Raises for what the role has not, and for what is wrong.
    made = specification(shown, role_options("burst"))
    assert made["burst_project"] == "my-project"
    for name, option in role_options("burst").items():
        if name.endswith("_endpoint"):
            assert shown[name] == option["default"]


@pytest.mark.parametrize("site", SITES)
def test_an_inventory_shows_how_the_lead_may_be_changed(site: str) -> None:
    path = TOP / f"inventory/{site}/group_vars/lead_cluster.yml"
    options = entry_points("lead")["manage"]
    assert yaml.safe_load(path.read_text()) == {
        name: option["default"] for name, option in options.items() if name != "lead_uri"
    }


@pytest.mark.parametrize("site", SITES)
def test_an_inventory_names_one_lead_and_finds_the_machines_as_the_sandbox_s_does(
    site: str,
) -> None:
    folder = TOP / "inventory" / site
    found = InventoryManager(DataLoader(), [str(folder / "hosts.yml")]).get_groups_dict()
    assert len(found["flux_lead"]) == 1
    assert set(found["lead_cluster"]) == {*found["flux_lead"], *found["flux_lead_workers"]}
    machines = (TOP / "inventory/sandbox/gce.yml").read_text()
    assert (folder / "gce.yml").read_text() == machines


@pytest.mark.parametrize("site", SITES)
def test_an_inventory_has_a_page(site: str) -> None:
    assert f"inventory/{site}" in (TOP / f"docs/lead-{site}.md").read_text()
