# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluate the option `where` of flux_queue_info on the controller: the lead need not have Jinja."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment


def condition(expression: str) -> Callable[[Mapping[str, Any]], bool]:
    """Return whether a job is one that the expression takes. Raises AnsibleActionFail, now or for a job."""
    wanted = "where: wanted a Jinja expression of job, such as job.nodes <= 8"
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    try:
        compiled = environment.compile_expression(expression, undefined_to_none=False)
    except TemplateError as error:
        raise AnsibleActionFail(f"{wanted}, found {expression!r} ({error})") from None

    def takes(job: Mapping[str, Any]) -> bool:
        try:
            return bool(compiled(job=job))
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise AnsibleActionFail(
                f"{wanted}, found {expression!r}, which fails for job {job['id']} ({error})"
            ) from None

    return takes


class ActionModule(ActionBase):
    """Run the module, then leave out the jobs that `where` does not take."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the module's result."""
        super().run(tmp, task_vars)
        expression = str(self._task.args.get("where") or "")
        takes = condition(expression) if expression else None
        result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        if takes and "jobs" in result:
            result["jobs"] = [job for job in result["jobs"] if takes(job)]
        return result
