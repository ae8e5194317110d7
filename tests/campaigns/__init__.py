# SPDX-License-Identifier: GPL-3.0-or-later
"""Campaigns: many seeded attempts to make the tracer or the collector lose, mix or invent something.

``kill`` ends real processes at random instants and at every change they make on disk, ``power`` cuts the power of a
real file system, ``fuzz`` feeds damaged input to every reader of things that come from elsewhere. Each counts
violations of what is promised; the promise is none.
"""
