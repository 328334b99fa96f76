# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A burst's machines are added at the end of a broker's hosts and resources, and all else in its files stays."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.action.flux_config import edit
from ansible_collections.flux.burst.plugins.module_utils import _lead_hosts, _lead_toml
from ansible_collections.flux.burst.plugins.module_utils._errors import SpecError

from sandbox import site

PATH = "/etc/flux/system/conf.d/system.toml"
MACHINES = _lead_hosts.Machines(["b-1", "b-2"], 2)
RANKS = [
    {"rank": 0, "host": "lead", "cores": 4, "gpus": 0, "properties": []},
    {"rank": 1, "host": "worker", "cores": 8, "gpus": 2, "properties": ["fat"]},
]
RESOURCE = '\n[[resource.config]]\nhosts = "lead,worker"\ncores = "0-3"\n'
ADDED = '\n[[resource.config]]\nhosts = "b-[1-2]"\ncores = "0-1"\nproperties = ["burst"]\n'
HOSTS = """\
[bootstrap]
curve_cert = "/etc/flux/system/curve.cert"
hosts = [
    { host = "lead", bind = "tcp://eth0:8050" },  # where it listens
    # workers
    { host = "worker" } # the only one
]
"""


def lacking(text: str, machines: _lead_hosts.Machines = MACHINES, **given: Any) -> Any:
    config = _lead_toml.merged(_lead_toml.load({PATH: text}))
    return _lead_hosts.missing(config, machines, **given)


def edited(text: str, machines: _lead_hosts.Machines = MACHINES, **given: Any) -> str:
    return _lead_toml.edited({PATH: text}, lacking(text, machines, **given)).files[PATH]


def test_machines_come_last_and_every_comment_stays() -> None:
    wanted = HOSTS.replace(
        '{ host = "worker" } # the only one\n',
        '{ host = "worker" }, # the only one\n    { host = "b-[1-2]" },\n',
    )
    assert edited(HOSTS + RESOURCE) == wanted + RESOURCE + ADDED


def test_a_comment_before_the_next_table_stays_with_it() -> None:
    after = '\n# a vanished one\n[tbon]\ntcp_user_timeout = "20s"\n'
    assert edited(HOSTS + RESOURCE + after).endswith(RESOURCE + ADDED + after)


def test_what_was_edited_lacks_nothing() -> None:
    once = edited(HOSTS + RESOURCE)
    assert not lacking(once)
    assert edited(once) == once


def test_the_sandbox_s_lead_gets_back_what_was_taken_out() -> None:
    whole = site.SYSTEM + site.RESOURCES
    hosts = [f"gffw-compute-a-00{number}" for number in (1, 2, 3)]
    machines = _lead_hosts.Machines(hosts, 2)
    assert not lacking(whole, machines)
    less = whole.replace(f'  {{ host = "{site.BURSTABLE}" }},\n', "")
    less = less.replace(f'hosts = "{site.BURSTABLE}"\nproperties = ["burst"]', 'hosts = ""')
    less = less.replace(f",{site.BURSTABLE}", "").replace('[[resource.config]]\nhosts = ""\n', "")
    assert site.BURSTABLE not in less
    again = tomllib.loads(edited(less, machines))
    assert again["bootstrap"] == tomllib.loads(whole)["bootstrap"]
    assert again["resource"]["config"][-1]["hosts"] == site.BURSTABLE


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('hosts = [ {host="lead"} ]', 'hosts = [ {host="lead"}, { host = "b-[1-2]" } ]'),
        ('"hosts" = [{host="lead"}]', '"hosts" = [{host="lead"}, { host = "b-[1-2]" }]'),
        (
            'hosts = [\n\t{host="lead"},\n]',
            'hosts = [\n\t{host="lead"},\n\t{ host = "b-[1-2]" },\n]',
        ),
    ],
)
def test_hosts_are_added_in_the_way_in_which_they_are_written(before: str, after: str) -> None:
    assert edited(f"['bootstrap']\n{before}\n", lead=False) == f"['bootstrap']\n{after}\n"


def test_hosts_that_are_tables_get_another_table() -> None:
    host, after = '[[bootstrap.hosts]]\nhost = "%s"\n\n', "# overlay\n[tbon]\n"
    assert edited(host % "lead" + after, lead=False) == host % "lead" + host % "b-[1-2]" + after


def test_dotted_keys_and_inline_resources_are_edited_too() -> None:
    text = 'bootstrap.hosts = [{host="lead"}]\n[resource]\nconfig = [ {hosts="lead", cores="0"} ]\n'
    assert edited(text) == (
        'bootstrap.hosts = [{host="lead"}, { host = "b-[1-2]" }]\n[resource]\n'
        'config = [ {hosts="lead", cores="0"}, '
        '{ hosts = "b-[1-2]", cores = "0-1", properties = ["burst"] } ]\n'
    )


