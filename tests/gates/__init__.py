# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's quality gates: Ansible's own tools on a copy of the tracked files, without network besides pip."""
