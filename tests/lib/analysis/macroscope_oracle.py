# SPDX-License-Identifier: GPL-3.0-or-later
"""Macroscope again, by loops over lists: slow and obvious, to compare the set-wise one with."""

import math
from typing import Any

from whoneeds.analysis.macroscope import Thresholds
from whoneeds.model.conclusions import ApplicationInstance, ServiceUse


def instance_of(row: ServiceUse | ApplicationInstance) -> tuple[Any, ...]:
    """What makes an instance."""
    return (row.app, row.host, row.pid, row.address)


def mean_duration_s(uses: list[ServiceUse], period_s: float) -> float:
    """The larger of the observed mean and the estimate from how often each flow was seen; 0 is not known."""
    flows = sum(use.flows for use in uses)
    seen = sum(use.samples for use in uses) / flows
    estimated = period_s / math.log(seen / (seen - 1)) if seen > 1 else 0.0
    return max(sum(use.duration_s for use in uses) / flows, estimated)


def figures(uses: list[ServiceUse], everyone: list[ApplicationInstance], thresholds: Thresholds) -> dict[str, Any]:
    """Support, users and shares of the uses of one service or service instance by one application."""
    population = {instance_of(row) for row in everyone}
    users = {use.user for use in uses} - {None}
    used_by = {instance_of(use) for use in uses}
    share = len(used_by) / len(population)
    flows = sum(use.flows for use in uses)
    period_s = sum(use.period_s * use.flows for use in uses) / flows
    duration_s = mean_duration_s(uses, period_s)
    adjusted = share
    if sum(use.samples for use in uses) >= thresholds.adjusted_from_samples and 0 < duration_s < period_s:
        adjusted = min(1.0, share * (period_s / duration_s))
    return {
        "support": len(used_by),
        "population": len(population),
        "users": len(users) or None,
        "usage_share": share,
        "adjusted_share": adjusted,
        "users_share": len(users) / len({row.user for row in everyone} - {None}) if users else 1.0,
    }


def decide(
    uses: list[ServiceUse], everyone: list[ApplicationInstance], thresholds: Thresholds
) -> dict[tuple[str, int], tuple[str, str]]:
    """Kind and reason of each service of one application."""
    services = {(use.protocol, use.port) for use in uses}
    of_service = {
        s: figures([use for use in uses if (use.protocol, use.port) == s], everyone, thresholds) for s in services
    }
    n = len({instance_of(row) for row in everyone})
    m = math.sqrt(sum((n - row["support"]) ** 2 for row in of_service.values()) / len(services))
    verdicts = {}
    for service, row in of_service.items():
        if m < (n - 1) * thresholds.transient_share:
            verdicts[service] = ("static", "all_static")
        elif service[1] < thresholds.well_known_below:
            verdicts[service] = ("static", "well_known_port")
        elif row["users_share"] >= thresholds.users_share and row["adjusted_share"] >= thresholds.instances_share:
            verdicts[service] = ("static", "shared")
        else:
            verdicts[service] = ("transient", "not_shared")
    return verdicts


def dependencies(
    uses: list[ServiceUse], instances: list[ApplicationInstance], thresholds: Thresholds
) -> list[dict[str, Any]]:
    """All four levels, as rows of `Dependency`."""
    providers: dict[tuple[Any, ...], set[str]] = {}
    for use in uses:
        known = providers.setdefault((use.protocol, use.port, use.resp_addr, use.resp_host), set())
        if use.resp_app is not None:
            known.add(use.resp_app)
    rows = []
    for app in {use.app for use in uses}:
        own = [use for use in uses if use.app == app]
        everyone = [row for row in instances if row.app == app]
        verdicts = decide(own, everyone, thresholds)
        for level in (1, 2, 3, 4):
            groups: dict[tuple[Any, ...], list[ServiceUse]] = {}
            for use in own:
                dependent = instance_of(use)[1:] if level in (3, 4) else (None, None, None)
                provider = (use.resp_addr, use.resp_host) if level in (2, 4) else (None, None)
                groups.setdefault((*dependent, use.protocol, use.port, *provider), []).append(use)
            for (host, pid, address, protocol, port, resp_addr, resp_host), group in groups.items():
                same = [
                    use
                    for use in own
                    if (use.protocol, use.port) == (protocol, port)
                    and (level in (1, 3) or (use.resp_addr, use.resp_host) == (resp_addr, resp_host))
                ]
                shares = figures(same, everyone, thresholds)
                del shares["users_share"]
                names = {
                    use.resp_app if use.resp_app and use.resp_addr == "127.0.0.1" else name if len(known) == 1 else None
                    for use in group
                    for known in [providers[(use.protocol, use.port, use.resp_addr, use.resp_host)]]
                    for name in (known or {None})
                }
                sent = [use.orig_bytes for use in group if use.orig_bytes is not None]
                received = [use.resp_bytes for use in group if use.resp_bytes is not None]
                kind, reason = verdicts[(protocol, port)]
                rows.append(
                    {
                        "level": level, "app": app, "host": host, "pid": pid, "address": address,
                        "protocol": protocol, "port": port, "resp_addr": resp_addr, "resp_host": resp_host,
                        "resp_app": next(iter(names)) if len(names) == 1 else None,
                        "kind": kind, "method": "macroscope", "reason": reason, **shares,
                        "flows": sum(use.flows for use in group),
                        "orig_bytes": sum(sent) if sent else None,
                        "resp_bytes": sum(received) if received else None,
                        "first_ns": min(use.first_ns for use in group),
                        "last_ns": max(use.last_ns for use in group),
                        "probability": None, "grounds": None,
                    }
                )  # fmt: skip
    return rows
