#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: segments
short_description: Delete segments of a tracer that are safe elsewhere
version_added: 0.1.0
description:
  - Deletes named segments from the directory of a tracer, each only if it still has the digest that was named with it;
    its capture file goes with it.
  - M(whoneeds.discovery.collect) uses it after its own copy is on disk; the tracer's byte budget deletes old segments
    anyway, so that nobody has to.
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
  state:
    description: What the named segments shall be.
    type: str
    choices: [absent]
    default: absent
  segments:
    description: Segments to delete.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the segment, as M(whoneeds.discovery.segments_info) gave it.
        type: str
        required: true
      digest:
        description: Digest that it must still have.
        type: str
        required: true
seealso:
  - module: whoneeds.discovery.collect
  - module: whoneeds.discovery.segments_info
"""

EXAMPLES = r"""
- name: Delete one segment that was copied
  whoneeds.discovery.segments:
    dir: /var/lib/whoneeds
    segments:
      - name: 01763776800000000000-0b0e7bb0-3f2a.seg
        digest: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    state: absent
  become: true
"""

RETURN = r"""
deleted:
  description: Names of the segments that were deleted, or would be in check mode.
  returned: always
  type: list
  elements: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whoneeds.discovery.plugins.module_utils._segments import (
    capture_name,
    holds_digest,
    open_folder,
)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            dir=dict(type="path", required=True),
            state=dict(type="str", choices=["absent"], default="absent"),
            segments=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(name=dict(type="str", required=True), digest=dict(type="str", required=True)),
            ),
        ),
        supports_check_mode=True,
    )
    deleted = []
    try:
        folder_fd = open_folder(module.params["dir"])
        if folder_fd is not None:
            for segment in module.params["segments"]:
                if not holds_digest(folder_fd, segment["name"], segment["digest"]):
                    continue
                if not module.check_mode:
                    os.unlink(segment["name"], dir_fd=folder_fd)
                    try:
                        os.unlink(capture_name(segment["name"]), dir_fd=folder_fd)
                    except FileNotFoundError:
                        pass
                deleted.append(segment["name"])
            if deleted and not module.check_mode:
                os.fsync(folder_fd)
    except OSError as error:
        module.fail_json(
            msg="Cannot delete segments of %s: %s. Expected a tracer's directory that this user may write; become root."
            % (module.params["dir"], error),
            deleted=deleted,
        )
    lines = "".join("%s\n" % name for name in sorted(deleted))
    module.exit_json(
        changed=bool(deleted),
        deleted=deleted,
        diff=dict(before=lines, after="", before_header=module.params["dir"], after_header=module.params["dir"]),
    )


if __name__ == "__main__":
    main()
