# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.conformance DIR``: which flows of captures the meter tells as Zeek does, and where it differs.

DIR has an ``index.json`` that names captures, Zeek's conn.log of each, and Zeek's command line. A flow is equal if its
two ends, who began, packets and bytes of each side, how long it took (by a millisecond) and its state are. Zeek's times
may be masked, so flows are compared as sets. Of the command line, ``-C`` (do not check checksums) and a filter
``-f "port N"`` count.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conformance.zeek_state import conn_state
from whoneeds.flow import MeterSettings, meter_capture
from whoneeds.model.evidence import WireFlow

_PIECE_BYTES = 1 << 20
_PORT_FILTER = re.compile(r"-f \"port (\d+)\"")
_UNCHECKED = re.compile(r"\s-[A-Za-z]*C")
_TOLERANCE_S = 0.001
_FIELDS = ("ends", "packets", "bytes", "duration", "state")


def main() -> int:
    """Compare and print; the exit code is 1 if fewer flows are equal than wanted."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="captures, conn.logs and their index.json")
    parser.add_argument("--least", type=float, default=0.98, help="share of flows that must be equal (0.98)")
    parser.add_argument("--out", type=Path, default=Path("build/conformance.json"), help="the results as JSON")
    parser.add_argument("--show", type=int, default=3, help="differing flows that are shown of each capture (3)")
    asked = parser.parse_args()
    rows = [compare(asked.folder, entry) for entry in json.loads((asked.folder / "index.json").read_text())]
    print(f"{'capture':<42}{'Zeek':>6}{'ours':>6}{'equal':>6}  what differs")
    for row in rows:
        why = ", ".join(f"{count} {what}" for what, count in row["differs"].items())
        print(f"{row['capture']:<42}{row['zeek']:>6}{row['ours']:>6}{row['equal']:>6}  {why}")
        for line in row["shown"][: asked.show]:
            print(f"    {line}")
        for problem in row["problems"]:
            print(f"    said: {problem}")
    zeek, equal = sum(row["zeek"] for row in rows), sum(row["equal"] for row in rows)
    ours = sum(row["ours"] for row in rows)
    by_capture = sum(row["equal"] / max(row["zeek"], row["ours"], 1) for row in rows) / len(rows)
    whole = sum(row["equal"] == row["zeek"] == row["ours"] for row in rows)
    share = equal / max(zeek, ours)
    print(f"\n{equal} of {zeek} flows are equal ({ours} of ours): {share:.2%}; mean over captures {by_capture:.2%};")
    print(f"{whole} of {len(rows)} captures are equal as a whole; wanted: {asked.least:.0%} of the flows")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    totals = {"zeek": zeek, "ours": ours, "equal": equal, "share": share, "mean_share": by_capture}
    asked.out.write_text(json.dumps({"schema": 1, "captures": rows, "totals": totals}, indent=1) + "\n")
    return 0 if share >= asked.least else 1


def compare(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """One capture."""
    command = entry["zeek_cmd"]
    with (folder / entry["pcap"]).open("rb") as file:
        settings = MeterSettings(check_checksums=_UNCHECKED.search(command) is None)
        metered = meter_capture(iter(lambda: file.read(_PIECE_BYTES), b""), settings)
        flows = list(metered)
    if (found := _PORT_FILTER.search(command)) is not None:
        flows = [flow for flow in flows if int(found[1]) in (flow.orig_port, flow.resp_port)]
    ours, theirs = [facts_of(flow) for flow in flows], read_conn_log(folder / entry["conn_log"])
    left = list(theirs)
    unequal = []
    for one in ours:
        match = next((other for other in left if not difference(one, other)), None)
        if match is None:
            unequal.append(one)
        else:
            left.remove(match)
    differs, shown = explain(unequal, left)
    return {
        "capture": entry["pcap"], "zeek": len(theirs), "ours": len(ours), "equal": len(theirs) - len(left),
        "differs": dict(differs), "shown": shown, "problems": metered.problems,
    }  # fmt: skip


def facts_of(flow: WireFlow) -> dict[str, Any]:
    """What of a flow is compared; times of one packet have no length."""
    no_ports = flow.protocol in ("sctp", "other")
    ends = (flow.orig_addr, 0 if no_ports else flow.orig_port, flow.resp_addr, 0 if no_ports else flow.resp_port)
    duration_s = (flow.last_ns - flow.first_ns) / 1e9
    return {
        "ends": ("unknown" if no_ports else flow.protocol, *ends),
        "packets": (flow.orig_packets, flow.resp_packets),
        # of a flow without length, Zeek tells no bytes
        "bytes": (flow.orig_bytes, flow.resp_bytes) if duration_s > 0 and not no_ports else None,
        "duration": duration_s,
        "state": conn_state(flow),
    }


def read_conn_log(path: Path) -> list[dict[str, Any]]:
    """The same out of a conn.log."""
    names: list[str] = []
    rows = []
    for line in path.read_text().splitlines():
        words = line.split("\t")
        if words[0] == "#fields":
            names = words[1:]
        elif not line.startswith("#"):
            row = dict(zip(names, words, strict=True))
            known = row["proto"] != "unknown_transport"
            duration_s = 0.0 if row["duration"] == "-" else float(row["duration"])
            rows.append(
                {
                    "ends": (
                        row["proto"] if known else "unknown",
                        row["id.orig_h"], int(row["id.orig_p"]), row["id.resp_h"], int(row["id.resp_p"]),
                    ),
                    "packets": (int(row["orig_pkts"]), int(row["resp_pkts"])),
                    "bytes": (int(row["orig_bytes"]), int(row["resp_bytes"]))
                    if row["orig_bytes"] != "-" and known
                    else None,
                    "duration": duration_s,
                    "state": row["conn_state"],
                }
            )  # fmt: skip
    return rows


def difference(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the facts that differ."""
    differing = []
    for name in _FIELDS:
        if name == "duration":
            if abs(one[name] - other[name]) > _TOLERANCE_S:
                differing.append(name)
        elif name == "bytes" and (one[name] is None or other[name] is None):
            # a length below what is compared is none to one and some to the other
            known = one[name] or other[name]
            if known is not None and any(known) and one["duration"] > _TOLERANCE_S:
                differing.append(name)
        elif one[name] != other[name]:
            differing.append(name)
    return differing


def explain(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[Counter[str], list[str]]:
    """Lay flows of both that differ to each other, and say in what."""
    counts: Counter[str] = Counter()
    shown = []
    left = list(theirs)
    for one in ours:
        flow = _pair(one["ends"])
        near = [other for other in left if _pair(other["ends"]) == flow]
        if not near:
            counts["only ours"] += 1
            shown.append(f"only ours: {_text(one)}")
            continue
        other = min(near, key=lambda row: len(difference(one, row)))
        left.remove(other)
        names = difference(one, other)
        counts[" and ".join(names)] += 1
        shown.append(f"{' and '.join(names)}: ours {_text(one)}; Zeek {_text(other)}")
    for other in left:
        counts["only Zeek"] += 1
        shown.append(f"only Zeek: {_text(other)}")
    return counts, shown


def _pair(ends: tuple[Any, ...]) -> Any:
    return (ends[0], frozenset((ends[1:3], ends[3:5])))


def _text(row: dict[str, Any]) -> str:
    protocol, *ends = row["ends"]
    return (
        f"{protocol} {ends[0]}:{ends[1]} > {ends[2]}:{ends[3]} packets {row['packets']} bytes {row['bytes']} "
        f"{row['duration']:.6f} s {row['state']}"
    )


if __name__ == "__main__":
    sys.exit(main())
