# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong in a specification is said at once, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError
from ansible_collections.flux.burst.plugins.module_utils._spec import CHECKS, seconds, specification

TOP = Path(__file__).resolve().parents[2]
SPECS = yaml.safe_load((TOP / "roles/burst/meta/argument_specs.yml").read_text())
OPTIONS = SPECS["argument_specs"]["main"]["options"]


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    key = tmp_path / "key"
    key.write_text("")
    (tmp_path / "key.pub").write_text("")
    return {
        "burst_project": "my-project",
        "burst_zones": ["us-central1-a"],
        "burst_hostlist": "gffw-compute-a-[001-003]",
        "burst_machine_types": ["n2-standard-4"],
        "burst_image": "projects/my-project/global/images/family/flux",
        "burst_lead_address": "203.0.113.10",
        "burst_ssh_private_key_file": str(key),
    }


def problems(given: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        specification(given, OPTIONS)
    return str(caught.value).splitlines()


def test_a_good_specification_gets_defaults_types_and_its_region(good: dict[str, Any]) -> None:
    made = specification({**good, "burst_lead_port": "30093"}, OPTIONS)
    assert made["burst_lead_port"] == 30093
    assert made["burst_region"] == "us-central1"
    assert made["burst_max_run_duration"] == "4h"
    assert made["burst_max_run_seconds"] == 14400
    assert made["burst_credentials_file"] is None
    derived = {"burst_region", "burst_max_run_seconds", "burst_own_key", "burst_gateway"}
    assert set(made) == {*OPTIONS, *derived}


@pytest.mark.parametrize(("topology", "gateway"), [("flat", ""), ("gateway", "gffw-compute-a-007")])
def test_the_first_host_of_the_list_is_the_gateway_where_one_is_asked_for(
    good: dict[str, Any], topology: str, gateway: str
) -> None:
    hostlist = "gffw-compute-a-[007,001-003]"
    made = specification({**good, "burst_topology": topology, "burst_hostlist": hostlist}, OPTIONS)
    assert made["burst_gateway"] == gateway


def test_a_burst_without_a_key_has_one_of_its_own(good: dict[str, Any]) -> None:
    given = good.pop("burst_ssh_private_key_file")
    made = specification({**good, "burst_directory": "/bursts"}, OPTIONS)
    assert made["burst_own_key"]
    assert made["burst_ssh_private_key_file"] == "/bursts/flux-burst/ssh_key"
    made = specification({**good, "burst_ssh_private_key_file": given}, OPTIONS)
    assert not made["burst_own_key"]
    assert made["burst_ssh_private_key_file"] == given


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(None, "/bursts/_diagnostics"), ("/elsewhere", "/elsewhere"), ("", "")],
)
def test_diagnostics_are_beside_the_bursts_or_elsewhere_or_nowhere(
    good: dict[str, Any], given: str | None, wanted: str
) -> None:
    given_all = {**good, "burst_directory": "/bursts", "burst_diagnostics_directory": given}
    assert specification(given_all, OPTIONS)["burst_diagnostics_directory"] == wanted


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("burst_name", "My_Burst", "lower case letters"),
        ("burst_name", "a" * 41, "at most 40"),
        ("burst_name", "all", "not 'all'"),
        ("burst_foundation", "My_Net", "lower case letters"),
        ("burst_nat_addresses", 51, "0 to 50"),
        ("burst_subnetwork", "regions/r/subnetworks/a", "a name or projects/"),
        ("burst_network", "projects/p/networks/a", "a name or projects/"),
        ("burst_network", "vpc", "burst_subnetwork beside it"),
        ("burst_project", "p", "a project id"),
        ("burst_zones", ["us-central1"], "zones such as"),
        ("burst_zones", ["us-central1-a", "us-east1-b"], "zones of one region"),
        ("burst_zones", [], "zones of one region"),
        ("burst_sizing", "many", "all, widest or cap"),
        ("burst_on_failure", "stop", "keep, delete or keep_joined"),
        ("burst_diagnostics_directory", " ", "a path"),
        ("burst_job_queues", {"batch": 1}, "a list"),
        ("burst_job_min_age", -1, "0 to"),
        ("burst_prices", {"n2-standard-4": "cheap"}, "the price of an hour as a number"),
        ("burst_release_idle", -1, "0 to"),
        ("burst_hostlist", "a-[001-", "a Flux hostlist"),
        ("burst_hostlist", "Node-[1-2]", "names that Compute Engine takes"),
        ("burst_hostlist", "node-1.example.org", "names that Compute Engine takes"),
        ("burst_max_hosts", -1, "0 to 5000"),
        ("burst_max_hosts", True, "a whole number"),
        ("burst_lead_port", "http", "a whole number"),
        ("burst_lead_port", 70000, "1 to 65535"),
        ("burst_image_prepared", "perhaps", "true or false"),
        ("burst_labels", "a=b", "a mapping"),
        ("burst_labels", {"Team": "x"}, "labels of lower case"),
        ("burst_labels", {"flux-burst": "x"}, "beside our own"),
        ("burst_max_run_duration", "4 hours", "from 30s to 120d"),
        ("burst_max_run_duration", "10s", "from 30s to 120d"),
        ("burst_subnet_cidr", "10.10.0.1/24", "an IPv4 range"),
        ("burst_subnet_cidr", "10.10.0.0/31", "from /8 to /29"),
        ("burst_lead_address", "203.0.113.10:8050", "an IPv4 address or a host name"),
        ("burst_image", "debian-12", "projects/PROJECT/global/images"),
        ("burst_machine_types", ["N2 standard"], "machine types"),
        ("burst_tags", ["Flux"], "network tags"),
        ("burst_service_account", "nodes", "the e-mail of a service account"),
        ("burst_accelerator_count", 0, "1 to 16"),
        ("burst_os_login_account", "a@b.iam.gserviceaccount.com", "burst_os_login beside it"),
        ("burst_ssh_via", "vpn", "iap, gateway, internal or external"),
        ("burst_ssh_source_ranges", ["10.0.0.0/33"], "IPv4 ranges such as"),
        ("burst_ssh_source_ranges", ["10.0.0.0/8"], "none beside burst_ssh_via=iap"),
        ("burst_ssh_private_key_file", "/nowhere/key", "a file, found none at /nowhere/key"),
        ("burst_credentials_file", "/nowhere/c.json", "a file, found none at /nowhere/c.json"),
        ("burst_compute_endpoint", "localhost", "a URL"),
        ("burst_ssh_user", "Burst User", "a user name"),
        ("burst_impersonate_service_account", "robot", "the e-mail address of a service account"),
        ("burst_shared_home_packages", {"nfs-utils": 1}, "a list"),
        ("burst_shared_home", "nfs", "none, export or server"),
        ("burst_shared_home_server", "nfs:/home", "an IP address or a host name"),
        ("burst_shared_home_export", "home", "an absolute path"),
        ("burst_shared_home_path", "/shared home", "an absolute path of letters"),
        ("burst_shared_home_options", ["hard,noatime"], "mount options"),
        ("burst_shared_home_clients", ["10.10.0.0/24(rw)"], "networks or host names"),
        ("burst_flux_source", "conda", "preinstalled, packages or downloads"),
        ("burst_flux_packages", ["flux-core"], "burst_flux_source packages beside it"),
        ("burst_flux_downloads", ["https://a.b/flux.deb"], "a list"),
        ("burst_project", "", "a text"),
    ],
)
def test_a_bad_value_is_one_line_with_its_name(
    good: dict[str, Any], name: str, value: Any, wanted: str
) -> None:
    lines = problems({**good, name: value})
    assert len(lines) == 1
    assert lines[0].startswith(f"{name}: wanted ")
    assert wanted in lines[0]
    assert "found" in lines[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("burst_subnetwork", [1]),
        ("burst_credentials_file", "9" * 5000),
        ("burst_credentials_file", "~nobody-here/key"),
        ("burst_credentials_file", "a\0b"),
        ("burst_credentials_file", "/tmp/a\nburst_zones: fine\x1b[2J"),
    ],
)
def test_no_value_is_a_traceback_nor_a_line_of_its_own(
    good: dict[str, Any], name: str, value: Any
) -> None:
    [line] = problems({**good, name: value})
    assert line.startswith(f"{name}: wanted ")
    assert line.isprintable()
    assert len(line) <= 1000


