# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leave each host its own share of the facts. The text goes from file to file; it is never a template, never a variable."""

from __future__ import annotations

import json
import os
import tempfile

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._this_host import inventory_name

_ARGUMENTS = {
    "facts": {"type": "path", "required": True},
    "path": {"type": "str", "default": "/etc/ansible/facts.d/whoneeds.fact"},
}
_MAX_DOCUMENT_BYTES = 256 << 20
_MAX_FACT_BYTES = 1 << 20


class ActionModule(ActionBase):
    """The action behind the module local_fact."""

    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        """Copy the host's share to the host, or remove it where there is none."""
        super().run(tmp, task_vars)
        _validation, wanted = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        host = inventory_name(task_vars or {})
        share = _share_of(host, wanted["facts"], self._task.check_mode)
        if share is None:
            return self._run_builtin("file", {"path": wanted["path"], "state": "absent"}, task_vars)
        text = json.dumps({"schema": 1, **share}, sort_keys=True, indent=1) + "\n"
        if len(text) > _MAX_FACT_BYTES:
            raise AnsibleActionFail(
                "The share of host %s is larger than a local fact may be: expected at most %d bytes, found %d"
                % (host, _MAX_FACT_BYTES, len(text))
            )
        with tempfile.TemporaryDirectory(prefix="whoneeds-") as folder:
            source = os.path.join(folder, "whoneeds.fact")
            with open(source, "w", encoding="ascii") as file:
                file.write(text)
            # Not executable: Ansible reads such a fact as JSON and runs nothing.
            return self._run_builtin("copy", {"src": source, "dest": wanted["path"], "mode": "0644"}, task_vars)

    def _run_builtin(self, name, arguments, task_vars):
        if name != "copy":
            return self._execute_module(
                module_name="ansible.builtin." + name, module_args=arguments, task_vars=task_vars
            )
        task = self._task.copy()
        task.args = arguments
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


def _share_of(host, path, check_mode):
    """The part of the facts document that speaks of one host, or None where it does not."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError as error:
        if check_mode:
            return None
        raise AnsibleActionFail("No facts: expected the document %s, found none; publish first" % path) from error
    except OSError as error:
        raise AnsibleActionFail("Cannot read the facts document %s: %s" % (path, error)) from error
    if len(text) > _MAX_DOCUMENT_BYTES:
        raise AnsibleActionFail("The facts document %s is larger than %d bytes" % (path, _MAX_DOCUMENT_BYTES))
    try:
        document = json.loads(text)
    except ValueError as error:
        raise AnsibleActionFail("The facts document %s is damaged: %s; publish again" % (path, error)) from error
    if not isinstance(document, dict) or document.get("kind") != "whoneeds-facts" or document.get("schema") != 1:
        raise AnsibleActionFail(
            "%s: expected a document of kind whoneeds-facts and schema 1, found another; publish with the same version" % path
        )
    hosts = document.get("hosts")
    share = hosts.get(host) if isinstance(hosts, dict) else None
    return share if isinstance(share, dict) else None
