# SPDX-License-Identifier: GPL-3.0-or-later
"""Usage frequency and traffic of each service of an application (Macroscope, sections 2.1 and 4.1, Figs. 3b and 8).

The usage frequency is the share of the application's instances that used the service; the traffic is what the service
had of all bytes that the application sent, and of all that it received. Bytes that nobody counted are in neither.
With ``by_user``, both speak of the instances of one user; users who are not known stand together, as a row of their
own.
"""

import ibis

from whoneeds.analysis.attempts import SEVERAL, count_instances, tell_share

#: Stands for a user who is not known, since engines join no unknowns.
NOT_KNOWN = ""


def measure_usage(attempts: ibis.Table, *, by_user: bool = False) -> ibis.Table:
    """Measure what applications use of what they could.

    Parameters
    ----------
    attempts : ibis.Table
        As in `whoneeds.analysis.attempts`, with services named. Those that failed are left out: they are no uses.
    by_user : bool, default False

    Returns
    -------
    ibis.Table
        app, user (by user), protocol, port (null where several are one), ports, kind, instances (that used it),
        population (instances in all), usage_share, users (known ones), connections, uncounted (of them, without
        bytes), orig_bytes, orig_share, resp_bytes, resp_share, first_ns, last_ns.
    """
    rows = attempts.filter(~attempts.failed).mutate(user_key=attempts.user.fill_null(NOT_KNOWN))
    whose = ("app", "user_key") if by_user else ("app",)
    key = (*whose, "protocol", "port", "kind")
    made = rows.group_by(*key).agg(
        ports=rows.resp_port.nunique(),
        users=rows.user.nunique().nullif(0),
        connections=rows.count(),
        uncounted=(rows.orig_bytes.isnull() | rows.resp_bytes.isnull()).cast("int64").sum().cast("int64"),
        orig_bytes=rows.orig_bytes.sum().cast("int64"),
        resp_bytes=rows.resp_bytes.sum().cast("int64"),
        first_ns=rows.first_ns.min(),
        last_ns=rows.last_ns.max(),
    )
    totals = rows.group_by(*whose).agg(
        all_orig=rows.orig_bytes.sum().cast("int64"), all_resp=rows.resp_bytes.sum().cast("int64")
    )
    made = made.join(count_instances(rows, key, "instances"), list(key)).select(
        *key, "instances", *(name for name in made.columns if name not in key)
    )
    totals = totals.join(count_instances(rows, whose, "population"), list(whose)).select(
        *whose, "population", "all_orig", "all_resp"
    )
    made = made.join(totals, list(whose))
    user = {"user": made.user_key.nullif(NOT_KNOWN)} if by_user else {}
    return made.select(
        "app", **user, protocol="protocol", port=made.port.nullif(SEVERAL), ports="ports", kind="kind",
        instances="instances", population="population", usage_share=tell_share(made.instances, made.population),
        users="users", connections="connections", uncounted="uncounted",
        orig_bytes="orig_bytes", orig_share=tell_share(made.orig_bytes, made.all_orig),
        resp_bytes="resp_bytes", resp_share=tell_share(made.resp_bytes, made.all_resp),
        first_ns="first_ns", last_ns="last_ns",
    )  # fmt: skip
