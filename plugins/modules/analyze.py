#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: analyze
short_description: Turn collected segments into dependencies
version_added: 0.1.0
description:
  - Runs C(whoneeds run) on the controller. It takes new segments in, joins sockets with processes and both ends of
    connections, and decides which applications depend on which services.
  - A segment that cannot be used is put aside with its reason and becomes a warning; the others go on.
  - Nothing is contacted, so that the task needs no connection to the host it runs for.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.library
  - whoneeds.discovery.attributes
  - whoneeds.discovery.attributes.controller
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  action:
    support: full
options:
  incoming:
    description: Folder of collected segments on the controller, as M(whoneeds.discovery.collect) fills it.
    type: path
    required: true
seealso:
  - module: whoneeds.discovery.collect
  - module: whoneeds.discovery.publish
"""

EXAMPLES = r"""
- name: Analyze what was collected
  whoneeds.discovery.analyze:
    incoming: ~/.local/share/whoneeds/fleet/incoming
    store: ~/.local/share/whoneeds/fleet/store
  run_once: true
"""

RETURN = r"""
complete:
  description: Whether every segment could be used.
  returned: success
  type: bool
summary:
  description: What the library reported.
  returned: success
  type: dict
quarantined:
  description: Segments that were put aside in this run, with the reason.
  returned: success
  type: list
  elements: dict
log:
  description: The end of what the library said while it worked.
  returned: success
  type: list
  elements: str
"""
