# SPDX-License-Identifier: GPL-3.0-or-later
"""Rejected and unanswered connections of each application (Macroscope, section 4.1).

"How many rejected flows each application generates", and to how many services and addresses: many of one address
speak of a scan, many of one service of a server that is down.
"""

import ibis

from whoneeds.analysis.attempts import measure_failures, tell_share
from whoneeds.analysis.usage import NOT_KNOWN


def measure_failures_of(attempts: ibis.Table, *, by_user: bool = False) -> ibis.Table:
    """Measure what did not come about.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`.
    by_user : bool, default False
        One row an application and user.

    Returns
    -------
    ibis.Table
        app, user (by user; null: not known), attempts, told (of which the end would be known), rejected, unanswered
        (null: not known), failed_share (of those told), instances (with a failure), services, addresses and targets
        (address, protocol and port) that did not answer, first_ns, last_ns (of failures). Applications without a
        failure are left out unless failures could not have been known of any connection.
    """
    rows = attempts.mutate(user_key=attempts.user.fill_null(NOT_KNOWN))
    key = ("app", "user_key") if by_user else ("app",)
    made = rows.group_by(*key).agg(**measure_failures(rows))
    lost = rows.filter(rows.failed)
    service = lost.protocol + "/" + lost.resp_port.cast("string")
    failed = lost.group_by(*key).agg(
        # what makes an instance within its application, as one value: engines count distinct values of one column
        instances=(lost.host + " " + lost.pid.cast("string") + " " + lost.address).nunique(),
        services=service.nunique(),
        addresses=lost.resp_addr.nunique(),
        targets=(lost.resp_addr + " " + service).nunique(),
        first_ns=lost.first_ns.min(),
        last_ns=lost.last_ns.max(),
    )
    joined = made.left_join(failed, list(key))
    joined = joined.filter((joined.told == 0) | joined.targets.notnull())
    user = {"user": joined.user_key.nullif(NOT_KNOWN)} if by_user else {}
    figures = ("instances", "services", "addresses", "targets", "first_ns", "last_ns")
    return joined.select(
        "app", **user, attempts="attempts", told="told", rejected="rejected", unanswered="unanswered",
        failed_share=tell_share(joined.told_failed, joined.told), **{name: joined[name] for name in figures},
    )  # fmt: skip
