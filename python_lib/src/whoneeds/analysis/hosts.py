# SPDX-License-Identifier: GPL-3.0-or-later
"""The view that an operator asks for first: an application on a host needs an application on a host.

It lies between the method's levels: level 4 with the instances of an application on one host, and the addresses of
one providing host, folded together.
"""

import ibis

from whoneeds.model.conclusions import Dependency
from whoneeds.model.schema import columns

_SERVICE = ("app", "protocol", "port")
_FROM_SERVICE = (
    "kind", "method", "reason", "probability", "grounds", "population", "users", "usage_share", "adjusted_share",
)  # fmt: skip


def fold_to_hosts(dependency: ibis.Table) -> ibis.Table:
    """Fold dependencies of level 4 by host.

    Parameters
    ----------
    dependency : ibis.Table
        Rows of `Dependency`, of levels 1 and 4 at least.

    Returns
    -------
    ibis.Table
        Columns of `Dependency`, with ``level`` and ``pid`` not known. ``support`` counts the instances on the
        host; kind, users, population and shares are those of the application fleet-wide (level 1).
        ``resp_addr`` stands where it is one only; providers on hosts that are not traced are told apart by it.
    """
    fine = dependency.filter(dependency.level == 4)
    fine = fine.mutate(place=ibis.coalesce(fine.resp_host, fine.resp_addr))
    key = ("app", "host", "protocol", "port", "resp_host", "place")
    used = fine.group_by(*key).agg(
        resp_app=_agreed(fine.resp_app),
        resp_addr=_agreed(fine.resp_addr),
        address=_agreed(fine.address),
        flows=fine.flows.sum(),
        orig_bytes=fine.orig_bytes.sum(),
        resp_bytes=fine.resp_bytes.sum(),
        first_ns=fine.first_ns.min(),
        last_ns=fine.last_ns.max(),
        # the parts of an instance below its host, as one value: engines count distinct values of one column only
        support=(fine.pid.cast("string") + "/" + fine.address).nunique(),
    )
    coarse = dependency.filter(dependency.level == 1).select(*_SERVICE, *_FROM_SERVICE)
    joined = used.join(coarse, list(_SERVICE))
    return joined.select(
        **{
            column.name: (joined[column.name] if column.name in joined.columns else ibis.null(column.type)).cast(
                column.type
            )
            for column in columns(Dependency)
        }
    )


def _agreed(column: ibis.Column) -> ibis.Column:
    """The value that all known ones share, or not known."""
    return ibis.ifelse(column.nunique() == 1, column.min(), ibis.null("string"))
