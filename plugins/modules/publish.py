#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: publish
short_description: Write dependency facts for the inventory
version_added: 0.1.0
description:
  - Runs C(whoneeds facts) on the controller. It writes the facts document that the inventory plugin
    P(whoneeds.discovery.dependencies#inventory) reads, and an overlay inventory folder for those who want plain files.
  - Files are replaced only when their content differs. Nothing else is touched.
  - Nothing is contacted, so that the task needs no connection to the host it runs for.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.library
  - whoneeds.discovery.attributes
  - whoneeds.discovery.attributes.controller
attributes:
  action:
    support: full
options:
  facts:
    description: File of the facts document on the controller. Keep it outside of inventory folders.
    type: path
    required: true
  overlay:
    description: Folder of the overlay inventory on the controller; none is written without it.
    type: path
  local:
    description:
      - Folder on the controller for the hosts' own shares, which M(whoneeds.discovery.local_fact) copies to the hosts; none
        are written without it.
    type: path
seealso:
  - module: whoneeds.discovery.analyze
  - module: whoneeds.discovery.local_fact
  - plugin: whoneeds.discovery.dependencies
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Publish what was learned
  whoneeds.discovery.publish:
    store: ~/.local/share/whoneeds/fleet/store
    facts: ~/.local/share/whoneeds/fleet/facts.json
    overlay: ~/.local/share/whoneeds/fleet/overlay
  run_once: true
"""

RETURN = r"""
facts:
  description: File of the facts document.
  returned: success
  type: str
overlay:
  description: Folder of the overlay inventory, or null.
  returned: success
  type: str
local:
  description: Folder of the hosts' shares; in check mode, of a preview that goes when the run ends; null without O(local).
  returned: success
  type: str
complete:
  description: Whether everything in the store could be used.
  returned: success
  type: bool
hosts:
  description: Hosts that the facts speak of.
  returned: success
  type: int
files:
  description: Files of the publication, each with whether it changed.
  returned: success
  type: list
  elements: dict
log:
  description: The end of what the library said while it worked.
  returned: success
  type: list
  elements: str
"""
