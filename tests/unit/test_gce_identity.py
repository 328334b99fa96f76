# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Credentials are found where they are, and a failure says which ones were tried."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.auth.exceptions
import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.flux.burst.plugins.module_utils import _gce_auth
from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_auth import (
    Auth,
    Identity,
    load,
    project_of,
    with_project,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_client import ACCESS
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ACCOUNT = "burst@my-project.iam.gserviceaccount.com"
TARGET = "other@my-project.iam.gserviceaccount.com"
USER = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
FEDERATED = {
    "type": "external_account",
    "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "token_url": "https://sts.googleapis.com/v1/token",
    "credential_source": {"file": "/token"},
}
AWS = {
    **FEDERATED,
    "subject_token_type": _gce_auth.AWS_TOKEN,
    "credential_source": {
        "environment_id": "aws1",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com",
    },
}
IMPERSONATED = {
    "type": "impersonated_service_account",
    "source_credentials": USER,
    "service_account_impersonation_url": (
        f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{TARGET}:generateAccessToken"
    ),
}
WORKFORCE = {
    "type": "external_account_authorized_user",
    "audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q",
    "refresh_token": "r",
    "token_url": "https://sts.googleapis.com/v1/oauthtoken",
    "token_info_url": "https://sts.googleapis.com/v1/introspect",
    "client_id": "c",
    "client_secret": "s",
}


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment without credentials, and no memory of other tests' ones."""
    for name in (
        *_gce_auth.TOKEN_VARIABLES,
        *_gce_auth.IMPERSONATE_VARIABLES,
        _gce_auth.FILE_VARIABLE,
        _gce_auth.PROJECT_VARIABLE,
        _gce_auth.IAM_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    load.cache_clear()
    yield
    load.cache_clear()


@pytest.fixture(scope="module")
def service_account() -> dict[str, Any]:
    """A service account's key."""
    pem = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "project_id": "my-project",
        "client_email": ACCOUNT,
        "private_key": pem.decode(),
        "token_uri": "http://127.0.0.1:9/token",
    }


def file_of(tmp_path: Path, info: Any) -> str:
    """Write a credentials file."""
    path = tmp_path / "key.json"
    path.write_text(info if isinstance(info, str) else json.dumps(info))
    return str(path)


def test_a_service_account_has_a_name_and_a_project(
    service_account: dict[str, Any], tmp_path: Path
) -> None:
    path = file_of(tmp_path, service_account)
    found = load(Auth(credentials_file=path, scopes=("a", "b")))
    assert found.who == f"service account {ACCOUNT} ({path})"
    assert project_of(found) == "my-project"
    assert found.credentials.scopes == ["a", "b"]


@pytest.mark.parametrize(
    ("info", "who", "kind"),
    [
        (USER, "the user who logged in", "google.oauth2.credentials"),
        (FEDERATED, "federated identity", "google.auth.identity_pool"),
        (AWS, "federated identity", "google.auth.aws"),
        (
            {**FEDERATED, "credential_source": {"executable": {"command": "/bin/true"}}},
            "federated identity",
            "google.auth.pluggable",
        ),
        (WORKFORCE, "the workforce user who logged in", "google.auth.external_account_authorized"),
        (
            IMPERSONATED,
            f"impersonated service account {TARGET}",
            "google.auth.impersonated_credentials",
        ),
    ],
)
def test_a_file_of_any_type_is_loaded_and_nothing_is_warned_of(
    tmp_path: Path, info: dict[str, Any], who: str, kind: str
) -> None:
    path = file_of(tmp_path, info)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load(Auth(credentials_file=path))
    assert found.who == f"{who} ({path})"
    assert type(found.credentials).__module__.startswith(kind)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ("{", "found 'Expecting property name"),
        ("[]", "found type None, which is none of service_account, authorized_user"),
        ({"installed": {"client_id": "c"}}, "found type None"),
        ({"type": "gdch_service_account"}, "found type 'gdch_service_account'"),
        ({"type": "service_account"}, "found '"),
        ({"type": "authorized_user"}, "found 'Authorized user info was not in the expected format"),
        ({"type": "external_account"}, "found '"),
        ({"type": "impersonated_service_account"}, "found 'it has no source_credentials'"),
    ],
)
def test_a_file_that_is_of_no_use_is_named(tmp_path: Path, info: Any, said: str) -> None:
    path = file_of(tmp_path, info)
    with pytest.raises(GceError) as caught:
        load(Auth(credentials_file=path))
    assert str(caught.value).startswith(f"wanted Google credentials in {path}, {said}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    for auth in (Auth(credentials_file="/nonexistent.json"), Auth()):
        with pytest.raises(GceError, match=r"in /nonexistent\.json, found 'No such file"):
            load(auth)


def test_where_there_are_none_every_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(GceError) as caught:
        load(Auth())
    said = str(caught.value)
    assert said.startswith("wanted application default credentials, found none: ")
    for place in ("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/gcloud/app", "metadata server"):
        assert place in said


def test_gclouds_own_credentials_are_the_default_ones(tmp_path: Path) -> None:
    (tmp_path / "gcloud").mkdir()
    path = tmp_path / "gcloud/application_default_credentials.json"
    path.write_text(json.dumps(USER))
    assert load(Auth()).who == f"the user who logged in ({path})"


def test_a_token_goes_before_a_file_and_is_never_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLUX_BURST_ACCESS_TOKEN", "ya29.secret")
    auth = Auth.from_environment("/nonexistent.json", None)
    found = load(auth)
    assert found.token() == "ya29.secret"
    assert "secret" not in f"{auth}{found.who}"
    expired = google.auth.exceptions.RefreshError("The credentials do not contain ...")
    said = str(found.refused("to list", expired))
    assert said.startswith(
        "wanted to list with the access token that was given, found 'Google does"
    )


def test_another_account_is_acted_as_through_others(
    service_account: dict[str, Any], tmp_path: Path
) -> None:
    path = file_of(tmp_path, service_account)
    auth = Auth(
        credentials_file=path,
        impersonate_service_account=f"first@p, {TARGET}",
        iam_endpoint="http://127.0.0.1:9/",
    )
    found = load(auth)
    assert (
        found.who == f"service account {TARGET}, impersonated by service account {ACCOUNT} ({path})"
    )
    assert found.credentials.service_account_email == TARGET
    assert project_of(found) == "my-project"
    body = {
        "error": {"message": "Permission 'iam.serviceAccounts.getAccessToken' denied on resource"}
    }
    error = google.auth.exceptions.RefreshError("Unable to acquire", json.dumps(body))
    said = str(found.refused("to list", error))
    assert f"give service account {ACCOUNT} ({path}) iam.serviceAccounts.getAccessToken" in said
    assert "roles/iam.serviceAccountTokenCreator" in said


def test_what_cannot_be_reached_is_told_with_whose_token_it_was_for(
    service_account: dict[str, Any], tmp_path: Path
) -> None:
    path = file_of(tmp_path, service_account)
    with pytest.raises(GceError) as caught:
        load(Auth(credentials_file=path)).token()
    said = str(caught.value)
    assert said.startswith(f"wanted an access token with service account {ACCOUNT} ({path}), found")
    assert "Connection refused" in said and "\n" not in said


def test_credentials_are_loaded_once(service_account: dict[str, Any], tmp_path: Path) -> None:
    path = file_of(tmp_path, service_account)
    assert load(Auth(credentials_file=path)) is load(Auth(credentials_file=path))


def params(monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], **around: str) -> dict[str, Any]:
    """Return a module's options, as Ansible makes them from what is given and the environment."""
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    made = ArgumentSpecValidator(ACCESS).validate(given)
    assert not made.error_messages
    found: dict[str, Any] = made.validated_parameters
    return found


