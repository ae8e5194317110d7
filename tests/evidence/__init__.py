# SPDX-License-Identifier: GPL-3.0-or-later
"""Hard cases, each with real processes that write down what they did, and the whole line held against it."""
