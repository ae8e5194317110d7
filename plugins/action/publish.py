# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the facts document, the overlay inventory and the hosts' shares on the controller."""

from __future__ import annotations

import os
import tempfile

from ansible import constants as C
from ansible.plugins.action import ActionBase

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._library import DONE_IN_PART, run_verb

_ARGUMENTS = {
    "store": {"type": "path", "required": True},
    "facts": {"type": "path", "required": True},
    "overlay": {"type": "path"},
    "local": {"type": "path"},
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
        if self._task.check_mode and not os.path.isdir(wanted["store"]):
            return {"changed": False, "skipped": True, "msg": "nothing has been analyzed yet", "local": None}
        arguments = ["facts", "--store", wanted["store"], "--out", wanted["facts"]]
        for name in ("overlay", "local"):
            if wanted[name]:
                arguments += ["--" + name, wanted[name]]
        if self._task.check_mode:
            arguments.append("--check")
        if self._task.diff:
            arguments.append("--diff")
        exit_code, document, log = run_verb(wanted["python"], arguments, wanted["timeout_s"])
        files = document.get("files")
        result = {
            "changed": bool(document.get("changed")),
            "complete": exit_code != DONE_IN_PART,
            "facts": wanted["facts"],
            "overlay": wanted["overlay"],
            "local": wanted["local"],
            "hosts": document.get("hosts"),
            "files": files if isinstance(files, list) else [],
            "log": log.splitlines()[-50:],
        }
        if exit_code == DONE_IN_PART:
            result["warnings"] = ["done in part: " + "; ".join(log.splitlines()[-3:])]
        if self._task.diff and isinstance(document.get("diff"), list):
            result["diff"] = document["diff"]
        if self._task.check_mode and wanted["local"]:
            result["local"] = _preview(wanted)
        return result


def _preview(wanted):
    """Folder with the hosts' shares as they would be, so that later tasks of a check run foresee what they would copy.

    It lies in Ansible's own temporary folder, which goes when the run ends.
    """
    folder = tempfile.mkdtemp(prefix="whoneeds-", dir=C.DEFAULT_LOCAL_TMP)
    local = os.path.join(folder, "local")
    arguments = ["facts", "--store", wanted["store"], "--out", os.path.join(folder, "facts.json"), "--local", local]
    run_verb(wanted["python"], arguments, wanted["timeout_s"])
    return local
