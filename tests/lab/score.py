# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold what was found against the truth file: ``python -m tests.lab.score TRUTH ROWS [--strict]``.

ROWS is what ``whoneeds deps --format json`` or ``whoneeds connections --format json`` prints: a list of objects, or an
object whose ``rows`` is that list, with orig_host, orig_app, resp_host, resp_app, protocol, resp_port and kind.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from .declaration import expected_samples
from .truth import COUNTED_SAMPLES, PERIOD_S, SCHEMA

KEYS = ("orig_host", "orig_app", "resp_host", "resp_app", "protocol", "resp_port")
Row = dict[str, Any]
# orig_host, orig_app, resp_host, resp_app, protocol, resp_port
Name = tuple[Any, ...]


def lives_long_enough(
    edge: Row, load_s: float, period_s: float = PERIOD_S, counted_samples: float = COUNTED_SAMPLES
) -> bool:
    """Whether a declared dependency counts: enough samples are expected to see it in that time under load, in s."""
    return expected_samples(edge["per_minute"], edge["duration_s"], load_s, period_s) >= counted_samples


def score(
    truth: Row,
    rows: list[Row],
    *,
    load_s: float | None = None,
    period_s: float | None = None,
    counted_samples: float | None = None,
) -> Row:
    """Compare found dependencies with the declared ones.

    Parameters
    ----------
    truth : dict
        The truth document.
    rows : list of dict
        Found dependencies or connections. ``kind`` "static" claims a static dependency, "transient" a transient one;
        absent, None or "unclassified" claims no more than that the hosts spoke.
    load_s, period_s : float, optional
        Time under load and sampling period, seconds; the truth's own by default.
    counted_samples : float, optional
        Static dependencies count as missed from this many expected samples on; the truth's own figure by default.

    Returns
    -------
    dict
        ``found``: declared static dependencies with both names right. ``missed``: those that count and were not found.
        ``false``: claims that nothing declared explains, each with ``why``. ``wrong_names``: right hosts and service,
        another application. ``unnamed``: right hosts and service, an application left open. ``outside``: number of
        rows that begin outside the lab. ``transient``: per application with random ports, how many of its ports were
        seen, how many rows called one of them static, and how many processes it had (None where rows tell no pid).
        ``precision`` = found / (found + false + wrong_names), None when nothing was claimed; ``recall`` = counted ones
        found / counted ones; ``f1`` of both, None precision counting as 0.
    """
    if truth.get("schema") != SCHEMA:
        raise ValueError(f"expected a truth file of schema {SCHEMA}, found {truth.get('schema')!r}; make it anew")
    load_s = truth["load_s"] if load_s is None else load_s
    period_s = truth["period_s"] if period_s is None else period_s
    limit = truth["counted_samples"] if counted_samples is None else counted_samples
    static = {_name(edge): edge for edge in truth["dependencies"] if edge["kind"] == "static"}
    names_by_service: dict[Name, list[Name]] = defaultdict(list)
    for name in static:
        names_by_service[_service(name)].append(name)
    random_ports = {
        (edge["dependent_host"], edge["resp_host"], edge["protocol"]): edge
        for edge in truth["dependencies"]
        if edge["port"] is None
    }
    transient: dict[str, Row] = {
        edge["dependent_app"]: {"ports": set(), "called_static": 0, "pids": set()} for edge in random_ports.values()
    }
    low, high = truth["ephemeral_ports"]
    found: set[Name] = set()
    false: dict[Name, Row] = {}
    wrong: dict[Name, Row] = {}
    unnamed: dict[Name, Row] = {}
    outside = 0
    for row in rows:
        if row.get("orig_host") not in truth["hosts"]:
            outside += 1
            continue
        kind = row.get("kind")
        name = tuple(row.get(key) for key in KEYS)
        pair = (name[0], name[2], name[4])
        scattered = random_ports.get(pair) if low <= (name[5] or 0) <= high else None
        if scattered is not None and name not in static:
            counted = transient[scattered["dependent_app"]]
            counted["ports"].add(name[5])
            if row.get("orig_pid") is not None:
                counted["pids"].add((name[0], row["orig_pid"]))
        if kind == "transient":
            continue
        short = dict(zip(KEYS, name, strict=True))
        candidates = names_by_service.get((name[0], name[2], name[4], name[5]), [])
        if scattered is not None and not candidates:
            if kind == "static":
                transient[scattered["dependent_app"]]["called_static"] += 1
                false[name] = {**short, "why": "a port chosen at random was called static"}
                continue
            candidates = [_name({**scattered, "port": name[5]})]
        if name in candidates:
            if name in static:
                found.add(name)
        elif not candidates:
            known = name[2] in truth["hosts"]
            false[name] = {**short, "why": "not declared" if known else "its responder is no host of the lab"}
        elif None in (name[1], name[3]) and any(_agrees(name, candidate) for candidate in candidates):
            unnamed[name] = short
        else:
            wrong[name] = {**short, "declared": sorted({f"{c[1]} -> {c[3]}" for c in candidates})}
    counted_names = {name for name, edge in static.items() if lives_long_enough(edge, load_s, period_s, limit)}
    claimed = len(found) + len(false) + len(wrong)
    precision = len(found) / claimed if claimed else None
    recall = len(found & counted_names) / len(counted_names) if counted_names else None
    total = (precision or 0.0) + (recall or 0.0)
    return {
        "counted": len(counted_names),
        "found": [_row(name) for name in sorted(found)],
        "missed": [_row(name) for name in sorted(counted_names - found)],
        "false": list(false.values()),
        "wrong_names": list(wrong.values()),
        "unnamed": list(unnamed.values()),
        "outside": outside,
        "transient": {
            app: {
                "ports": len(counted["ports"]),
                "called_static": counted["called_static"],
                "instances": len(counted["pids"]) or None,
            }
            for app, counted in transient.items()
        },
        "precision": precision,
        "recall": recall,
        "f1": 2 * (precision or 0.0) * (recall or 0.0) / total if total else 0.0,
    }


