# SPDX-License-Identifier: GPL-3.0-or-later
"""PID 1 of the lab's outer PID namespace: it lives, and buries orphans.

Everything of the lab runs beneath it, so its end is the end of every process, mount and network of the lab. It is
started as a file, without the package, to stay small.
"""

import contextlib
import os
import time


def main() -> None:
    """Say that it lives, then wait for children for ever."""
    print("alive", flush=True)
    while True:
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        time.sleep(0.5)


if __name__ == "__main__":
    main()
