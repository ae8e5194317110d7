# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles and playbooks, played for real: on this machine as it is, and as root on hosts in namespaces."""
