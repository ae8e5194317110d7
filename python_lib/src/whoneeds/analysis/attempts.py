# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that applications began, answered or not: the rows that profiles are counted from.

Each row has the columns of `FlowRecord`, and app, host, pid, address (the instance), user, and ``failed`` (whether it
was rejected or never answered). Three words hold in all profiles:

- A connection belongs to a period if it was seen in any part of it. Nobody knows which of its bytes went when, so
  they count whole.
- Services are named one by one where an application has few of their kind (20 transient or 1000 static ones at
  most); beyond that those of a protocol and kind are one service without a port, however many they are.
- That a connection was refused is known only where events or packets tell how connections end (``told``): samples
  see none that is refused at once. Without them, "no failures" is not known, and no zero is given.
"""

from typing import Any

import ibis

#: What makes an instance (Macroscope, section 2.1), on a host since loopback addresses name no machine.
INSTANCE = ("app", "host", "pid", "address")
#: Stands for the port of several services that are counted as one. Engines join no unknowns.
SEVERAL = -1
_STATIC_ABOVE, _OTHERS_ABOVE = 1000, 20


def select_period(attempts: ibis.Table, since_ns: int | None = None, until_ns: int | None = None) -> ibis.Table:
    """Connections that were seen in any part of a period.

    Parameters
    ----------
    attempts : ibis.Table
    since_ns, until_ns : int, optional
        Its begin, and its end, which is outside.
    """
    if since_ns is not None:
        attempts = attempts.filter(attempts.last_ns >= since_ns)
    return attempts if until_ns is None else attempts.filter(attempts.first_ns < until_ns)


def drop_contradictions(attempts: ibis.Table) -> ibis.Table:
    """Without those whose end lies before their begin: clocks contradict each other, and no time of them can be used.

    Parameters
    ----------
    attempts : ibis.Table
    """
    return attempts.filter(attempts.last_ns >= attempts.first_ns)


def name_services(attempts: ibis.Table, dependency: ibis.Table) -> ibis.Table:
    """Tell which service each connection was for, and of what kind.

    Parameters
    ----------
    attempts : ibis.Table
    dependency : ibis.Table
        Rows of `Dependency` of one method.

    Returns
    -------
    ibis.Table
        The rows with ``port`` (`SEVERAL` where services are counted as one) and ``kind``; ``unclassified`` where no
        dependency tells it.
    """
    kinds = dependency.filter(dependency.level == 1).select("app", "protocol", "kind", resp_port="port")
    services = attempts.select("app", "protocol", "resp_port").distinct()
    services = services.left_join(kinds, ["app", "protocol", "resp_port"])
    services = services.select("app", "protocol", "resp_port", kind=services.kind.fill_null("unclassified"))
    services = services.mutate(alike=services.count().over(group_by=["app", "protocol", "kind"]))
    folded = services.alike > ibis.ifelse(services.kind == "static", _STATIC_ABOVE, _OTHERS_ABOVE)
    services = services.select(
        "app", "protocol", "resp_port", "kind", port=ibis.ifelse(folded, SEVERAL, services.resp_port)
    )
    return attempts.join(services, ["app", "protocol", "resp_port"])


def count_instances(rows: ibis.Table, key: tuple[str, ...], name: str) -> ibis.Table:
    """How many instances stand behind each group of rows.

    Parameters
    ----------
    rows : ibis.Table
        With the columns of `INSTANCE`.
    key : tuple of str
        What makes a group.
    name : str
        Column for the number.
    """
    return rows.select(*dict.fromkeys((*key, *INSTANCE))).distinct().group_by(*key).agg(ibis._.count().name(name))


def tell_share(part: Any, whole: Any) -> Any:
    """Part of a whole; not known where the whole is nothing or not known."""
    return part.cast("float64") / whole.cast("float64").nullif(0.0)


def measure_failures(rows: Any) -> dict[str, Any]:
    """Figures of connections that did not come about, for an aggregation of rows.

    Parameters
    ----------
    rows : ibis.Table

    Returns
    -------
    dict
        ``attempts``; ``told`` (those whose failure would be known); ``rejected``, ``unanswered`` (null where there
        are none and none would be known); ``told_failed``.
    """
    told = rows.period_s == 0.0
    none_told = told.cast("int64").sum() == 0

    def count(word: str) -> Any:
        times = (rows["end"] == word).fill_null(False).cast("int64").sum()
        return ibis.ifelse((times == 0) & none_told, ibis.null("int64"), times)

    return {
        "attempts": rows.count(),
        "told": told.cast("int64").sum().cast("int64"),
        "rejected": count("rejected").cast("int64"),
        "unanswered": count("unanswered").cast("int64"),
        "told_failed": (told & rows.failed).cast("int64").sum().cast("int64"),
    }
