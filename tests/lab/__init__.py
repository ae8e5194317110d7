# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: a fleet of namespace hosts with real systemd, real services, and a truth file.

``fleet`` declares; ``inventory``, ``truth`` and ``hostfiles`` derive from it; ``keeper`` makes it and ends it.
"""