def test_hosts_that_are_there_keep_their_place_whatever_their_order() -> None:
    text = HOSTS.replace('"worker"', '"b-2,worker"') + RESOURCE
    assert list(lacking(text).hosts) == [{"host": "b-1"}]
    assert 'host = "b-2,worker" }' in edited(text)
    assert not lacking(HOSTS.replace('"worker"', '"worker,b-[2,1]"') + RESOURCE + ADDED)


def test_hosts_whose_order_no_range_can_tell_are_listed_one_by_one() -> None:
    backwards = _lead_hosts.Machines(["b-2", "b-1"], 2)
    assert list(lacking(HOSTS + RESOURCE, backwards).hosts) == [{"host": "b-2,b-1"}]


GATEWAY = _lead_hosts.Machines(["b-1", "b-2", "b-3"], 2, gateway="b-1")


def test_with_a_gateway_the_others_get_it_as_their_parent() -> None:
    text = edited(HOSTS + RESOURCE, GATEWAY)
    assert (
        '# the only one\n    { host = "b-1" },\n    { host = "b-[2-3]", parent = "b-1" },\n]'
        in text
    )
    assert not lacking(text, GATEWAY)


def test_machines_with_another_parent_have_the_array_replaced_and_nothing_else() -> None:
    flat = edited("# ours\n" + HOSTS + RESOURCE, _lead_hosts.Machines(GATEWAY.hosts, 2))
    text = edited(flat, GATEWAY)
    assert tomllib.loads(text)["bootstrap"]["hosts"] == [
        {"host": "lead", "bind": "tcp://eth0:8050"},
        {"host": "worker"},
        {"host": "b-1"},
        {"host": "b-[2-3]", "parent": "b-1"},
    ]
    assert text.startswith("# ours\n")
    assert text.endswith(flat[flat.index(RESOURCE) :])
    assert not lacking(text, GATEWAY)
    assert "parent" not in edited(text, _lead_hosts.Machines(GATEWAY.hosts, 2))
    shown = _lead_hosts.text(lacking(flat, GATEWAY))
    assert tomllib.loads(shown)["hosts"][-1] == {"host": "b-[2-3]", "parent": "b-1"}
    assert '{ host = "b-2,b-1" }' in edited(
        HOSTS + RESOURCE, _lead_hosts.Machines(["b-2", "b-1"], 2)
    )
    assert _lead_hosts.hostlist(["r1n1", "r2n2"]) == "r1n1,r2n2"


def test_cores_are_declared_once_and_a_property_where_it_is_missing() -> None:
    sized = '\n[[resource.config]]\nhosts = "b-[1-2]"\ncores = "0-7"\n'
    assert [dict(table) for table in lacking(HOSTS + RESOURCE + sized).tables] == [
        {"hosts": "b-[1-2]", "properties": ["burst"]}
    ]
    marked = '\n[[resource.config]]\nhosts = "b-1"\nproperties = ["burst"]\n'
    assert [dict(table) for table in lacking(HOSTS + RESOURCE + marked).tables] == [
        {"hosts": "b-[1-2]", "cores": "0-1"},
        {"hosts": "b-2", "properties": ["burst"]},
    ]


def test_gpus_and_further_properties_are_declared() -> None:
    machines = _lead_hosts.Machines(["b-1"], 1, 4, ["burst", "cloud"])
    assert [dict(table) for table in lacking(HOSTS + RESOURCE, machines).tables] == [
        {"hosts": "b-1", "cores": "0", "gpus": "0-3", "properties": ["burst", "cloud"]}
    ]


def test_resources_that_the_lead_found_by_itself_are_written_down_with_the_others() -> None:
    text = HOSTS + '\n[resource]\nexclude = "lead" # no jobs\n'
    after = edited(text, ranks=RANKS)
    assert '\n[resource]\nexclude = "lead" # no jobs\n' in after
    assert tomllib.loads(after)["resource"]["config"] == [
        {"hosts": "lead", "cores": "0-3"},
        {"hosts": "worker", "cores": "0-7", "gpus": "0-1", "properties": ["fat"]},
        {"hosts": "b-[1-2]", "cores": "0-1", "properties": ["burst"]},
    ]


