#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: local_fact
short_description: Leave a host its own share of the dependency facts
version_added: 0.1.0
description:
  - Copies what the facts say of the host into a local fact on that host, so that C(ansible_local.whoneeds) is
    there whenever facts are gathered.
  - It is a copy for reading; the collection never reads it back.
  - Where the facts do not speak of the host, the file is removed.
  - The folder of the file must exist.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.attributes
  - whoneeds.discovery.attributes.controller
attributes:
  action:
    support: full
options:
  source:
    description: Folder of the hosts' shares on the controller, as M(whoneeds.discovery.publish) writes it.
    type: path
    required: true
  path:
    description: File on the host.
    type: str
    default: /etc/ansible/facts.d/whoneeds.fact
seealso:
  - module: whoneeds.discovery.publish
"""

EXAMPLES = r"""
- name: Tell each host what is known about it
  whoneeds.discovery.local_fact:
    source: ~/.local/share/whoneeds/fleet/local
  become: true
"""

RETURN = r"""
dest:
  description: File on the host.
  returned: when the facts speak of the host
  type: str
path:
  description: File on the host.
  returned: when the file was removed
  type: str
"""
