# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Compute Engine for contract tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from compute_server import ComputeServer, serving
from echo_relay import EchoRelay, echoing


@pytest.fixture(scope="module")
def compute_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeServer]:
    """A server of the module's own."""
    with serving(tmp_path_factory.mktemp("compute")) as server:
        yield server


@pytest.fixture(scope="module")
def echo_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EchoRelay]:
    """An IAP relay whose machine echo-0 of project sandbox-site echoes on every port that is open."""
    with echoing(tmp_path_factory.mktemp("relay")) as relay:
        yield relay
