# SPDX-License-Identifier: GPL-3.0-or-later
"""From packets to flows: decode, meter, name; one implementation for every capture."""
