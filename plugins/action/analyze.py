# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the whole line from collected segments to dependencies on the controller."""

from __future__ import annotations

import os

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._library import DONE_IN_PART, run_verb

_ARGUMENTS = {
    "incoming": {"type": "path", "required": True},
    "store": {"type": "path", "required": True},
    "python": {"type": "path"},
    "timeout_s": {"type": "int", "default": 3600},
}
_MAX_WARNINGS = 20


class ActionModule(ActionBase):
    """The action behind the module analyze."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Take in, attribute, analyze; the module's documentation describes the result."""
        super().run(tmp, task_vars)
        _validation, wanted = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        if not os.path.isdir(wanted["incoming"]):
            if self._task.check_mode:
                return {"changed": False, "skipped": True, "msg": "nothing has been collected yet"}
            raise AnsibleActionFail(
                "Nothing to analyze: expected collected segments in %s, found no such folder; collect first, "
                "and again after a minute if no segment was complete yet"
                % wanted["incoming"]
            )
        arguments = ["run", "--from", wanted["incoming"], "--store", wanted["store"]]
        if self._task.check_mode:
            arguments.append("--check")
        exit_code, document, log = run_verb(wanted["python"], arguments, wanted["timeout_s"])
        quarantined = document.get("quarantined")
        quarantined = quarantined if isinstance(quarantined, list) else []
        result = {
            "changed": bool(document.get("changed")),
            "complete": exit_code != DONE_IN_PART,
            "summary": document,
            "quarantined": quarantined,
            "log": log.splitlines()[-50:],
        }
        warnings = ["put aside: %s" % ascii(_words(entry))[1:-1][:300] for entry in quarantined[:_MAX_WARNINGS]]
        if len(quarantined) > _MAX_WARNINGS:
            warnings.append("... and %d more segments were put aside" % (len(quarantined) - _MAX_WARNINGS))
        if exit_code == DONE_IN_PART and not warnings:
            warnings.append("done in part; see the result's log")
        if warnings:
            result["warnings"] = warnings
        return result


def _words(entry):
    if not isinstance(entry, dict):
        return str(entry)
    return ", ".join("%s: %s" % (key, entry[key]) for key in ("host", "name", "reason") if key in entry)
