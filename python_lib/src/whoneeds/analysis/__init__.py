# SPDX-License-Identifier: GPL-3.0-or-later
"""The analysis: pure functions from tables of use to tables of dependencies, one module a method.

No module here touches files, clocks, random state or sockets, and no method knows another. Profiles (`attempts` to
`population`) are no methods: they count what a method decided on.
"""
