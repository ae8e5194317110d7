# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory calls the host of a task, also when that host would like to be another. Private, controller only."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._intake import host_name_problem


def inventory_name(task_vars):
    """Name of the task's host in the controller's inventory, refused where it cannot be used or believed.

    With fact injection on, a host's facts take the place of variables, ``inventory_hostname`` among them. All facts are
    also in ``ansible_facts``, so that such a host gives itself away.

    Raises
    ------
    AnsibleActionFail
    """
    facts = task_vars.get("ansible_facts") or {}
    if "inventory_hostname" in facts or "ansible_inventory_hostname" in facts:
        raise AnsibleActionFail(
            "A fact of this host names itself inventory_hostname, which can only be meant to pass for another host. "
            "Refused; clear its cached facts, set inject_facts_as_vars to false, and look at the host."
        )
    name = task_vars.get("inventory_hostname")
    problem = host_name_problem(name)
    if problem:
        raise AnsibleActionFail(problem)
    name = str(name)
    if name not in (task_vars.get("groups") or {}).get("all", ()) and name not in ("localhost", "127.0.0.1", "::1"):
        raise AnsibleActionFail("Host %s is not in the inventory; expected one that the controller knows" % name)
    return name
