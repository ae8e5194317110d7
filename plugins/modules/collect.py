#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: collect
short_description: Fetch a host's segments to the controller
version_added: 0.1.0
description:
  - Fetches the segments that a tracer has completed over Ansible's own connection, into one folder for each host on the
    controller.
  - Each local name is made by the controller from the inventory's host name and the segment's digest; no name, size or
    digest from the host is believed.
  - A segment counts only when its bytes have the digest and are flushed to disk. Segments that lie here already are
    skipped; one that was interrupted is continued.
  - A segment's capture file (packet headers, in the pcap format) is fetched after it and named like it. Whether it is the
    one that the segment names is checked when the segment is analysed.
  - A damaged segment is kept as C(damaged-...), so that the analysis can put it aside with its reason.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.tracer_directory
  - whoneeds.discovery.attributes
  - whoneeds.discovery.attributes.controller
attributes:
  action:
    support: full
options:
  dest:
    description:
      - Folder of collected segments on the controller; a subfolder for each host is made in it.
    type: path
    required: true
  max_segment_bytes:
    description: A larger segment or capture file is not fetched.
    type: int
    default: 67108864
  max_host_bytes:
    description: Most bytes to fetch from a host in one run; the rest waits for the next run.
    type: int
    default: 1073741824
  keep_free_bytes:
    description: Bytes that must stay free on the controller's disk; otherwise the task fails before it fetches.
    type: int
    default: 1073741824
  piece_bytes:
    description: Bytes fetched with one call of the host.
    type: int
    default: 4194304
  delete:
    description:
      - Delete segments on the host once they lie here durably.
      - Not needed, since the tracer's byte budget deletes old segments.
    type: bool
    default: false
seealso:
  - module: whoneeds.discovery.segments_info
  - module: whoneeds.discovery.analyze
"""

EXAMPLES = r"""
- name: Fetch what the tracer saw
  whoneeds.discovery.collect:
    dir: /var/lib/whoneeds
    dest: ~/.local/share/whoneeds/fleet/incoming
  become: true
"""

RETURN = r"""
path:
  description: The host's folder on the controller.
  returned: always
  type: str
fetched:
  description: Files that arrived whole, or would be fetched in check mode.
  returned: always
  type: list
  elements: str
captures:
  description: Capture files that arrived, or would be fetched in check mode.
  returned: always
  type: list
  elements: str
damaged:
  description: Files that arrived damaged and were kept for the analysis to put aside.
  returned: always
  type: list
  elements: str
present:
  description: Segments of the host that lay here before.
  returned: always
  type: int
postponed:
  description: Segments and capture files that wait for the next run, because of O(max_host_bytes).
  returned: always
  type: int
fetched_bytes:
  description: Bytes that came over the connection.
  returned: always
  type: int
deleted:
  description: Segments deleted on the host.
  returned: always
  type: int
"""
