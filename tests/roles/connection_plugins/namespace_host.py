# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's way to a namespace host: commands enter its namespaces, files go through their standard input."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: namespace_host
short_description: run on a host made of namespaces
author: whoneeds contributors
description: For tests.
extends_documentation_fragment:
  - connection_pipelining
options:
  pid:
    description: First process of the host.
    type: int
    required: true
    vars:
      - name: namespace_host_pid
"""


class Connection(LocalConnection):
    """Commands on a namespace host."""

    transport = "namespace_host"
    _remote_is_local = False

    def exec_command(self, cmd, in_data=None, sudoable=True):
        """Run a command on the host; a host that has ended cannot be reached."""
        pid = self.get_option("pid")
        if not Path(f"/proc/{pid}/root/proc/1").exists():
            raise AnsibleConnectionFailure(f"the host of process {pid} has ended")
        words = [
            "nsenter", f"--target={pid}", "--mount", "--uts", "--net", "--pid", "--",
            "env", "-i", "-C", "/", "HOME=/root", "LANG=C.UTF-8", f"PATH={os.defpath}:/usr/sbin:/sbin",
            "/bin/sh", "-c", cmd,
        ]  # fmt: skip
        return super().exec_command(shlex.join(words), in_data=in_data, sudoable=sudoable)

    def put_file(self, in_path, out_path):
        """Copy a file to the host."""
        content = Path(in_path).read_bytes()
        code, _output, said = self.exec_command(f"cat > {shlex.quote(out_path)}", in_data=content)
        if code:
            raise AnsibleError(f"cannot write {out_path}: {said!r}")

    def fetch_file(self, in_path, out_path):
        """Copy a file from the host."""
        code, output, said = self.exec_command(f"cat {shlex.quote(in_path)}")
        if code:
            raise AnsibleError(f"cannot read {in_path}: {said!r}")
        Path(out_path).write_bytes(output)
