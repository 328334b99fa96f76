# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What our modules use of the C library."""

from __future__ import annotations

from flux_standin import VERSION


class raw:
    """Functions of libflux by their own names."""

    @staticmethod
    def flux_core_version_string() -> bytes:
        """Return the version of the bindings."""
        version: str = VERSION
        return version.encode()
