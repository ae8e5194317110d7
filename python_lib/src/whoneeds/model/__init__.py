# SPDX-License-Identifier: GPL-3.0-or-later
"""The vocabulary: every record that moves through the system, its identities and its errors.

It depends on nothing else here. Python 3.9 and the standard library only, since it also runs on traced hosts.
"""
