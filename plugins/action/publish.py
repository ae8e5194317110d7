# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the facts document and the overlay inventory on the controller."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._library import run_verb

_ARGUMENTS = {
    "store": {"type": "path", "required": True},
    "facts": {"type": "path", "required": True},
    "overlay": {"type": "path"},
    "python": {"type": "path"},
    "timeout_s": {"type": "int", "default": 3600},
}


class ActionModule(ActionBase):
    """The action behind the module publish."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Write what changed; the module's documentation describes the result."""
        super().run(tmp, task_vars)
        _validation, wanted = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        arguments = ["facts", "--store", wanted["store"], "--out", wanted["facts"]]
        if wanted["overlay"]:
            arguments += ["--overlay", wanted["overlay"]]
        if self._task.check_mode:
            arguments.append("--check")
        if self._task.diff:
            arguments.append("--diff")
        _exit_code, document, log = run_verb(wanted["python"], arguments, wanted["timeout_s"])
        files = document.get("files")
        result = {
            "changed": bool(document.get("changed")),
            "facts": wanted["facts"],
            "overlay": wanted["overlay"],
            "hosts": document.get("hosts"),
            "files": files if isinstance(files, list) else [],
            "log": log.splitlines()[-50:],
        }
        if self._task.diff and isinstance(document.get("diff"), list):
            result["diff"] = document["diff"]
        return result
