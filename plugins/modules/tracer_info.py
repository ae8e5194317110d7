#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tracer_info
short_description: See whether a host can run a tracer, and what is there of one
version_added: 0.1.0
description:
  - Looks at what the role P(whoneeds.discovery.tracer#role) has to know before it changes anything, and changes nothing.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.attributes
  - whoneeds.discovery.attributes.info_module
options:
  python:
    description: Interpreter for the tracer; the one that runs this module where it is empty.
    type: str
    default: ""
  places:
    description: Tracers to look for, each by the places of its files.
    type: dict
    required: true
  unit_path:
    description: File of the systemd unit.
    type: path
    required: true
  user:
    description: Name of the user that a tracer without privilege runs as.
    type: str
    default: whoneeds
seealso:
  - module: whoneeds.discovery.tracer_process
"""

EXAMPLES = r"""
- name: See what is there
  whoneeds.discovery.tracer_info:
    unit_path: /etc/systemd/system/whoneeds-tracer.service
    places:
      service:
        dir: /var/lib/whoneeds
        zipapp: /usr/local/lib/whoneeds/whoneeds.pyz
        config: /etc/whoneeds/tracer.json
  become: true
"""

RETURN = r"""
system:
  description: Name of the operating system.
  returned: always
  type: str
  sample: Linux
uid:
  description: Effective user number of the task.
  returned: always
  type: int
python:
  description: The interpreter that will run the tracer.
  returned: always
  type: dict
  contains:
    executable:
      description: Its path.
      type: str
    version:
      description: Its version; null where it cannot be run.
      type: str
    error:
      description: Why it cannot be run.
      type: str
systemd:
  description: Whether systemd runs this host.
  returned: always
  type: bool
unit_exists:
  description: Whether the systemd unit's file is there.
  returned: always
  type: bool
user:
  description: The user that a tracer without privilege runs as.
  returned: always
  type: dict
  contains:
    name:
      description: Its name.
      type: str
    exists:
      description: Whether there is such a user.
      type: bool
    suitable:
      description: Whether it is not root and nobody can log in as it; true where there is none yet.
      type: bool
    made_by_role:
      description: Whether its comment says that the role P(whoneeds.discovery.tracer#role) made it.
      type: bool
places:
  description: The tracers that were asked about, by the same names.
  returned: always
  type: dict
  contains:
    dir:
      description: Directory, with C(~) resolved.
      type: str
    zipapp:
      description: Zipapp, with C(~) resolved.
      type: str
    config:
      description: Configuration file, with C(~) resolved.
      type: str
    installed:
      description: Whether zipapp and configuration are both there.
      type: bool
    exists:
      description: Whether anything is there.
      type: bool
    owner:
      description: Name of the user to whom the directory belongs, or its number; null where there is none.
      type: str
    running:
      description: Whether a tracer works in the directory.
      type: bool
    status:
      description: What the tracer says of itself; empty where none is installed.
      type: dict
    foreign:
      description: Paths in the tracer's directories that no tracer makes, at most five.
      type: list
      elements: str
"""

import os
import platform
import pwd
import subprocess
import sys

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.validation import check_type_path
from ansible_collections.whoneeds.discovery.plugins.module_utils._tracer import (
    TracerError,
    foreign_names,
    is_running,
    read_status,
)

#: What the role writes into the comment of the user that it makes.
USER_COMMENT = "whoneeds tracer"
_NO_LOGIN = ("nologin", "false")
_VERSION = "import sys; sys.stdout.write('%d.%d.%d' % sys.version_info[:3])"


def ask_python(executable):
    """Version of an interpreter, or why it cannot be run."""
    try:
        done = subprocess.run(
            [executable, "-I", "-c", _VERSION], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    version = done.stdout.decode("ascii", "replace")
    if done.returncode == 0 and version.replace(".", "").isdigit():
        return version, None
    return None, done.stderr.decode("utf-8", "replace").strip()[-300:] or "exit code %d" % done.returncode


def find_user(name):
    """What is there of the tracer's user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return dict(name=name, exists=False, suitable=True, made_by_role=False)
    suitable = found.pw_uid != 0 and os.path.basename(found.pw_shell) in _NO_LOGIN
    return dict(name=name, exists=True, suitable=suitable, made_by_role=found.pw_gecos == USER_COMMENT)


def owner_of(path):
    """To whom a directory belongs; None where there is none."""
    try:
        uid = os.stat(path, follow_symlinks=False).st_uid
    except OSError:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def look(executable, place):
    """What is there of one tracer."""
    found = {name: os.path.abspath(check_type_path(place[name])) for name in ("dir", "zipapp", "config")}
    status = read_status(executable, found["zipapp"], found["dir"]) if executable else {}
    found.update(
        installed=os.path.isfile(found["zipapp"]) and os.path.isfile(found["config"]),
        exists=any(os.path.lexists(found[name]) for name in ("dir", "zipapp", "config")),
        owner=owner_of(found["dir"]),
        running=is_running(status),
        status=status,
        foreign=foreign_names(found["dir"], os.path.dirname(found["zipapp"]), os.path.dirname(found["config"]))[:5],
    )
    return found


def main():
    module = AnsibleModule(
        argument_spec=dict(
            python=dict(type="str", default=""),
            places=dict(type="dict", required=True),
            unit_path=dict(type="path", required=True),
            user=dict(type="str", default="whoneeds"),
        ),
        supports_check_mode=True,
    )
    for name, place in module.params["places"].items():
        if not isinstance(place, dict) or not all(isinstance(place.get(key), str) for key in ("dir", "zipapp", "config")):
            module.fail_json(msg="places.%s: expected dir, zipapp and config as paths, found %r" % (name, place))
    executable = module.params["python"] or sys.executable
    version, error = ask_python(executable)
    try:
        asked = executable if version else None
        places = {name: look(asked, place) for name, place in module.params["places"].items()}
    except (OSError, TracerError) as failure:
        module.fail_json(msg="Cannot look at the tracer: %s; become the user that the tracer runs as" % failure)
    module.exit_json(
        system=platform.system(),
        uid=os.geteuid(),
        python=dict(executable=executable, version=version, error=error),
        systemd=os.path.isdir("/run/systemd/system"),
        unit_exists=os.path.isfile(module.params["unit_path"]),
        user=find_user(module.params["user"]),
        places=places,
    )


if __name__ == "__main__":
    main()
