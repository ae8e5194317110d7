# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of the lab, as the fleet's declaration makes it; the same text stands in git."""

from __future__ import annotations

from pathlib import Path

from .declaration import Fleet
from .rundir import REPOSITORY, RUN

INVENTORY = REPOSITORY / "inventories" / "lab" / "hosts.yml"

_HEAD = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# The hosts of the lab. Made by `python -m tests.lab inventory --write` from tests/lab/fleet.py; change that.
# It works as root while the lab is up; keys are made when the lab starts and are gone when it stops.
---
all:
  vars:
    ansible_user: root
    ansible_python_interpreter: /usr/bin/python3
    # ssh from the controller's namespace, the only place that reaches the hosts.
    ansible_ssh_executable: "{{ inventory_dir }}/../../tests/lab/ctl-ssh"
    ansible_ssh_private_key_file: %(run)s/ssh/id_ed25519
    ansible_ssh_common_args: >-
      -F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes
      -o UserKnownHostsFile=%(run)s/ssh/known_hosts -o GlobalKnownHostsFile=none
    ansible_ssh_transfer_method: piped
  children:
"""


def inventory_text(fleet: Fleet, run: Path = RUN) -> str:
    """The hosts file: variables for all, one group for each kind of host, one address for each host."""
    lines = []
    for group in dict.fromkeys(host.group for host in fleet.hosts):
        lines.append(f"    {group}:\n      hosts:\n")
        lines += [
            f'        {host.name}:\n          ansible_host: "{host.address}"\n'
            for host in fleet.hosts
            if host.group == group
        ]
    return _HEAD % {"run": run} + "".join(lines)
