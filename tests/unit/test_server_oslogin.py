# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OS Login lets a key in until it expires or is deleted, and takes so many key operations a minute."""

from __future__ import annotations

import time

import pytest

from sandbox.server.errors import ApiError
from sandbox.server.operations import USER
from sandbox.server.oslogin import Logins

KEY = "ssh-ed25519 AAAAkey burst"


def in_seconds(number: float) -> str:
    return str(int((time.time() + number) * 1e6))


def test_a_key_is_let_in_until_it_expires_or_is_deleted() -> None:
    logins = Logins()
    profile = logins.add(USER, {"key": KEY, "expirationTimeUsec": in_seconds(0.05)})["loginProfile"]
    [username] = [it["username"] for it in profile["posixAccounts"]]
    assert logins.let_in() == ((username, KEY),)
    time.sleep(0.06)
    assert logins.let_in() == ()
    logins.add(USER, {"key": KEY, "expirationTimeUsec": in_seconds(60)})
    assert len(logins.let_in()) == 1, "the same key, with another time"
    [found] = logins.profile(USER)["sshPublicKeys"]
    logins.drop(USER, found)
    assert logins.let_in() == ()
    with pytest.raises(ApiError) as caught:
        logins.drop(USER, found)
    assert caught.value.code == 404


def test_a_key_operation_too_many_in_a_minute_is_refused_until_later() -> None:
    logins = Logins(2)
    for _unused in range(2):
        logins.add(USER, {"key": KEY})
    with pytest.raises(ApiError) as caught:
        logins.add(USER, {"key": KEY})
    assert caught.value.code == 429
    assert 0 < caught.value.retry_after <= 61


@pytest.mark.parametrize(
    ("user", "body", "code"),
    [
        ("other@example.com", {"key": KEY}, 403),
        (USER, {"key": "no key"}, 400),
        (USER, {"key": KEY, "expirationTimeUsec": "1"}, 400),
    ],
)
def test_what_google_refuses_is_refused(user: str, body: dict[str, str], code: int) -> None:
    with pytest.raises(ApiError) as caught:
        Logins().add(user, body)
    assert caught.value.code == code
