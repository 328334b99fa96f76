# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluate the option `where` of flux_queue_info on the controller: the lead need not have Jinja."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.flux.burst.plugins.module_utils._errors import printable
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

LONGEST, MOST = 200, 10
"""Characters of an error that are told, and warnings."""


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
        except Exception as error:
            # What the expression says is anybody's guess, and so is what Python says of it.
            said = printable(str(error) or type(error).__name__, LONGEST)
            raise AnsibleActionFail(
                f"{wanted}, found {expression!r}, which fails for job {job['id']} ({said})"
            ) from None

    return takes


def selected(
    jobs: Sequence[Mapping[str, Any]], takes: Callable[[Mapping[str, Any]], bool]
) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the jobs that a condition takes, and a warning for each for which it fails.

    A job's owner chooses its name and its attribute: one for which the condition has no answer is left out, and stops
    nobody else's. Raises AnsibleActionFail where it fails for all: then it is the expression that is wrong.
    """
    found, failed = [], []
    for job in jobs:
        try:
            if takes(job):
                found.append(job)
        except AnsibleActionFail as error:
            failed.append(f"{error}: it is left out")
    if failed and len(failed) == len(jobs):
        raise AnsibleActionFail(failed[0].removesuffix(": it is left out"))
    return found, failed


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
            result["jobs"], failed = selected(result["jobs"], takes)
            result["warnings"] = [*result.get("warnings", []), *failed[:MOST]]
        return result
