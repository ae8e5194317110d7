# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.campaigns kill|power|fuzz [--count N] [--seed S] [--out FILE]``; exit code 1 on any violation."""

import argparse
import importlib
import sys
from pathlib import Path

from tests.campaigns.result import Result

#: By campaign: what its count counts, and the full count.
CAMPAIGNS = {
    "kill": ("random kills of the tracer; ingests and changes on disk follow from it", 2000),
    "power": ("power cuts while segments are committed; stores follow from it", 1500),
    "fuzz": ("damaged segments; the other inputs follow from it", 100_000),
}


def main() -> int:
    """Run one campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("campaign", choices=sorted(CAMPAIGNS), help="which")
    parser.add_argument(
        "--count", type=int, help="; ".join(f"{name}: {what} ({full})" for name, (what, full) in CAMPAIGNS.items())
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn at random (1)")
    parser.add_argument("--out", type=Path, help="where the results go as JSON (build/campaigns/NAME.json)")
    given = parser.parse_args()
    if given.count is not None and given.count < 1:
        parser.error(f"expected a count of 1 or more, found {given.count}")
    result = Result(given.campaign, given.seed, given.count or CAMPAIGNS[given.campaign][1])
    importlib.import_module(f"tests.campaigns.{given.campaign}").run(result)
    out = given.out or Path("build/campaigns") / f"{given.campaign}.json"
    result.write(out)
    print(f"{result.line()}\n{given.campaign}: written to {out}", flush=True)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
