# SPDX-License-Identifier: GPL-3.0-or-later
"""What could not be seen, in plain words: it stands under every table."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whoneeds.render.quantity import tell_count, tell_instant
from whoneeds.render.visible import make_visible

_MOST_NAMES = 5

#: What a gap's reason means for the reader.
_REASONS = {
    "permission": "not permitted",
    "vanished": "gone before it could be read",
    "unsupported": "not offered by the host",
    "late": "samples came too late",
    "dropped": "lost for want of room",
    "truncated": "cut short",
    "ambiguous": "ambiguous",
    "failed": "failed",
}


def state_observation(hosts: Sequence[Mapping[str, Any]]) -> str:
    """What was looked at, in one sentence.

    Parameters
    ----------
    hosts : sequence of mapping
        Rows of `whoneeds.analysis.coverage.summarize_hosts`.
    """
    samples = sum(row["samples"] for row in hosts)
    first = tell_instant(min(row["first_ns"] for row in hosts))
    last = tell_instant(max(row["last_ns"] for row in hosts))
    return f"Seen: {tell_count(len(hosts), 'host')}, {tell_count(samples, 'sample')}, {first} to {last}."


def state_blind_spots(
    hosts: Sequence[Mapping[str, Any]],
    gaps: Iterable[Mapping[str, Any]],
    ends: Mapping[str, Any],
    unseen_hosts: Sequence[str] = (),
    ends_of: Iterable[Mapping[str, Any]] = (),
) -> list[str]:
    """What could not be seen, one sentence each; empty if nothing is known to be missing.

    Parameters
    ----------
    hosts, gaps : rows of `whoneeds.analysis.coverage.summarize_hosts` and `summarize_gaps`
    ends : mapping
        The row of `whoneeds.analysis.coverage.count_unknown_ends`.
    unseen_hosts : sequence of str
        Hosts from which nothing usable came.
    ends_of : rows of `whoneeds.analysis.coverage.count_ends`
    """
    said = []
    if unseen_hosts:
        said.append(f"Nothing usable came from {_names(unseen_hosts)}.")
    blind = [row["host"] for row in hosts if row["unprivileged"]]
    if blind:
        said.append(
            f"Without root on {_names(blind)}: processes of other users, and what they need, have no name there."
        )
    dropped = [row for row in hosts if row["dropped_segments"]]
    if dropped:
        total = tell_count(sum(row["dropped_segments"] for row in dropped), "segment")
        said.append(
            f"Lost to the byte budget before they were collected: {total} on {_names(r['host'] for r in dropped)}."
        )
    said += _tell_gaps(gaps)
    if ends["unnamed_here"]:
        said.append(
            f"{ends['unnamed_here']} of {tell_count(ends['flows'], 'connection')} have an end on a traced host whose "
            "program is not known."
        )
    said += _tell_ambiguity(ends_of)
    if ends["ended_before"]:
        said.append(
            f"{tell_count(ends['ended_before'], 'connection')} had ended when tracing began: their ports are known, "
            "their programs are not."
        )
    if ends["undirected"]:
        said.append(
            f"Of {tell_count(ends['undirected'], 'connection')} it is not known which end began; they count for nobody."
        )
    if ends["unpaired"]:
        said.append(
            f"The other end of {tell_count(ends['unpaired'], 'connection')} is one of several sockets that were seen, "
            "and it cannot be told which: each is kept as seen from one end."
        )
    if ends["astray"]:
        said.append(
            f"{tell_count(ends['astray'], 'connection')} went on to another address than the one that was called, and "
            "it is not known which: trace the host that translates, as root."
        )
    if ends["untraced_addresses"]:
        said.append(
            f"{tell_count(ends['untraced_addresses'], 'called address', 'called addresses')} of no traced host: "
            "what answers there is not known."
        )
    return said


def _tell_ambiguity(ends_of: Iterable[Mapping[str, Any]]) -> list[str]:
    """Where processes come into question and none is named, the hosts with most of it first."""
    rows = sorted((row for row in ends_of if row["ambiguous"]), key=lambda row: (-row["ambiguous"], row["host"]))
    if not rows:
        return []
    shown = [f"{row['ambiguous']} of {row['ends']} on {make_visible(row['host'])}" for row in rows[:_MOST_NAMES]]
    more = f", and on {tell_count(len(rows) - _MOST_NAMES, 'more host')}" if len(rows) > _MOST_NAMES else ""
    return [f"Processes come into question, and it cannot be told which, at these ends: {', '.join(shown)}{more}."]


def _tell_gaps(gaps: Iterable[Mapping[str, Any]]) -> list[str]:
    together: defaultdict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in gaps:
        together[(row["source"], row["reason"])].append(row)
    said = []
    for (source, reason), rows in sorted(together.items()):
        lost = sum(row["lost"] or 0 for row in rows)
        amount = f", {lost} lost" if lost else ""
        detail = make_visible(max(row["detail"] for row in rows))
        times = tell_count(sum(row["times"] for row in rows), "time")
        said.append(
            f"Not seen on {_names(row['host'] for row in rows)}: {detail.rstrip('.')} "
            f"({make_visible(source)} {_REASONS[reason]}, {times}{amount})."
        )
    return said


def _names(names: Iterable[str]) -> str:
    known = sorted(set(names))
    shown = ", ".join(make_visible(name) for name in known[:_MOST_NAMES])
    return shown if len(known) <= _MOST_NAMES else f"{shown} and {len(known) - _MOST_NAMES} more"
