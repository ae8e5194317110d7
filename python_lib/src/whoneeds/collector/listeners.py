# SPDX-License-Identifier: GPL-3.0-or-later
"""Which waiting socket a connection reached: the listener on that port, address, namespace and time."""

import ibis

from whoneeds.store.portable import as_whole


def match_listeners(ends: ibis.Table, waiting: ibis.Table, tolerance_ns: int) -> ibis.Table:
    """Listeners that an end of a connection can have been accepted by.

    Parameters
    ----------
    ends : ibis.Table
        end (any key), host, netns, protocol, addr, port, first_ns, last_ns, period_s, ``own_socket_id`` (the end's
        own socket, which cannot be its own listener; or null).
    waiting : ibis.Table
        From `whoneeds.collector.sockets.waiting_lives`.
    tolerance_ns : int
        Added to the sampling periods: how far the two may be apart in time.

    Returns
    -------
    ibis.Table
        end, listener_id (its socket_id), specificity (3: that very address, 2: any of its family,
        1: any of both families).
    """
    listeners = waiting.select(
        listener_id=waiting.socket_id,
        at_host=waiting.host,
        at_netns=waiting.netns,
        at_protocol=waiting.protocol,
        at_addr=waiting.local_addr,
        at_port=waiting.local_port,
        at_first_ns=waiting.first_ns,
        at_last_ns=waiting.last_ns,
        at_period_s=waiting.period_s,
    )
    both = ends.join(
        listeners,
        [
            ends.host == listeners.at_host,
            ends.netns == listeners.at_netns,
            ends.protocol == listeners.at_protocol,
            ends.port == listeners.at_port,
        ],
    )
    slack_ns = as_whole((both.period_s + both.at_period_s) * 1e9) + tolerance_ns
    is_v6 = both.addr.contains(":")
    # a socket on :: also takes IPv4 unless told otherwise, and nothing in the table says so
    specificity = ibis.cases(
        (both.at_addr == both.addr, 3),
        ((both.at_addr == "0.0.0.0") & ~is_v6, 2),  # noqa: S104
        ((both.at_addr == "::") & is_v6, 2),
        ((both.at_addr == "::") & ~is_v6, 1),
        else_=0,
    )
    fitting = both.filter(
        specificity > 0,
        both.at_first_ns <= both.last_ns + slack_ns,
        both.at_last_ns >= both.first_ns - slack_ns,
        both.listener_id != both.own_socket_id.fill_null(""),
    )
    return fitting.select("end", "listener_id", specificity=specificity.cast("int64")).distinct()
