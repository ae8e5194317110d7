# SPDX-License-Identifier: GPL-3.0-or-later
"""The meter beside Zeek: captures, and the conn.log that Zeek writes of each."""
