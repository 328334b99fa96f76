# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose Google credentials: from a token, a file or the machine, and perhaps another service account's through them.

google-auth is imported when credentials are loaded, and of it only what their kind needs. Nothing of Ansible is: who
fetches a token for the tunnels loads them too.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ansible_collections.flux.burst.plugins.module_utils._errors import GceError
from ansible_collections.flux.burst.plugins.module_utils._gce_refusal import (
    UNAUTHORIZED,
    grant,
    missing_permissions,
)
from ansible_collections.flux.burst.plugins.module_utils._gce_token import (
    FILE_VARIABLE,
    IMPERSONATE_VARIABLES,
    TOKEN_VARIABLES,
    environment,
)

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
IAM_ENDPOINT = "https://iamcredentials.googleapis.com"
PROJECT_VARIABLE = "GOOGLE_CLOUD_PROJECT"
IAM_VARIABLE = "FLUX_BURST_IAM_ENDPOINT"
AWS_TOKEN = "urn:ietf:params:aws:token-type:aws4_request"
ADVICE = "set burst_credentials_file, or run gcloud auth application-default login."


@dataclass(frozen=True)
class Auth:
    """Which credentials are wanted: the token, else those in the file, else the application default ones.

    impersonate_service_account is the account to act as, after the accounts to reach it through, separated by commas.
    """

    credentials_file: str | None = None
    access_token: str | None = field(default=None, repr=False)
    impersonate_service_account: str | None = None
    scopes: tuple[str, ...] = (CLOUD_PLATFORM,)
    iam_endpoint: str = IAM_ENDPOINT

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Auth:
        """Return what a module's options say."""
        names = ("credentials_file", "access_token", "impersonate_service_account", "iam_endpoint")
        scopes = tuple(params["scopes"])
        return cls(scopes=scopes, **{name: params[name] for name in names})

    @classmethod
    def from_environment(cls, credentials_file: str | None, impersonate: str | None) -> Auth:
        """Return what the environment says beside these two, for who has no module's options."""
        return cls(
            credentials_file=credentials_file,
            access_token=environment(*TOKEN_VARIABLES),
            impersonate_service_account=impersonate or environment(*IMPERSONATE_VARIABLES),
            iam_endpoint=environment(IAM_VARIABLE) or IAM_ENDPOINT,
        )


@dataclass(frozen=True)
class Identity:
    """Credentials of google-auth, whose they are, in words, and the project that they belong to, if that is known.

    asker is who asks for their tokens, where that is somebody else; fixed says that there is one token and no more.
    """

    credentials: Any
    who: str
    project: str | None = None
    asker: str = ""
    fixed: bool = False

    def token(self) -> str:
        """Return a new access token, where they are not one themselves. Raises GceError."""
        import google.auth.exceptions
        from google.auth.transport.requests import Request

        try:
            if not self.fixed:
                self.credentials.refresh(Request())
        except google.auth.exceptions.GoogleAuthError as error:
            raise self.refused("an access token", error) from None
        return str(self.credentials.token)

    def refused(self, wanted: str, error: Exception) -> GceError:
        """Return the failure of a request for which these credentials could not get a token."""
        import google.auth.exceptions

        said, advice = first_line(error), ADVICE
        permissions = missing_permissions(str(error))
        if permissions:
            advice = f"{grant(permissions, self.asker or self.who)}."
        elif isinstance(error, google.auth.exceptions.TransportError):
            advice = "check the network, the proxy and the address that the credentials name."
        elif self.fixed:
            said = "Google does not take it, or not any more"
            advice = "get a new one, for instance by gcloud auth print-access-token."
        return GceError(
            f"wanted {wanted} with {self.who}, found '{said}': {advice}", status=UNAUTHORIZED
        )


def first_line(error: Exception) -> str:
    """Return what an error of google-auth or requests says, in one line: the system's own word where it has one."""
    told = re.search(r"\[Errno[^'\")]*", str(error))
    said = told[0] if told else str(error.args[0] if error.args else error)
    return (said.splitlines() or [type(error).__name__])[0].rstrip(".")


@functools.cache
def load(auth: Auth) -> Identity:
    """Return the credentials; they are loaded once for all who ask in this process. Raises GceError."""
    if not find_spec("google") or not find_spec("google.auth"):
        raise GceError(
            "wanted google-auth on the controller, found none: pip install google-auth requests"
        )
    if auth.access_token:
        from google.oauth2.credentials import Credentials

        who = "the access token that was given"
        found = Identity(Credentials(token=auth.access_token), who, fixed=True)
    else:
        path = auth.credentials_file or os.environ.get(FILE_VARIABLE)
        found = _from_file(path, auth.scopes) if path else _default(auth.scopes)
    return _impersonated(found, auth) if auth.impersonate_service_account else found


