# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment(object):
    """The option that names a tracer's directory on the host."""

    DOCUMENTATION = r"""
options:
  dir:
    description:
      - Directory of the tracer on the host; the segments are in its subdirectory C(segments).
    type: path
    required: true
"""
