#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: segments_info
short_description: List a tracer's segments, and read pieces of them
version_added: 0.1.0
description:
  - Lists the complete segments in the directory of a tracer, oldest first, with size and digest.
  - With O(pieces) it returns parts of named segments as base64, never more than O(max_bytes) together.
  - It follows no symbolic link and reads regular files only.
  - M(whoneeds.discovery.collect) uses it; it is of little use alone.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.tracer_directory
  - whoneeds.discovery.attributes
  - whoneeds.discovery.attributes.info_module
options:
  pieces:
    description:
      - Parts of segments to return.
      - Without it, the segments are listed.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the segment, as the list gave it, or of its capture file.
        type: str
        required: true
      offset_bytes:
        description: First byte wanted.
        type: int
        default: 0
      length_bytes:
        description: How many bytes are wanted.
        type: int
        required: true
  max_bytes:
    description:
      - Most bytes to return in one call, before base64.
    type: int
    default: 4194304
  max_count:
    description:
      - Most segments to list in one call.
    type: int
    default: 10000
seealso:
  - module: whoneeds.discovery.collect
  - module: whoneeds.discovery.segments
"""

EXAMPLES = r"""
- name: See what the tracer has written
  whoneeds.discovery.segments_info:
    dir: /var/lib/whoneeds
  register: segments
  become: true
"""

RETURN = r"""
segments:
  description: Complete segments, oldest first.
  returned: without O(pieces)
  type: list
  elements: dict
  contains:
    name:
      description: File name.
      type: str
    size_bytes:
      description: Size.
      type: int
    digest:
      description: SHA-256 that the segment says it has, in hexadecimal; null where the file is too short.
      type: str
    capture_bytes:
      description: Size of the capture file beside the segment, which has its name with the ending C(.pcap); null without.
      type: int
more:
  description: How many segments exist beyond those listed.
  returned: without O(pieces)
  type: int
exists:
  description: Whether the directory has a folder of segments at all.
  returned: always
  type: bool
pieces:
  description: The parts asked for, in the order in which they were asked for.
  returned: with O(pieces)
  type: list
  elements: dict
  contains:
    name:
      description: Name of the segment.
      type: str
    offset_bytes:
      description: First byte of this part.
      type: int
    content:
      description: The bytes as base64; null where the segment is gone.
      type: str
"""

import base64

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whoneeds.discovery.plugins.module_utils._segments import (
    list_segments,
    open_folder,
    read_piece,
)


def read_pieces(module, folder_fd):
    """The parts asked for, cut so that together they stay within max_bytes."""
    left_bytes, parts = module.params["max_bytes"], []
    for wanted in module.params["pieces"]:
        if wanted["offset_bytes"] < 0 or wanted["length_bytes"] < 0:
            module.fail_json(msg="offset_bytes and length_bytes of a piece must not be negative, found %r" % (wanted,))
        content = None
        if folder_fd is not None:
            content = read_piece(
                folder_fd, wanted["name"], wanted["offset_bytes"], min(left_bytes, wanted["length_bytes"])
            )
        if content is not None:
            left_bytes -= len(content)
            content = base64.b64encode(content).decode("ascii")
        parts.append(dict(name=wanted["name"], offset_bytes=wanted["offset_bytes"], content=content))
    return parts


def main():
    module = AnsibleModule(
        argument_spec=dict(
            dir=dict(type="path", required=True),
            pieces=dict(
                type="list",
                elements="dict",
                options=dict(
                    name=dict(type="str", required=True),
                    offset_bytes=dict(type="int", default=0),
                    length_bytes=dict(type="int", required=True),
                ),
            ),
            max_bytes=dict(type="int", default=4194304),
            max_count=dict(type="int", default=10000),
        ),
        supports_check_mode=True,
    )
    try:
        folder_fd = open_folder(module.params["dir"])
        if module.params["pieces"] is not None:
            module.exit_json(exists=folder_fd is not None, pieces=read_pieces(module, folder_fd))
        listed, more = ([], 0) if folder_fd is None else list_segments(folder_fd, module.params["max_count"])
        module.exit_json(exists=folder_fd is not None, segments=listed, more=more)
    except OSError as error:
        module.fail_json(
            msg="Cannot read the segments of %s: %s. Expected a tracer's directory that this user may read; "
            "become root, or name another directory." % (module.params["dir"], error)
        )


if __name__ == "__main__":
    main()
