# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge all methods on a user's own store, by labels made of what the user knows (see `known_services`).

What comes out is worth as much as the labels are: what nobody spoke of is assumed transient, so a method that finds
such a dependency is charged with a false alarm. How many labels are assumed is a row of its own.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from whoneeds.evaluation.known_services import BY, Key, Label
from whoneeds.evaluation.methods import METHODS
from whoneeds.evaluation.own_data import collect_packets
from whoneeds.evaluation.rows import ALL, Row, ports_of, tell_calibration, tell_score
from whoneeds.evaluation.scores import Score, score_claims
from whoneeds.evaluation.seeded import judge_packets
from whoneeds.store.session import Store


class StoreTables:
    """A store as the methods look at what was observed.

    Parameters
    ----------
    store : Store
        With conclusions in it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def table(self, record: type[Any]) -> Any:
        """The table of a record."""
        return self._store.table(record)

    def keep(self, expression: Any, number: str | None = None, /) -> Any:
        """Work an expression out once."""
        return self._store.keep(expression) if number is None else self._store.keep(expression, number)

    def read(self, expression: Any) -> list[dict[str, Any]]:
        """Rows of an expression."""
        rows: list[dict[str, Any]] = self._store.read(expression).to_pylist()
        return rows

    def read_columns(self, expression: Any) -> pa.Table:
        """The same as columns."""
        made: pa.Table = self._store.read(expression)
        return made


def evaluate_store(store: Store, labels: Mapping[Key, Label]) -> list[Row]:
    """Judge all methods on what a store holds.

    Parameters
    ----------
    store : Store
        Analysed, so that it holds uses and instances.
    labels : mapping
        What is taken for true of each application and service that was observed.

    Returns
    -------
    list of dict
        Rows of the parts ``table2``, ``labels`` and ``calibration``, as of one seed of a population.
    """
    tables = StoreTables(store)
    truth = frozenset(key for key, each in labels.items() if each.static)
    rows: list[Row] = []
    for name, decide in METHODS.items():
        verdicts = decide(tables)
        claimed = ports_of(key for key, verdict in verdicts.items() if verdict.static)
        rows.append(_in_table_2(name, score_claims(claimed, ports_of(truth), ports_of(labels) | claimed)))
        rows += [{"part": "calibration", **row} for row in tell_calibration(name, verdicts, truth)]
    packets = collect_packets(tables.table, tables.read_columns)
    of_app: dict[str, set[int]] = {}
    for app, _protocol, port in sorted(truth):
        of_app.setdefault(app, set()).add(port)
    judged = judge_packets(packets.trace, packets.offered, {app: frozenset(ports) for app, ports in of_app.items()})
    rows += [_in_table_2(row.method, row.score) for row in judged if row.application == ALL]
    by = Counter(each.by for each in labels.values())
    static = Counter(each.by for each in labels.values() if each.static)
    rows += [{"part": "labels", "method": word, "scope": ALL, "count": by[word], "true": static[word]} for word in BY]
    return rows


def _in_table_2(method: str, score: Score) -> Row:
    return {"part": "table2", **tell_score(method, ALL, score)}
