# SPDX-License-Identifier: GPL-3.0-or-later
"""How rows look to people and programs: tables for terminals, JSON, CSV. Pure: rows in, text out."""