def test_everything_that_is_wrong_is_said_at_once(good: dict[str, Any]) -> None:
    del good["burst_zones"]
    lines = problems({**good, "burst_machine_typ": "x", "burst_lead_port": 0})
    assert lines == [
        "burst_machine_typ: wanted a variable of the specification, found an unknown one; "
        "did you mean burst_machine_types?",
        "burst_zones: wanted a list, found it unset",
        "burst_lead_port: wanted 1 to 65535, found 0",
    ]


@pytest.mark.parametrize("via", ["internal", "external"])
def test_plain_ssh_needs_to_know_from_where_it_comes(good: dict[str, Any], via: str) -> None:
    assert problems({**good, "burst_ssh_via": via}) == [
        "burst_ssh_source_ranges: wanted the controller's address, such as 203.0.113.7/32, beside "
        f"burst_ssh_via={via}, found none"
    ]
    given = {"burst_ssh_via": via, "burst_ssh_source_ranges": "203.0.113.7/32,10.0.0.0/8"}
    made = specification({**good, **given}, OPTIONS)
    assert made["burst_ssh_source_ranges"] == ["203.0.113.7/32", "10.0.0.0/8"]


def test_a_subnetwork_must_hold_every_machine(good: dict[str, Any]) -> None:
    lines = problems({**good, "burst_hostlist": "a-[1-9]", "burst_subnet_cidr": "10.0.0.0/29"})
    assert lines == ["burst_subnet_cidr: wanted addresses for 9 machines, found 4 in 10.0.0.0/29"]


