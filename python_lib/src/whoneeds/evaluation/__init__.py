# SPDX-License-Identifier: GPL-3.0-or-later
"""How often the methods are wrong: ours and the baselines on the same populations, and on what a user knows."""
