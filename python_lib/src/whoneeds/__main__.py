# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m whoneeds`` is the command ``whoneeds``."""

import sys

from whoneeds.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