def with_project(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a module's options with a project: the one given, or that of the credentials. Raises GceError."""
    given = params["project"]
    return {**params, "project": given or project_of(load(Auth.from_params(params)))}


def account_of(identity: Identity) -> str:
    """Return the e-mail address of the account that some credentials are of. Raises GceError where they do not tell."""
    for name in ("service_account_email", "account"):
        found = getattr(identity.credentials, name, None)
        if isinstance(found, str) and "@" in found:
            return found
    raise GceError(
        f"account: wanted the e-mail address of an account, found none with {identity.who}: set account "
        "(burst_os_login_account in a specification)."
    )


def project_of(identity: Identity) -> str:
    """Return the project of some credentials. Raises GceError where they have none."""
    project = identity.project
    if project is None and hasattr(identity.credentials, "get_project_id"):
        project = _asked_project(identity)
    if project:
        return project
    raise GceError(
        f"project: wanted a Google Cloud project, found none given, none in {PROJECT_VARIABLE} and none with "
        f"{identity.who}: set project (burst_project in a specification)."
    )


def _asked_project(identity: Identity) -> str | None:
    """Return the project of federated credentials, which has to be asked for."""
    import google.auth.exceptions
    from google.auth.transport.requests import Request

    try:
        found: str | None = identity.credentials.get_project_id(Request())
    except google.auth.exceptions.GoogleAuthError as error:
        raise identity.refused("the project", error) from None
    return found


def _from_file(path: str, scopes: tuple[str, ...]) -> Identity:
    import google.auth.exceptions

    try:
        with open(path, encoding="utf-8") as file:
            info = json.load(file)
        kind = info.get("type") if isinstance(info, dict) else None
        if kind not in KINDS:
            raise GceError(
                f"wanted Google credentials in {path}, found type {kind!r}, which is none of {', '.join(KINDS)}: "
                f"{ADVICE}"
            )
        words, loader = KINDS[kind]
        found = loader(info, list(scopes))
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from None
    except (google.auth.exceptions.GoogleAuthError, ValueError) as error:
        raise _unusable(path, first_line(error)) from None
    account = getattr(found, "service_account_email", None)
    who = f"{words} {account}" if isinstance(account, str) and account else words
    if hasattr(found, "with_quota_project_from_environment"):
        found = found.with_quota_project_from_environment()
    return Identity(found, f"{who} ({path})", info.get("project_id"))


def _unusable(path: str, said: str) -> GceError:
    return GceError(f"wanted Google credentials in {path}, found '{said}': {ADVICE}")


def _service_account(info: Mapping[str, Any], scopes: list[str]) -> Any:
    from google.oauth2.service_account import Credentials

    return Credentials.from_service_account_info(info, scopes=scopes)


def _user(info: Mapping[str, Any], _scopes: list[str]) -> Any:
    # A user's token has the scopes that the user consented to; asking for others is refused.
    from google.oauth2.credentials import Credentials

    return Credentials.from_authorized_user_info(info)


def _federated(info: Mapping[str, Any], scopes: list[str]) -> Any:
    if info.get("subject_token_type") == AWS_TOKEN:
        from google.auth import aws

        return aws.Credentials.from_info(info, scopes=scopes)
    if "executable" in (info.get("credential_source") or {}):
        from google.auth import pluggable

        return pluggable.Credentials.from_info(info, scopes=scopes)
    from google.auth import identity_pool

    return identity_pool.Credentials.from_info(info, scopes=scopes)


def _workforce_user(info: Mapping[str, Any], _scopes: list[str]) -> Any:
    from google.auth.external_account_authorized_user import Credentials

    return Credentials.from_info(info)


def _impersonated_info(info: Mapping[str, Any], scopes: list[str]) -> Any:
    from google.auth.impersonated_credentials import Credentials

    for name, kind in (("source_credentials", dict), ("service_account_impersonation_url", str)):
        if not isinstance(info.get(name), kind):
            raise ValueError(f"it has no {name}")

    return Credentials.from_impersonated_service_account_info(info, scopes=scopes)


KINDS: dict[str, tuple[str, Callable[[Mapping[str, Any], list[str]], Any]]] = {
    "service_account": ("service account", _service_account),
    "authorized_user": ("the user who logged in", _user),
    "external_account": ("federated identity", _federated),
    "external_account_authorized_user": ("the workforce user who logged in", _workforce_user),
    "impersonated_service_account": ("impersonated service account", _impersonated_info),
}
"""By the type in a credentials file: whose they are, and what loads them."""


def _default(scopes: tuple[str, ...]) -> Identity:
    """Return gcloud's credentials, or those of the machine where this runs."""
    import google.auth
    import google.auth.exceptions
    from google.auth._cloud_sdk import get_application_default_credentials_path

    path = get_application_default_credentials_path()
    if os.path.isfile(path):
        return _from_file(path, scopes)
    try:
        found, project = google.auth.default(scopes=list(scopes))
    except google.auth.exceptions.GoogleAuthError as error:
        raise GceError(
            f"wanted application default credentials, found none: {FILE_VARIABLE} is not set, gcloud has none in "
            f"{path}, and no metadata server answers ('{first_line(error)}'): {ADVICE}"
        ) from None
    return Identity(found, "the service account of this machine (metadata server)", project)


def _impersonated(source: Identity, auth: Auth) -> Identity:
    from google.auth.impersonated_credentials import Credentials

    *through, account = str(auth.impersonate_service_account).replace(" ", "").split(",")
    found = Credentials(
        source.credentials,
        account,
        list(auth.scopes),
        delegates=through,
        iam_endpoint_override=(
            f"{auth.iam_endpoint.rstrip('/')}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        ),
    )
    who = f"service account {account}, impersonated by {source.who}"
    return Identity(found, who, source.project, asker=source.who)
