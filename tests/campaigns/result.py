# SPDX-License-Identifier: GPL-3.0-or-later
"""What a campaign found: figures, violations of promises, and what was left out and why."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

_SHOWN_VIOLATIONS = 20


class Result:
    """Collects what a campaign finds.

    Parameters
    ----------
    campaign : str
    seed, count : int
        What it was started with.
    """

    def __init__(self, campaign: str, seed: int, count: int) -> None:
        self.campaign, self.seed, self.count = campaign, seed, count
        self.figures: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        self.violations: list[str] = []
        self.skipped: list[str] = []
        self._begin_s = time.monotonic()

    def add(self, name: str, number: int = 1) -> None:
        """Count something."""
        self.figures[name] += number

    def note_worst(self, name: str, value: float) -> None:
        """Keep the largest value of something."""
        self.worst[name] = max(self.worst.get(name, value), value)

    def violate(self, what: str) -> None:
        """A promise was broken."""
        self.violations.append(what)
        if len(self.violations) <= _SHOWN_VIOLATIONS:
            print(f"{self.campaign}: VIOLATED: {what}", flush=True)

    def skip(self, what: str) -> None:
        """Something could not be tried; said at once and kept."""
        self.skipped.append(what)
        print(f"{self.campaign}: skipped: {what}", flush=True)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "campaign": self.campaign,
            "seed": self.seed,
            "count": self.count,
            "elapsed_s": round(time.monotonic() - self._begin_s, 1),
            "figures": dict(sorted(self.figures.items())),
            "worst": {name: round(value, 3) for name, value in sorted(self.worst.items())},
            "violations": len(self.violations),
            "violated": self.violations[:1000],
            "skipped": self.skipped,
        }

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")

    def line(self) -> str:
        """One line for people."""
        known = self.as_json()
        figures = [f"{name.replace('_', ' ')} {number}" for name, number in known["figures"].items()]
        figures += [f"worst {name.replace('_', ' ')} {value:g}" for name, value in known["worst"].items()]
        return (
            f"{self.campaign}: {'; '.join(figures)}; skipped {len(self.skipped)}; "
            f"VIOLATIONS {known['violations']} (seed {self.seed}, {known['elapsed_s']:.0f} s)"
        )
