# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: one module a group of verbs. Heavy libraries are imported by the verbs that need them."""
