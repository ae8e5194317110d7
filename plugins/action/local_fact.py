# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave each host its own share of the facts. The text goes from file to file; it is never a template, never a variable."""

from __future__ import annotations

import os
import stat

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._this_host import inventory_name

_ARGUMENTS = {
    "source": {"type": "path", "required": True},
    "path": {"type": "str", "default": "/etc/ansible/facts.d/whoneeds.fact"},
}
_MAX_FACT_BYTES = 4 << 20


class ActionModule(ActionBase):
    """The action behind the module local_fact."""

    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        """Copy the host's share to the host, or remove it where there is none."""
        super().run(tmp, task_vars)
        _validation, wanted = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        source = os.path.join(wanted["source"], inventory_name(task_vars or {}) + ".fact")
        if not _is_usable(source, wanted["source"]):
            return self._execute_module(
                module_name="ansible.builtin.file",
                module_args={"path": wanted["path"], "state": "absent"},
                task_vars=task_vars,
            )
        # Not executable: Ansible reads such a fact as JSON and runs nothing.
        task = self._task.copy()
        task.args = {"src": source, "dest": wanted["path"], "mode": "0644"}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return copy.run(task_vars=task_vars)


def _is_usable(source, folder):
    """Whether there is a share for the host; one that cannot be a share is an error."""
    try:
        found = os.lstat(source)
    except FileNotFoundError:
        if os.path.isdir(folder):
            return False
        raise AnsibleActionFail("Expected the hosts' shares in %s, found no such folder; publish first" % folder)
    if not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_FACT_BYTES:
        raise AnsibleActionFail(
            "%s cannot be a host's share: expected a file of at most %d bytes; publish again" % (source, _MAX_FACT_BYTES)
        )
    return True
