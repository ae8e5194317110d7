# SPDX-License-Identifier: GPL-3.0-or-later
"""``make test-spark``: the line on a real Spark cluster of this machine, held against the line on DuckDB."""
