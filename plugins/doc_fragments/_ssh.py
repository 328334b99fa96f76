# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the ssh connection plugin of the ansible-core that runs, so that they are its own in every release."""

from __future__ import annotations

from typing import Any

import yaml
from ansible.plugins.connection import ssh


def _without_versions(part: Any) -> Any:
    """Leave out version_added: it names releases of ansible-core, not of this collection."""
    if isinstance(part, dict):
        return {
            key: _without_versions(inner) for key, inner in part.items() if key != "version_added"
        }
    return [_without_versions(inner) for inner in part] if isinstance(part, list) else part


class ModuleDocFragment:
    """Used by the connection plugin flux.burst.iap."""

    DOCUMENTATION: str


# Every task on every host loads this anew: libyaml reads and writes it in an eighth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
ModuleDocFragment.DOCUMENTATION = yaml.dump(
    {"options": _without_versions(yaml.load(ssh.DOCUMENTATION, LOADER)["options"])}, Dumper=DUMPER
)
