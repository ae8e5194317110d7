# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and sets of the services that rows speak of: what all that is known of them agrees on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Naming(NamedTuple):
    """How a service is called, and of which set it is.

    Attributes
    ----------
    name : str or None
        The one name that all named calls were made by.
    any_of : str or None
        The one set that every address of it is in.
    organisation : str or None
        Whom the name belongs to.
    """

    name: str | None = None
    any_of: str | None = None
    organisation: str | None = None


class Names:
    """Names by what calls and what is called.

    Parameters
    ----------
    destinations, replica_sets : iterable of mapping
        Rows of `Destination` and `ReplicaSet`.
    """

    def __init__(self, destinations: Iterable[Row], replica_sets: Iterable[Row]) -> None:
        self._called: defaultdict[tuple[str, str, int], list[Row]] = defaultdict(list)
        for row in destinations:
            self._called[row["app"], row["protocol"], row["port"]].append(row)
        self._sets: defaultdict[tuple[str, str, str, int, str], set[str]] = defaultdict(set)
        for row in replica_sets:
            self._sets[row["app"], row["host"], row["protocol"], row["port"], row["resp_addr"]].add(row["set_id"])

    def look_up(self, row: Row) -> Naming:
        """What is known of the service of a row.

        Parameters
        ----------
        row : mapping
            Rows of `Dependency`, or of the view by host. What is None there may be anything, but one of address and
            host must be known: a service without a place has no name.
        """
        address, resp_host = row["resp_addr"], row["resp_host"]
        if address is None and resp_host is None:
            return Naming()
        meant = [
            one
            for one in self._called.get((row["app"], row["protocol"], row["port"]), ())
            if row["host"] in (None, one["host"])
            and address in (None, one["resp_addr"])
            and resp_host == one["resp_host"]
        ]
        sets = [
            self._sets.get((one["app"], one["host"], one["protocol"], one["port"], one["resp_addr"]), set())
            for one in meant
        ]
        of_all = sets[0] if sets and all(one == sets[0] for one in sets) else set()
        return Naming(
            _only({one["name"] for one in meant} - {None}),
            _only(of_all),
            _only({one["organisation"] for one in meant} - {None}),
        )


def _only(values: set[Any]) -> Any:
    """The one value there is; None where there are none or several."""
    return next(iter(values)) if len(values) == 1 else None
