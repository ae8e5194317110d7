# SPDX-License-Identifier: GPL-3.0-or-later
"""Dependencies seen from the service: which applications use it (Macroscope, section 2.1, the relation turned round).

A service is (protocol, port), wherever it is offered; a service instance is that at one place: on one traced host, or
at one address of a host that is not. Applications, hosts, users and instances are counted, each once.
"""

import ibis

_SERVICE = ("protocol", "port")
_PLACE = ("resp_host", "place")
LEVELS = ("service", "place")


def select_provider(
    service_use: ibis.Table,
    *,
    app: str | None = None,
    host: str | None = None,
    address: str | None = None,
    service: tuple[str, int] | None = None,
) -> ibis.Table:
    """Uses of what an application, a host, an address or a service offers; what is None is not asked for.

    Parameters
    ----------
    service_use : ibis.Table
        Rows with the columns of `ServiceUse` or of `Dependency` that tell what is used.
    app, host, address : str, optional
    service : tuple of (str, int), optional
        Protocol and port.
    """
    for column, wanted in (("resp_app", app), ("resp_host", host), ("resp_addr", address)):
        if wanted is not None:
            service_use = service_use.filter((service_use[column] == wanted).fill_null(False))
    if service is not None:
        service_use = service_use.filter(service_use.protocol == service[0], service_use.port == service[1])
    return service_use


def count_consumers(service_use: ibis.Table, dependency: ibis.Table, level: str | None = "place") -> ibis.Table:
    """Who uses each service.

    Parameters
    ----------
    service_use : ibis.Table
        Rows of `ServiceUse`.
    dependency : ibis.Table
        Rows of `Dependency`, of level 1 at least, which say of which kind a need is.
    level : {"service", "place"} or None
        What makes a row; None makes one row of all.

    Returns
    -------
    ibis.Table
        protocol, port (both levels), resp_host and place (level place); resp_app (where all who know it agree),
        applications, static_applications (with a static need), hosts, users (absent where none is known), instances,
        flows, orig_bytes, resp_bytes, first_ns, last_ns.
    """
    kinds = dependency.filter(dependency.level == 1).select("app", "protocol", "port", "kind")
    uses = service_use.join(kinds, ["app", "protocol", "port"])
    uses = uses.mutate(
        place=uses.resp_host.coalesce(uses.resp_addr),
        needing=ibis.ifelse(uses.kind == "static", uses.app, ibis.null("string")),
        # the parts of an instance as one value: engines count distinct values of one column only
        instance=uses.app + "/" + uses.host + "/" + uses.pid.cast("string") + "/" + uses.address,
    )
    key = {"service": _SERVICE, "place": (*_SERVICE, *_PLACE), None: ()}[level]
    return (uses.group_by(*key) if key else uses).agg(
        resp_app=ibis.ifelse(uses.resp_app.nunique() == 1, uses.resp_app.min(), ibis.null("string")),
        applications=uses.app.nunique(),
        static_applications=uses.needing.nunique(),
        hosts=uses.host.nunique(),
        users=uses.user.nunique().nullif(0),
        instances=uses.instance.nunique(),
        flows=uses.flows.sum().fill_null(0).cast("int64"),
        orig_bytes=uses.orig_bytes.sum().cast("int64"),
        resp_bytes=uses.resp_bytes.sum().cast("int64"),
        first_ns=uses.first_ns.min(),
        last_ns=uses.last_ns.max(),
    )