def test_a_worker_has_no_resources_to_declare_unless_it_has_some() -> None:
    assert lacking(HOSTS, lead=False).tables == ()
    assert len(lacking(HOSTS + RESOURCE, lead=False).tables) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "[access]\nallow-guest-user = true\n",
            r"wanted hosts in \[bootstrap\], found none: .* flux keygen",
        ),
        ("[bootstrap]\nhosts = []\n", r"wanted hosts in \[bootstrap\], found none"),
        (HOSTS.replace('"worker"', '"worker,lead"'), "each host once in .*, found lead twice"),
        (HOSTS, r"wanted \[\[resource.config\]\] with lead,worker, found neither"),
        (HOSTS + "[tbon", "system.toml: wanted TOML, found 'Expected ']' "),
        (
            HOSTS + '[resource]\npath = "/etc/R"\n',
            r"wanted b-\[1-2\] in /etc/R, .* flux R encode -r 2,3 -c 0-1 -H b-\[1-2\] -p burst \| cat",
        ),
    ],
)
def test_what_cannot_be_edited_is_one_line(text: str, wanted: str) -> None:
    with pytest.raises(SpecError, match=wanted) as raised:
        edited(text)
    assert "\n" not in str(raised.value)


def test_a_way_of_writing_that_cannot_be_edited_is_refused_and_names_what_to_add() -> None:
    text = 'resource = { exclude = "lead" }\n' + HOSTS
    with pytest.raises(SpecError, match=r'by hand: .*\{ hosts = "b-\[1-2\]", cores = "0-1", prop'):
        edited(text, ranks=RANKS)


def test_an_array_in_two_files_is_refused() -> None:
    files = {"/c/a.toml": HOSTS, "/c/b.toml": HOSTS}
    with pytest.raises(
        SpecError, match=r"hosts of \[bootstrap\] in one file, found it in /c/a.toml and /c/b.toml"
    ):
        _lead_toml.edited(files, _lead_hosts.Missing(["b-1"]))


def test_each_table_is_added_to_the_file_that_has_it() -> None:
    files = {"/c/bootstrap.toml": HOSTS, "/c/resource.toml": RESOURCE, "/c/tbon.toml": "[tbon]\n"}
    config = _lead_toml.merged(_lead_toml.load(files))
    made = _lead_toml.edited(files, _lead_hosts.missing(config, MACHINES))
    assert made.files["/c/tbon.toml"] == "[tbon]\n"
    assert made.files["/c/resource.toml"] == RESOURCE + ADDED
    assert '"b-[1-2]"' in made.files["/c/bootstrap.toml"]
    assert list(made.hosts) == ["lead", "worker", "b-[1-2]"]


def test_a_trial_listens_on_loopback_with_a_certificate_of_its_own() -> None:
    text = HOSTS + RESOURCE
    trial = tomllib.loads(_lead_toml.edited({PATH: text}, lacking(text)).trial[PATH])
    assert trial["bootstrap"] == {
        "curve_cert": _lead_toml.CERT,
        "default_bind": f"tcp://127.0.0.1:{_lead_toml.PORT}",
        "default_connect": f"tcp://127.0.0.1:{_lead_toml.PORT}",
        "hosts": [{"host": "lead"}, {"host": "worker"}, {"host": "b-[1-2]"}],
    }
    assert trial["resource"] == tomllib.loads(RESOURCE + ADDED)["resource"]


def found(hostname: str, text: str) -> dict[str, Any]:
    given = {"hostlist": "b-[1-2]", "cores": 2, "gpus": 0, "properties": ["burst"]}
    given["topology"] = "flat"
    return {"given": given, "files": {PATH: text}, "hostname": hostname, "ranks": RANKS}


def test_resources_are_declared_on_the_lead_alone() -> None:
    never = pytest.fail
    assert "resource" in edit(found("lead", HOSTS), never)["files"][PATH]
    assert "resource" not in edit(found("worker", HOSTS), never)["files"][PATH]


def test_a_file_of_r_that_has_the_machines_will_do() -> None:
    text = HOSTS + '[resource]\npath = "/etc/R"\n'
    made = {"execution": {"nodelist": ["lead,worker", "b-[1-2]"]}}
    result = edit(found("lead", text), lambda path: json.dumps(made) if path == "/etc/R" else "")
    assert result["files"][PATH].count("b-[1-2]") == 1
    assert result["properties"] == []
    with pytest.raises(SpecError, match="/etc/R: wanted R as flux R encode writes it"):
        edit(found("lead", text), lambda _path: "")


def test_the_toml_to_add_is_told_as_it_would_be_added() -> None:
    assert _lead_hosts.text(lacking(HOSTS + RESOURCE)) == (
        "# at the end of hosts in [bootstrap], on every broker of the lead's cluster:\n"
        '{ host = "b-[1-2]" },\n'
        "# on the lead, at the end of its resources:" + ADDED.rstrip("\n")
    )
