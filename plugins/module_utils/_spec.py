# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The specification of a burst: every variable checked, all that is wrong said at once."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils import _burst_directory
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError, printable
from ansible_collections.flux.burst.plugins.module_utils._hostlist import expand

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
TYPES = {
    "str": "a text",
    "path": "a path",
    "int": "a whole number (int)",
    "bool": "true or false",
    "dict": "a mapping",
    "list": "a list",
}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Compute Engine's limits of maxRunDuration.
SHORTEST, LONGEST = 30, 120 * 86400
LONGEST_SAID = 1000
"""Characters of what is said of one variable, which may quote its value."""
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
# "all" is how the modules are asked for every burst.
BURST = r"(?!all$)[a-z]([-a-z0-9]{0,38}[a-z0-9])?"
BURST_SAID = (
    "lower case letters, digits and dashes, beginning with a letter, at most 40, and not 'all'"
)
LABEL = re.compile(r"[a-z0-9_-]{0,63}")
MAY_BE_EMPTY = ("burst_diagnostics_directory",)
TOGETHER = (
    "burst_hostlist:",
    "burst_subnet_cidr:",
    "burst_network:",
    "burst_os_login:",
    "burst_os_login_account:",
    "burst_ssh_via:",
    "burst_ssh_source_ranges:",
)

Check = Callable[[Any], str]


def seconds(text: str) -> int:
    """Return a duration such as 30m or 4h in seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if not found:
        raise ValueError(text)
    return int(found[1]) * SECONDS[found[2]]


def duration(option: str, text: str) -> int:
    """Return a module's option such as 4h in seconds. Raises SpecError."""
    try:
        return seconds(text)
    except ValueError:
        raise SpecError(
            f"{option}: wanted a number with s, m, h or d, such as 4h, found '{text}'."
        ) from None


def region(zone: str) -> str:
    """Return the region in which a zone lies."""
    return zone.rpartition("-")[0]


def one_region(zones: Sequence[str]) -> str:
    """Return the region of some zones. Raises SpecError where they are of several, or where there are none."""
    regions = list(dict.fromkeys(map(region, zones)))
    if len(regions) != 1:
        raise SpecError(
            f"zones: wanted zones of one region, in which the subnetwork lies, found {', '.join(zones) or 'none'}: "
            "leave out those of other regions."
        )
    return regions[0]