def _name(edge: Row) -> Name:
    keys = ("dependent_host", "dependent_app", "resp_host", "resp_app", "protocol", "port")
    return tuple(edge[key] for key in keys)


def _service(name: Name) -> Name:
    return name[0], name[2], name[4], name[5]


def _agrees(name: Name, candidate: Name) -> bool:
    """Whether what is named is named right."""
    return name[1] in (None, candidate[1]) and name[3] in (None, candidate[3])


def _row(name: Name) -> Row:
    return dict(zip(KEYS, name, strict=True))


def perfect(result: Row) -> bool:
    """Whether all that counts was found, nothing false was claimed and no name was wrong."""
    called_static = sum(counted["called_static"] for counted in result["transient"].values())
    return not (result["missed"] or result["false"] or result["wrong_names"] or called_static)


def score_table(result: Row) -> str:
    """The result as text, one line a finding."""
    lines = []
    for verdict in ("missed", "false", "wrong_names", "unnamed", "found"):
        for row in result[verdict]:
            note = row.get("why") or (f"declared: {', '.join(row['declared'])}" if "declared" in row else "")
            lines.append(
                f"{verdict:<12} {row['orig_host']}/{row['orig_app']} -> {row['resp_host']}/{row['resp_app']} "
                f"{row['protocol']}/{row['resp_port']}  {note}".rstrip()
            )
    for app, counted in result["transient"].items():
        lines.append(
            f"transient    {app}: {counted['ports']} ports, {counted['called_static']} called static, "
            f"{counted['instances'] if counted['instances'] is not None else 'unknown'} instances"
        )
    shares = [
        f"{key} {result[key]:.3f}" if result[key] is not None else f"{key} -" for key in ("precision", "recall", "f1")
    ]
    lines.append(
        f"{len(result['found'])} found, {len(result['missed'])} missed of {result['counted']} that count, "
        f"{len(result['false'])} false, {len(result['wrong_names'])} wrong names; {', '.join(shares)}"
    )
    return "\n".join(lines) + "\n"


def read_rows(text: str) -> list[Row]:
    """Rows from JSON text; ValueError when it is neither a list of objects nor an object with such ``rows``."""
    document = json.loads(text)
    rows = document.get("rows") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected a JSON list of objects, or an object with such a list as `rows`")
    return rows


def main(words: list[str] | None = None) -> int:
    """Score two files; with ``--strict``, 1 unless all is right; 2 when a file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.score", description="Score findings against the truth.")
    parser.add_argument("truth", type=Path)
    parser.add_argument("rows", type=Path, help="JSON of `whoneeds deps` or `whoneeds connections`")
    parser.add_argument("--load-seconds", type=float, help="time under load, if not the truth file's")
    parser.add_argument("--period", type=float, help="sampling period in s, if not the truth file's")
    parser.add_argument("--min-samples", type=float, help="expected samples from which a dependency counts")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--strict", action="store_true", help="exit code 1 unless nothing is missed, false or misnamed")
    arguments = parser.parse_args(words)
    try:
        rows = read_rows(arguments.rows.read_text())
        truth = json.loads(arguments.truth.read_text())
        result = score(
            truth,
            rows,
            load_s=arguments.load_seconds,
            period_s=arguments.period,
            counted_samples=arguments.min_samples,
        )
    except (OSError, ValueError) as wrong:
        print(f"score: {wrong}", file=sys.stderr)
        return 2
    sys.stdout.write(json.dumps(result, indent=1) + "\n" if arguments.format == "json" else score_table(result))
    return 1 if arguments.strict and not perfect(result) else 0


if __name__ == "__main__":
    sys.exit(main())
