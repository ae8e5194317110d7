# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment(object):
    """Options of everything that runs the whoneeds library on the controller."""

    DOCUMENTATION = r"""
options:
  python:
    description:
      - Python interpreter on the controller that has the C(whoneeds) library.
      - Defaults to the environment variable E(WHONEEDS_PYTHON), else to the interpreter that runs Ansible.
    type: path
  store:
    description:
      - Directory of the store on the controller.
    type: path
    required: true
  timeout_s:
    description:
      - The program is ended when it takes longer, in seconds.
    type: int
    default: 3600
requirements:
  - whoneeds library on the controller
"""
