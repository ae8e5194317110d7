#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tracer_owner
short_description: Give a tracer's directory to the user that the tracer runs as
version_added: 0.1.0
description:
  - Makes the directory if there is none, with mode 0700, and hands all of it over if it belongs to another user. No tracer
    may work in it meanwhile.
  - Whoever owned it until now is shut out first, and is not trusted. No symbolic link is followed; links, devices, and
    files that have a second name elsewhere are removed, since no tracer makes them; folders below the first level are refused.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.tracer_directory
  - whoneeds.discovery.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  owner:
    description: Name of the user; its own group becomes that of the files. In check mode it need not exist yet.
    type: str
    required: true
seealso:
  - module: whoneeds.discovery.tracer_info
"""

EXAMPLES = r"""
- name: Give the segments to the tracer's user
  whoneeds.discovery.tracer_owner:
    dir: /var/lib/whoneeds
    owner: whoneeds
  become: true
"""

RETURN = r"""
removed:
  description: Names in the directory that no tracer makes, and that were removed when it was handed over.
  returned: always
  type: list
  elements: str
"""

import errno
import os
import pwd
import stat

from ansible.module_utils.basic import AnsibleModule

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MODE = 0o700


def hand_over(folder_fd, uid, gid, levels=2):
    """Give a directory and everything in it to a user; names of what was removed from it.

    First it is root's alone, so that nobody changes names in it between a look and a step.
    """
    if not levels:
        raise OSError(errno.ELOOP, "a folder in a folder, which no tracer makes")
    removed = []
    os.fchown(folder_fd, 0, 0)
    os.fchmod(folder_fd, _MODE)
    for name in sorted(os.listdir(folder_fd)):
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            child_fd = os.open(name, _DIRECTORY, dir_fd=folder_fd)
            try:
                removed += [os.path.join(name, below) for below in hand_over(child_fd, uid, gid, levels - 1)]
            finally:
                os.close(child_fd)
        elif stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            child_fd = os.open(name, _FILE, dir_fd=folder_fd)
            try:
                os.fchown(child_fd, uid, gid)
            finally:
                os.close(child_fd)
        else:
            os.unlink(name, dir_fd=folder_fd)
            removed.append(name)
    os.fchown(folder_fd, uid, gid)
    return removed


def describe(path):
    """What is there now, as a difference shows it."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return dict(path=path, state="absent")
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    state = "directory" if stat.S_ISDIR(found.st_mode) else "no directory"
    return dict(path=path, state=state, owner=owner, mode="%04o" % stat.S_IMODE(found.st_mode))


def main():
    module = AnsibleModule(
        argument_spec=dict(dir=dict(type="path", required=True), owner=dict(type="str", required=True)),
        supports_check_mode=True,
    )
    path, owner = module.params["dir"], module.params["owner"]
    before = describe(path)
    after = dict(path=path, state="directory", owner=owner, mode="%04o" % _MODE)
    if before["state"] == "no directory":
        module.fail_json(msg="Expected %s to be a directory, found something else; name another one" % path)
    removed = []
    if before != after and not module.check_mode:
        try:
            user = pwd.getpwnam(owner)
        except KeyError:
            module.fail_json(msg="Expected a user %s on this host, found none; make it first" % owner)
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            if before["state"] == "absent":
                os.mkdir(path, _MODE)
            folder_fd = os.open(path, _DIRECTORY)
            removed = hand_over(folder_fd, user.pw_uid, user.pw_gid)
        except OSError as error:
            module.fail_json(msg="Cannot give %s to %s: %s. Become root." % (path, owner, error))
    module.exit_json(changed=before != after, removed=removed, diff=dict(before=before, after=after))


if __name__ == "__main__":
    main()