def test_a_subnetwork_that_exists_is_measured_where_it_is_read(good: dict[str, Any]) -> None:
    small = {"burst_hostlist": "a-[1-9]", "burst_subnet_cidr": "10.0.0.0/29"}
    path = "projects/my-host/regions/us-central1/subnetworks/hpc"
    made = specification({**good, **small, "burst_subnetwork": path}, OPTIONS)
    assert made["burst_subnetwork"] == path


def test_what_is_wrong_together_is_said_with_the_rest(good: dict[str, Any]) -> None:
    small = {"burst_hostlist": "a-[1-9]", "burst_subnet_cidr": "10.0.0.0/29"}
    names = [line.partition(":")[0] for line in problems({**good, **small, "burst_lead_port": 0})]
    assert names == ["burst_lead_port", "burst_subnet_cidr"]


def test_a_shared_home_needs_a_server_and_a_place(good: dict[str, Any]) -> None:
    assert problems({**good, "burst_shared_home": "export"}) == [
        "burst_shared_home_server: wanted it with burst_shared_home export, found it unset",
        "burst_shared_home_path: wanted it with burst_shared_home export, found it unset",
    ]
    whole = {"burst_shared_home_server": "10.0.0.9", "burst_shared_home_path": "/shared"}
    made = specification({**good, **whole, "burst_shared_home": "server"}, OPTIONS)
    assert made["burst_shared_home_export"] == "/home"


FLUX_DEB = {"url": "https://example.org/flux.deb", "checksum": f"sha256:{'0' * 64}"}


def test_downloads_of_flux_are_checked_before_a_machine_is_made(good: dict[str, Any]) -> None:
    made = specification(
        {**good, "burst_flux_source": "downloads", "burst_flux_downloads": [FLUX_DEB]}, OPTIONS
    )
    assert made["burst_flux_downloads"] == [FLUX_DEB]
    assert problems({**good, "burst_flux_source": "packages"}) == [
        "burst_flux_packages: wanted some with burst_flux_source packages, found none"
    ]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"url": "flux.deb"}, "wanted the url of each, found 'flux.deb'"),
        ({"checksum": "md5:1"}, "wanted checksum 'sha256:' and 64 hexadecimal digits for https://"),
        ({"check_sum": ""}, "wanted url, checksum, dest and creates, found 'check_sum'"),
    ],
)
def test_a_download_that_cannot_be_verified_is_refused(
    good: dict[str, Any], row: dict[str, str], wanted: str
) -> None:
    given = {"burst_flux_source": "downloads", "burst_flux_downloads": [{**FLUX_DEB, **row}]}
    [line] = problems({**good, **given})
    assert line.startswith(f"burst_flux_downloads: {wanted}")


def test_no_check_is_for_a_variable_that_does_not_exist() -> None:
    assert set(CHECKS) <= set(OPTIONS)


@pytest.mark.parametrize(
    ("text", "wanted"), [("30s", 30), ("5m", 300), ("4h", 14400), ("2d", 172800)]
)
def test_a_duration_is_seconds(text: str, wanted: int) -> None:
    assert seconds(text) == wanted