def specification(given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole specification, typed, with defaults, and with what follows from it.

    That is burst_region, burst_max_run_seconds, burst_own_key, which is whether the burst has an SSH key of its own,
    burst_diagnostics_directory where none is given, and burst_gateway, the machine that is the overlay parent of the
    others ("" where that is the lead).

    given are the burst_* variables, options their argument specification. Raises SpecError with one line for each thing
    that is wrong.
    """
    made, problems = examined(given, options)
    if problems:
        raise SpecError("\n".join(problems))
    return with_derived(made)


def examined(
    given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the variables that are of their type, with defaults, and a line for each thing that is wrong."""
    problems = [_unknown(name, options) for name in given if name not in options]
    made: dict[str, Any] = {}
    for name, option in options.items():
        value = given.get(name)
        if value is None:
            if option.get("required"):
                problems.append(f"{name}: wanted {TYPES[option['type']]}, found it unset")
            made[name] = option.get("default")
            continue
        if name in MAY_BE_EMPTY and value == "":
            made[name] = value
            continue
        try:
            made[name] = typed(value, option["type"], option.get("elements", "str"))
        except ValueError:
            problems.append(f"{name}: wanted {TYPES[option['type']]}, found {value!r}")
            made[name] = option.get("default")
            continue
        wrong = CHECKS[name](made[name]) if name in CHECKS else ""
        if wrong:
            problems.append(f"{name}: {wrong}")
    if not any(line.startswith(TOGETHER) for line in problems):
        problems += _together(made)
    problems += _shared_home(made)
    problems += _flux(made)
    return made, [printable(problem, LONGEST_SAID) for problem in problems]


def with_derived(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return a specification that is right, with what follows from it."""
    name, top = made["burst_name"], _burst_directory.top_of(made["burst_directory"])
    given_key, kept = made["burst_ssh_private_key_file"], made["burst_diagnostics_directory"]
    return {
        **made,
        "burst_directory": str(top),
        "burst_diagnostics_directory": str(top / _burst_directory.DIAGNOSTICS)
        if kept is None
        else kept,
        "burst_own_key": not given_key,
        "burst_gateway": expand(made["burst_hostlist"])[0]
        if made["burst_topology"] == "gateway"
        else "",
        "burst_ssh_private_key_file": given_key or str(_burst_directory.key_of(str(top), name)),
        "burst_region": one_region(made["burst_zones"]),
        "burst_max_run_seconds": seconds(made["burst_max_run_duration"]),
    }


def _unknown(name: str, options: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, options, 1)
    advice = f"did you mean {near[0]}?" if near else "see ansible-doc -t role flux.burst.burst"
    return f"{name}: wanted a variable of the specification, found an unknown one; {advice}"


def typed(value: Any, kind: str, elements: str = "str") -> Any:
    """Return a value in its type; -e gives numbers and booleans as text. Raises ValueError.

    elements is the type of a list's elements, "str" or "dict".
    """
    if kind in ("str", "path") and isinstance(value, str) and value.strip():
        # Unlike Path.expanduser() it lets the home of a user stand who does not exist.
        return str(Path(os.path.expanduser(value))) if kind == "path" else str(value)
    if kind == "int" and not isinstance(value, bool) and isinstance(value, (int, str)):
        return int(value)
    if kind == "bool" and (isinstance(value, bool) or str(value).lower() in (*TRUE, *FALSE)):
        return str(value).lower() in TRUE
    if kind == "dict" and isinstance(value, Mapping):
        return dict(value)
    if kind == "list" and elements == "dict" and isinstance(value, (list, tuple)):
        return [typed(item, elements) for item in value]
    if kind == "list" and elements == "str" and isinstance(value, str) and value.strip():
        return [part.strip() for part in value.split(",")]
    if kind == "list" and elements == "str" and isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    raise ValueError(value)


def _together(made: Mapping[str, Any]) -> list[str]:
    """Return what no variable shows alone; those named in TOGETHER are right each by itself."""
    return _network_together(made) + _way_in_together(made)


def _way_in_together(made: Mapping[str, Any]) -> list[str]:
    if made["burst_os_login_account"] and not made["burst_os_login"]:
        return ["burst_os_login_account: wanted burst_os_login beside it, found that false"]
    via, ranges = made["burst_ssh_via"], made["burst_ssh_source_ranges"]
    direct = via in ("internal", "external")
    if direct and not ranges:
        return [
            f"burst_ssh_source_ranges: wanted the controller's address, such as 203.0.113.7/32, beside "
            f"burst_ssh_via={via}, found none"
        ]
    if ranges and not direct:
        return [
            f"burst_ssh_source_ranges: wanted none beside burst_ssh_via={via}, where SSH comes from the Identity-Aware "
            f"Proxy, found {', '.join(ranges)}"
        ]
    return []


def _flux(made: Mapping[str, Any]) -> list[str]:
    """Return what of Flux's source is given without the other half of it."""
    source, lists = made.get("burst_flux_source"), ("packages", "downloads")
    return [
        f"burst_flux_{name}: wanted "
        + (
            f"some with burst_flux_source {name}, found none"
            if name == source
            else f"burst_flux_source {name} beside it, found {source}"
        )
        for name in lists
        if (name == source) != bool(made.get(f"burst_flux_{name}"))
    ]


def _network_together(made: Mapping[str, Any]) -> list[str]:
    hosts = expand(made["burst_hostlist"])
    if made["burst_subnetwork"]:
        return []
    if made["burst_network"]:
        return ["burst_network: wanted burst_subnetwork beside it, found that unset"]
    network = ipaddress.IPv4Network(made["burst_subnet_cidr"])
    # Compute Engine keeps the first two and the last two addresses for itself.
    if network.num_addresses - 4 >= len(hosts):
        return []
    return [
        f"burst_subnet_cidr: wanted addresses for {len(hosts)} machines, found "
        f"{max(network.num_addresses - 4, 0)} in {network}"
    ]


def _shared_home(made: Mapping[str, Any]) -> list[str]:
    """Return what a shared home still needs."""
    if made.get("burst_shared_home") not in ("export", "server"):
        return []
    return [
        f"{name}: wanted it with burst_shared_home {made['burst_shared_home']}, found it unset"
        for name in ("burst_shared_home_server", "burst_shared_home_path")
        if made.get(name, "") is None
    ]


def _pattern(pattern: str, wanted: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: "" if compiled.fullmatch(value) else f"wanted {wanted}, found {value!r}"


def _between(least: int, most: int) -> Check:
    def check(value: int) -> str:
        return "" if least <= value <= most else f"wanted {least} to {most}, found {value}"

    return check


def _each(pattern: str, wanted: str) -> Check:
    compiled = re.compile(pattern)

    def check(value: Sequence[str]) -> str:
        bad = [text for text in value if not compiled.fullmatch(text)]
        return f"wanted {wanted}, found {bad[0]!r}" if bad else ""

    return check


def _zones(value: Sequence[str]) -> str:
    wrong = _each(r"[a-z]+-[a-z]+\d+-[a-z]", "zones such as us-central1-a")(value)
    if wrong or len({region(zone) for zone in value}) == 1:
        return wrong
    return f"wanted zones of one region, found {', '.join(value) or 'none'}"


def _hostlist(value: str) -> str:
    try:
        names = expand(value)
    except SpecError as error:
        return str(error)
    bad = [name for name in names if not NAME.fullmatch(name)]
    if bad:
        return (
            "wanted names that Compute Engine takes (lower case letters, digits and dashes, beginning with a "
            f"letter, at most 63 characters), found {bad[0]!r}"
        )
    return ""


def _duration(value: str) -> str:
    try:
        if SHORTEST <= seconds(value) <= LONGEST:
            return ""
    except ValueError:
        pass
    return f"wanted a number with s, m, h or d, from 30s to 120d, found {value!r}"


def _cidr(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value)
    except ValueError as error:
        return f"wanted an IPv4 range such as 10.10.0.0/24, found {value!r} ({error})"
    if 8 <= network.prefixlen <= 29:
        return ""
    return f"wanted an IPv4 range from /8 to /29, found {value!r}"


def _ranges(value: Sequence[str]) -> str:
    for text in value:
        try:
            ipaddress.IPv4Network(text)
        except ValueError as error:
            return f"wanted IPv4 ranges such as 203.0.113.7/32, found {text!r} ({error})"
    return ""


def _downloads(value: Sequence[Mapping[str, Any]]) -> str:
    for row in value:
        if not re.fullmatch(r"https?://\S+|file:///\S+", str(row.get("url"))):
            return f"wanted the url of each, found {row.get('url')!r}"
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", str(row.get("checksum"))):
            return (
                f"wanted checksum 'sha256:' and 64 hexadecimal digits for {row['url']}, "
                f"found {row.get('checksum')!r}"
            )
        unknown = sorted(set(row) - {"url", "checksum", "dest", "creates"})
        if unknown:
            return f"wanted url, checksum, dest and creates, found {unknown[0]!r}"
    return ""


def _labels(value: Mapping[str, Any]) -> str:
    for key, text in value.items():
        good = isinstance(text, str) and LABEL.fullmatch(text) and LABEL.fullmatch(str(key))
        if not good or not str(key)[:1].isalpha():
            return (
                "wanted labels of lower case letters, digits, dashes and underscores, found "
                f"{key!r}: {text!r}"
            )
        if key == "flux-burst":
            return "wanted labels beside our own, found 'flux-burst', which names the burst"
    return ""


def _prices(value: Mapping[str, Any]) -> str:
    for name, price in value.items():
        if isinstance(price, bool) or not isinstance(price, (int, float)) or price < 0:
            return f"wanted the price of an hour as a number, found {name!r}: {price!r}"
    return ""


def _file(value: str) -> str:
    # Unlike Path.is_file() it takes no text amiss.
    return "" if os.path.isfile(value) else f"wanted a file, found none at {value}"


def _key_pair(value: str) -> str:
    return _file(value) or _file(f"{value}.pub")


_SECONDS = _between(1, 86400)
CHECKS: dict[str, Check] = {
    "burst_name": _pattern(BURST, BURST_SAID),
    "burst_project": _pattern(
        r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "a project id (6 to 30 lower case letters, digits and dashes)",
    ),
    "burst_zones": _zones,
    "burst_hostlist": _hostlist,
    "burst_max_hosts": _between(0, 5000),
    "burst_sizing": _pattern("all|widest|cap", "all, widest or cap"),
    "burst_job_min_age": _between(0, 365 * 86400),
    "burst_prices": _prices,
    "burst_release_idle": _between(0, 365 * 86400),
    "burst_machine_types": _each(r"[a-z][a-z0-9-]*", "machine types such as n2-standard-4"),
    "burst_accelerator_count": _between(1, 16),
    "burst_disk_type": _pattern(r"[a-z][a-z0-9-]*", "a disk type such as pd-balanced"),
    "burst_tags": _each(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", "network tags of lower case letters"),
    "burst_service_account": _pattern(r"[^@\s]+@[^@\s]+", "the e-mail of a service account"),
    "burst_image": _pattern(
        r"projects/[^/]+/global/images/(family/)?[a-z][a-z0-9-]*",
        "projects/PROJECT/global/images/IMAGE or projects/PROJECT/global/images/family/FAMILY",
    ),
    "burst_flux_source": _pattern(
        "preinstalled|packages|downloads", "preinstalled, packages or downloads"
    ),
    "burst_flux_downloads": _downloads,
    "burst_disk_size_gb": _between(10, 65536),
    "burst_labels": _labels,
    "burst_max_run_duration": _duration,
    "burst_subnet_cidr": _cidr,
    "burst_foundation": _pattern(BURST, BURST_SAID),
    "burst_nat_addresses": _between(0, 50),
    "burst_network": _pattern(
        r"(https://\S+/)?projects/[^/]+/global/networks/[^/]+|[a-z][-a-z0-9]*",
        "a name or projects/PROJECT/global/networks/NAME",
    ),
    "burst_subnetwork": _pattern(
        r"(https://\S+/)?projects/[^/]+/regions/[^/]+/subnetworks/[^/]+|[a-z][-a-z0-9]*",
        "a name or projects/PROJECT/regions/REGION/subnetworks/NAME",
    ),
    "burst_lead_address": _pattern(r"[A-Za-z0-9.-]+", "an IPv4 address or a host name"),
    "burst_lead_port": _between(1, 65535),
    "burst_topology": _pattern("flat|gateway", "flat or gateway"),
    "burst_shared_home": _pattern("none|export|server", "none, export or server"),
    "burst_shared_home_server": _pattern(r"[A-Za-z0-9.:-]+", "an IP address or a host name"),
    "burst_shared_home_export": _pattern(r"/[^\s]*", "an absolute path without blanks"),
    "burst_shared_home_path": _pattern(
        r"(/[A-Za-z0-9_:][A-Za-z0-9_.:-]*)+", "an absolute path of letters, digits and _.:-"
    ),
    "burst_shared_home_options": _each(r"[a-z_]+(=[^,\s]+)?", "mount options such as hard"),
    "burst_shared_home_clients": _each(r"[^\s()]+", "networks or host names"),
    "burst_ssh_user": _pattern(r"[a-z_][a-z0-9_-]{0,31}", "a user name"),
    "burst_ssh_private_key_file": _key_pair,
    "burst_ssh_via": _pattern(
        "iap|gateway|internal|external", "iap, gateway, internal or external"
    ),
    "burst_ssh_source_ranges": _ranges,
    "burst_boot_timeout": _SECONDS,
    "burst_join_timeout": _SECONDS,
    "burst_on_failure": _pattern("keep|delete|keep_joined", "keep, delete or keep_joined"),
    "burst_drain_timeout": _between(0, 7 * 86400),
    "burst_reconcile_patience": _between(0, 86400),
    "burst_credentials_file": _file,
    "burst_impersonate_service_account": _pattern(
        r"[^@\s,]+@[^@\s,]+(,[^@\s,]+@[^@\s,]+)*",
        "the e-mail address of a service account, or several separated by commas",
    ),
    "burst_compute_endpoint": _pattern(r"https?://\S+", "a URL with http or https"),
    "burst_os_login_account": _pattern(r"[^@\s]+@[^@\s]+", "an e-mail address"),
    "burst_os_login_endpoint": _pattern(r"https?://\S+", "a URL with http or https"),
    "burst_resource_manager_endpoint": _pattern(r"https?://\S+", "a URL with http or https"),
    "burst_iap_endpoint": _pattern(r"wss?://\S+", "a URL with wss"),
    "burst_iap_ca_file": _file,
}
