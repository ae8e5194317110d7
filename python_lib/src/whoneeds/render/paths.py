# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths in words."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from whoneeds.analysis.paths import Hop, Path
from whoneeds.render.quantity import tell_count, tell_share
from whoneeds.render.table import Shown

_WHY = {
    "nothing": "needs nothing more",
    "untraced": "host not traced",
    "unnamed": "program not known",
    "unclear": "several programs of that name",
    "cycle": "comes back",
    "depth": "goes on",
}

PATH_NAMES = ["path", "share", "steps", "end", "app", "host"]
PATH_COLUMNS = [
    Shown("PATH", lambda row: row["path"]),
    Shown("SHARE", lambda row: tell_share(row["share"]), 60, right=True),
    Shown("STEPS", lambda row: str(row["steps"]), 40, right=True),
    Shown("END", lambda row: _WHY[row["end"]], 50),
]


def view_path(path: Path) -> dict[str, Any]:
    """A path as a row: its words, its share, how many steps it has, why it ends, and each step by itself."""
    words = [f"{path.app}@{path.host}", *map(_name, path.hops)]
    return {
        "path": " -> ".join(words),
        "share": path.share,
        "steps": len(path.hops),
        "end": path.end,
        "app": path.app,
        "host": path.host,
        "hops": [
            {
                "depends_on": _name(hop), "protocol": hop.protocol, "port": hop.port, "resp_app": hop.resp_app,
                "resp_host": hop.resp_host, "place": hop.place, "kind": hop.kind, "instances": hop.instances,
                "population": hop.population, "share": hop.instances / hop.population,
            }
            for hop in path.hops
        ],
    }  # fmt: skip


def tell_ends(paths: Iterable[Path]) -> list[str]:
    """What paths did not get through, one sentence each."""
    ends = Counter(path.end for path in paths)
    said = []
    if ends["cycle"]:
        said.append(f"{tell_count(ends['cycle'], 'path')} cut where they come back to a program that is on them.")
    if ends["depth"]:
        said.append(
            f"{tell_count(ends['depth'], 'path')} cut at the most steps that were asked for: --hops shows more."
        )
    if ends["unnamed"]:
        said.append(f"{tell_count(ends['unnamed'], 'path')} end at a program that is not known.")
    if ends["unclear"]:
        said.append(
            f"{tell_count(ends['unclear'], 'path')} end where several programs have the name of the one that answered."
        )
    return said


def _name(hop: Hop) -> str:
    who = f"{hop.resp_app}@{hop.place}" if hop.resp_app else hop.place
    return f"{who} {hop.protocol}/{hop.port}"
