# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flux's bindings are found or asked for, and those of another Flux are not used."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.flux.burst.plugins.module_utils import _flux
from ansible_collections.flux.burst.plugins.module_utils._errors import FluxError


class Future:
    """An answer that is there, or an error that comes in its place."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def wait_for(self, limit: float) -> None:
        if isinstance(self.answer, OSError):
            raise self.answer

    def get(self) -> Any:
        return self.answer


def fake(monkeypatch: pytest.MonkeyPatch, *, mine: Any = b"0.88.0", **answers: Any) -> None:
    """Put bindings in place whose broker gives these answers, `_` for the dot in a topic."""

    class Flux:
        def __init__(self, uri: str) -> None:
            self.uri = uri

        def rpc(self, topic: str, payload: Any = None, nodeid: int = 0) -> Future:
            answer = answers[topic.replace(".", "_").replace("-", "_")]
            return Future(answer(payload) if callable(answer) else answer)

    raw = SimpleNamespace(flux_core_version_string=lambda: mine)
    modules = {"flux": SimpleNamespace(Flux=Flux), "flux.core.inner": SimpleNamespace(raw=raw)}
    monkeypatch.setattr(_flux, "bindings", modules.__getitem__)


def test_bindings_of_another_version_are_refused_with_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake(monkeypatch, mine=b"0.66.0", attr_get={"value": "0.88.0-59-g1"})
    with pytest.raises(
        FluxError, match=r"bindings of the broker's version 0\.88\.0-59-g1, found 0\.66\.0"
    ):
        _flux.FluxClient("ssh://lead")


def test_bindings_of_the_same_minor_version_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, mine="0.88.3", attr_get={"value": "0.88.0"})
    assert _flux.FluxClient("ssh://lead").attribute("version") == "0.88.0"


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (errno.EPERM, "allow-root-owner"),
        (errno.ETIMEDOUT, "none within 2 s"),
        (errno.ECONNRESET, "see flux dmesg"),
    ],
)
def test_what_a_broker_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, number: int, wanted: str
) -> None:
    error = OSError(number, os.strerror(number))
    fake(monkeypatch, attr_get={"value": "0.88.0"}, resource_status=error)
    with pytest.raises(FluxError, match=r"wanted an answer to resource\.status") as failure:
        _flux.FluxClient("ssh://lead", 2).rpc("resource.status")
    assert wanted in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_job_that_is_gone_between_two_calls_is_no_error_and_keeps_the_others_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = OSError(errno.ENOENT, "No such file or directory")
    fake(
        monkeypatch,
        attr_get={"value": "0.88.0"},
        job_info_lookup=lambda asked: gone if asked["id"] == 700 else {**asked, "jobspec": "{}"},
    )
    client = _flux.FluxClient("ssh://lead")
    answers = list(client.rpc_each("job-info.lookup", [{"id": number} for number in range(1200)]))
    assert [answer and answer["id"] for answer in answers] == [
        number if number != 700 else None for number in range(1200)
    ]


def test_without_bindings_it_says_how_to_have_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FluxError, match=r"wanted Flux's Python bindings for .*: install flux-core"):
        _flux.bindings("flux_that_there_is_not")


def test_bindings_are_found_where_flux_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = tmp_path / "flux"
    command.write_text(f"#!/bin/sh\necho {tmp_path}/lib\n")
    command.chmod(0o755)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "flux_of_this_test.py").write_text("here = True\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert _flux.bindings("flux_of_this_test").here
