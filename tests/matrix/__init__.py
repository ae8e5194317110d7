# SPDX-License-Identifier: GPL-3.0-or-later
"""What every ansible-core does with strings from hosts that our files and plugins hand to it."""
