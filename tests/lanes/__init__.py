# SPDX-License-Identifier: GPL-3.0-or-later
"""The test lanes: what `make test` runs, two at a time, each with its own log."""
