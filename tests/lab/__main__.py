# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.lab up | down | status | truth | inventory | watch | run -- COMMAND``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import rundir
from .audit import audit, watch_wire
from .failure import LabError
from .fleet import FLEET
from .inventory import INVENTORY, inventory_text
from .lifecycle import LIFETIME_S, bring_up, describe, require_root, take_down
from .truth import LOAD_S, PERIOD_S, truth_document


def read_arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab", description="A fleet of namespace hosts with its truth."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    times = argparse.ArgumentParser(add_help=False)
    times.add_argument("--load-seconds", type=float, default=LOAD_S, help="time under load that the truth reckons with")
    times.add_argument("--period", type=float, default=PERIOD_S, help="sampling period that the truth reckons with, s")
    life = argparse.ArgumentParser(add_help=False)
    life.add_argument("--lifetime", type=float, default=LIFETIME_S, help="seconds until the lab stops by itself")
    verbs.add_parser("up", parents=[life, times], help="start the lab and wait until its load flows")
    verbs.add_parser("down", help="take the lab down, whatever there is of it")
    verbs.add_parser("status", help="what runs, as JSON")
    truth = verbs.add_parser("truth", parents=[times], help="print the truth file (no lab needed)")
    truth.add_argument("--out", type=Path, help="write it to this file instead")
    inventory = verbs.add_parser("inventory", help="print the inventory's hosts file (no lab needed)")
    inventory.add_argument(
        "--write", action="store_true", help=f"write it to {INVENTORY.relative_to(rundir.REPOSITORY)}"
    )
    watch = verbs.add_parser("watch", help="watch the wire of a running lab and hold it against the declaration")
    watch.add_argument("--seconds", type=float, default=60.0, help="how long")
    run = verbs.add_parser("run", parents=[life, times], help="bring the lab up, run a command, take the lab down")
    run.add_argument("command", nargs="+", help="the command and its arguments, after --")
    return parser.parse_args(words)


def run_command(arguments: argparse.Namespace) -> int:
    """Bring the lab up, run a command in it, always take it down; the command's own exit code."""
    lab = bring_up(_progress, arguments.lifetime, arguments.load_seconds, arguments.period, tied=True)
    try:
        variables = {
            **os.environ,
            "WHONEEDS_LAB_TRUTH": str(lab.truth),
            "WHONEEDS_LAB_RUN": str(rundir.RUN),
            "WHONEEDS_LAB_INVENTORY": str(INVENTORY.parent),
        }
        # Killed with this process, however that ends: nothing is left that would go on without its lab.
        return subprocess.run(["setpriv", "--pdeathsig", "KILL", *arguments.command], env=variables).returncode
    finally:
        take_down(_progress)


def _progress(text: str) -> None:
    print(f"[lab {time.monotonic() - _BEGAN_S:5.1f} s] {text}", file=sys.stderr, flush=True)


_BEGAN_S = time.monotonic()


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Do one verb; 0 done, 1 failed, 2 usage or not root."""
    # So that whatever was begun is also ended.
    signal.signal(signal.SIGTERM, _end)
    arguments = read_arguments(sys.argv[1:])
    if arguments.verb == "truth":
        text = json.dumps(truth_document(FLEET, arguments.load_seconds, arguments.period), indent=1) + "\n"
        if arguments.out:
            arguments.out.write_text(text)
        else:
            sys.stdout.write(text)
        return 0
    if arguments.verb == "inventory":
        if arguments.write:
            INVENTORY.write_text(inventory_text(FLEET))
        else:
            sys.stdout.write(inventory_text(FLEET))
        return 0
    try:
        require_root()
    except LabError as wrong:
        print(f"lab: {wrong}", file=sys.stderr)
        return 2
    try:
        if arguments.verb == "up":
            lab = bring_up(_progress, arguments.lifetime, arguments.load_seconds, arguments.period)
            _progress(f"up: {len(lab.state.hosts)} hosts; truth in {lab.truth}; it stops in {arguments.lifetime:.0f} s")
        elif arguments.verb == "down":
            _progress("down: nothing is left" if take_down(_progress) else "there was no lab")
        elif arguments.verb == "status":
            print(json.dumps(describe(), indent=1))
        elif arguments.verb == "watch":
            found = audit(FLEET, watch_wire(arguments.seconds), arguments.seconds)
            print(json.dumps(found, indent=1))
            return 1 if found["undeclared"] else 0
        else:
            return run_command(arguments)
    except LabError as wrong:
        print(f"lab: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