def test_options_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    around = {
        "GOOGLE_OAUTH_ACCESS_TOKEN": "t",
        "GOOGLE_APPLICATION_CREDENTIALS": "/f.json",
        "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT": TARGET,
        "FLUX_BURST_SCOPES": "a,b",
        "FLUX_BURST_IAM_ENDPOINT": "http://iam",
    }
    made = Auth.from_params(params(monkeypatch, {}, **around))
    assert made == Auth("/f.json", "t", TARGET, ("a", "b"), "http://iam")


def test_options_default_to_those_of_the_environment_without_a_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Auth.from_params(params(monkeypatch, {})) == Auth() == Auth.from_environment(None, None)


def test_a_project_that_is_given_is_taken_and_no_credentials_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert with_project(params(monkeypatch, {"project": "given"}))["project"] == "given"
    assert (
        with_project(params(monkeypatch, {}, GOOGLE_CLOUD_PROJECT="around"))["project"] == "around"
    )


def test_a_project_that_is_not_given_is_that_of_the_credentials(
    monkeypatch: pytest.MonkeyPatch, service_account: dict[str, Any], tmp_path: Path
) -> None:
    made = params(monkeypatch, {"credentials_file": file_of(tmp_path, service_account)})
    assert with_project(made)["project"] == "my-project"


def test_no_project_anywhere_is_told() -> None:
    with pytest.raises(GceError, match=r"project: wanted .* none with somebody: set project"):
        project_of(Identity(None, "somebody"))
