# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The attributes that every module documents."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as C(flux.burst._attributes) by modules that change things, C(flux.burst._attributes.info) by others."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in check mode and return what it would change, without changing it.
    support: full
  diff_mode:
    description: Returns the difference between what is and what will be.
    support: full
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
"""

    INFO = r"""
attributes:
  check_mode:
    description: Can run in check mode. It reads only, so it does the same there.
    support: full
  diff_mode:
    description: Returns the difference between what is and what will be.
    support: N/A
  idempotent:
    description: A second run with the same arguments changes nothing.
    support: full
"""
