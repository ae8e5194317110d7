# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer rests on: how the hosts of a store were looked at, and what was not seen."""

from dataclasses import dataclass
from typing import Any

from whoneeds.analysis.coverage import count_ends, count_unknown_ends, summarize_gaps, summarize_hosts
from whoneeds.model.conclusions import Attribution
from whoneeds.model.errors import StoreError
from whoneeds.model.evidence import FlowRecord, Gap, SegmentHeader, SocketRecord
from whoneeds.questions import find_clock_gaps
from whoneeds.render.statement import state_blind_spots, state_observation
from whoneeds.store.session import Store


@dataclass(frozen=True)
class Observation:
    """What a store knows of its own evidence.

    Attributes
    ----------
    hosts : int
    samples : int
        Samples of the socket tables, all hosts together.
    flows : int
    sentences : list of str
        What was seen and what was not, for people.
    """

    hosts: int
    samples: int
    flows: int
    sentences: list[str]


def require_segments(store: Store) -> list[dict[str, Any]]:
    """How each host was looked at.

    Raises
    ------
    StoreError
        If nothing was ever taken in: an empty answer would look like a finding.
    """
    hosts: list[dict[str, Any]] = store.read(summarize_hosts(store.table(SegmentHeader))).to_pylist()
    if not hosts and store.segment_hosts():
        raise StoreError(
            "no host was looked at", expected="evidence of at least one host",
            found=f"in {store.path} only flows that somebody watched on the wire",
            remedy="take in segments of hosts (whoneeds ingest) or their own logs (whoneeds import sysmon) as well",
        )  # fmt: skip
    if not hosts:
        raise StoreError(
            "the store is empty", expected=f"evidence in {store.path}", found="no segment that could be used",
            remedy=f"run whoneeds ingest DIR --store {store.path}, and look at what it says of each segment",
        )  # fmt: skip
    return sorted(hosts, key=lambda row: row["host"])


def describe(store: Store) -> Observation:
    """Say what was looked at and what could not be seen.

    Raises
    ------
    StoreError
        If nothing was ever taken in.
    """
    hosts = require_segments(store)
    gaps = store.read(summarize_gaps(store.table(Gap))).to_pylist()
    gaps += [{**gap, "times": 1, "lost": None} for gap in find_clock_gaps(store)]
    known = (store.table(record) for record in (FlowRecord, Attribution, SocketRecord, SegmentHeader))
    ends = store.read(count_unknown_ends(*known)).to_pylist()[0]
    ends_of = store.read(count_ends(store.table(FlowRecord), store.table(Attribution))).to_pylist()
    folder = store.path / "quarantine"
    put_away = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    unseen = sorted(put_away - {row["host"] for row in hosts})
    sentences = [state_observation(hosts), *state_blind_spots(hosts, gaps, ends, unseen, ends_of)]
    if store.manifest.stale:
        sentences.append(
            f"What was worked out rests in part on evidence of before {store.manifest.horizon}, which was pruned "
            "since: whoneeds attribute and whoneeds analyze make it again from what is left."
        )
    samples = sum(row["samples"] for row in hosts)
    if not ends["flows"]:
        sentences.insert(
            1, f"No connection was seen in {samples} samples: look longer, or while the services are in use."
        )
    return Observation(len(hosts), samples, ends["flows"], sentences)
