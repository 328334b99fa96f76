# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lead after the role lead."""

from __future__ import annotations

from testinfra.host import Host


def test_users_see_whose_the_job_is(lead: Host) -> None:
    jobs = lead.check_output("runuser -u flux -- flux jobs -no '{name} {user.burst.name}'")
    assert jobs.splitlines() == ["molecule flux-burst"]


def test_the_secrets_and_who_may_read_them_are_as_before(lead: Host) -> None:
    key, cert = lead.file("/etc/munge/munge.key"), lead.file("/etc/flux/system/curve.cert")
    assert (key.user, key.mode) == ("munge", 0o400)
    assert (cert.user, cert.mode) == ("flux", 0o600)


def test_no_secret_is_left_where_the_role_worked(lead: Host) -> None:
    found = lead.run("grep -rls -e secret-key -e ^MUNGE: /tmp /var/tmp /home /root")
    assert (found.rc, found.stdout) == (1, "")
