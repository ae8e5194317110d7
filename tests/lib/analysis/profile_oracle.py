# SPDX-License-Identifier: GPL-3.0-or-later
"""The profiles again, by loops over lists: slow and obvious, to compare the set-wise ones with."""

from typing import Any

from whoneeds.analysis.slices import Slices

Row = dict[str, Any]


def instance_of(row: Row) -> tuple[Any, ...]:
    """What makes an instance."""
    return (row["app"], row["host"], row["pid"], row["address"])


def total(rows: list[Row], name: str) -> int | None:
    """Sum of what is known; not known if nothing is."""
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known) if known else None


def share(part: int | None, whole: int | None) -> float | None:
    """Part of a whole that is something."""
    return None if part is None or not whole else part / whole


def uncounted(rows: list[Row]) -> int:
    """Connections of which a side's bytes are not known."""
    return sum(row["orig_bytes"] is None or row["resp_bytes"] is None for row in rows)


def port_of(row: Row) -> int | None:
    """The port that is told; None stands for several."""
    return None if row["port"] == -1 else row["port"]


def failures(rows: list[Row]) -> Row:
    """Figures of what did not come about."""
    told = [row for row in rows if row["period_s"] == 0]
    figures = {word: sum(row["end"] == word for row in rows) for word in ("rejected", "unanswered")}
    if not told:
        figures = {word: times or None for word, times in figures.items()}
    return {**figures, "failed_share": share(sum(row["failed"] for row in told), len(told))}


def usage(attempts: list[Row], *, by_user: bool) -> list[Row]:
    """Usage frequency and traffic of each service."""
    rows = [row for row in attempts if not row["failed"]]
    made = []
    for who in {(row["app"], row["user"] if by_user else "all") for row in rows}:
        own = [row for row in rows if (row["app"], row["user"] if by_user else "all") == who]
        for service in {(row["protocol"], row["port"], row["kind"]) for row in own}:
            used = [row for row in own if (row["protocol"], row["port"], row["kind"]) == service]
            instances, population = ({instance_of(row) for row in part} for part in (used, own))
            made.append(
                {
                    "app": who[0], **({"user": who[1]} if by_user else {}), "protocol": service[0],
                    "port": port_of(used[0]), "ports": len({row["resp_port"] for row in used}), "kind": service[2],
                    "instances": len(instances), "population": len(population),
                    "usage_share": len(instances) / len(population),
                    "users": len({row["user"] for row in used} - {None}) or None, "connections": len(used),
                    "uncounted": uncounted(used),
                    "orig_bytes": total(used, "orig_bytes"),
                    "orig_share": share(total(used, "orig_bytes"), total(own, "orig_bytes")),
                    "resp_bytes": total(used, "resp_bytes"),
                    "resp_share": share(total(used, "resp_bytes"), total(own, "resp_bytes")),
                    "first_ns": min(row["first_ns"] for row in used), "last_ns": max(row["last_ns"] for row in used),
                }
            )  # fmt: skip
    return made


def traffic(attempts: list[Row], flows: list[Row], *, by_user: bool) -> list[Row]:
    """Each application's share of all traffic."""
    tried = {row["flow_id"] for row in attempts}
    groups: dict[Any, list[Row]] = {}
    for row in attempts:
        groups.setdefault((row["app"], row["user"] if by_user else "all"), []).append(row)
    nameless = [row for row in flows if row["flow_id"] not in tried]
    made = []
    for (app, user), rows in [*groups.items(), *([((None, None), nameless)] if nameless else [])]:
        nothing = {"rejected": None, "unanswered": None, "failed_share": None}
        made.append(
            {
                "app": app, **({"user": user} if by_user else {}),
                "instances": len({instance_of(row) for row in rows}) if app else None,
                "connections": len(rows), "connections_share": len(rows) / len(flows), "uncounted": uncounted(rows),
                "orig_bytes": total(rows, "orig_bytes"),
                "orig_share": share(total(rows, "orig_bytes"), total(flows, "orig_bytes")),
                "resp_bytes": total(rows, "resp_bytes"),
                "resp_share": share(total(rows, "resp_bytes"), total(flows, "resp_bytes")),
                **(failures(rows) if app else nothing),
            }
        )  # fmt: skip
    return made


def failing(attempts: list[Row], *, by_user: bool) -> list[Row]:
    """What did not come about, and where."""
    made = []
    for app, user in {(row["app"], row["user"] if by_user else "all") for row in attempts}:
        rows = [row for row in attempts if (row["app"], row["user"] if by_user else "all") == (app, user)]
        lost, told = [row for row in rows if row["failed"]], [row for row in rows if row["period_s"] == 0]
        if not lost and told:
            continue
        services = [(row["protocol"], row["resp_port"]) for row in lost]
        made.append(
            {
                "app": app, **({"user": user} if by_user else {}), "attempts": len(rows), "told": len(told),
                **failures(rows),
                "instances": len({instance_of(row) for row in lost}) if lost else None,
                "services": len(set(services)) if lost else None,
                "addresses": len({row["resp_addr"] for row in lost}) if lost else None,
                "targets": len({(row["resp_addr"], *service) for row, service in zip(lost, services, strict=True)})
                if lost else None,
                "first_ns": min((row["first_ns"] for row in lost), default=None),
                "last_ns": max((row["last_ns"] for row in lost), default=None),
            }
        )  # fmt: skip
    return made


def lies_in(row: Row, begin_ns: int, length_ns: int) -> bool:
    """Whether any instant of a row lies in a slice."""
    return row["first_ns"] < begin_ns + length_ns and row["last_ns"] >= begin_ns


def sliced(attempts: list[Row], segments: list[Row], slices: Slices) -> list[Row]:
    """Figures of each slice."""
    rows = [row for row in attempts if row["last_ns"] >= row["first_ns"]]
    span = {"first_ns": slices.begin_ns, "last_ns": slices.end_ns - 1}
    answered = [
        row for row in rows if not row["failed"] and lies_in(row, span["first_ns"], slices.end_ns - slices.begin_ns)
    ]
    services = {(row["app"], row["protocol"], row["port"], row["kind"]) for row in answered}
    made = []
    for at, begin_ns in enumerate(slices.begins):
        end_ns = begin_ns + slices.length_ns
        watched = [
            row
            for row in segments
            if begin_ns <= max(row["opened_ns"], row["closed_ns"] - 1) and row["opened_ns"] < end_ns
        ]
        spent = sum(min(row["closed_ns"], end_ns) - max(row["opened_ns"], begin_ns) for row in watched)
        for app, protocol, port, kind in services:
            here = [row for row in answered if row["app"] == app and lies_in(row, begin_ns, slices.length_ns)]
            used = [row for row in here if (row["protocol"], row["port"], row["kind"]) == (protocol, port, kind)]
            begun = [row for row in rows if row["app"] == app and begin_ns <= row["first_ns"] < end_ns]
            mine = [row for row in begun if (row["protocol"], row["port"], row["kind"]) == (protocol, port, kind)]
            came = [row for row in mine if not row["failed"]]
            everything = [row for row in begun if not row["failed"]]
            population = len({instance_of(row) for row in here}) if watched else None
            instances = len({instance_of(row) for row in used}) if population else None
            lost = failures(mine) if mine else {"rejected": None, "unanswered": None, "failed_share": None}
            made.append(
                {
                    "slice": at, "begin_ns": begin_ns, "hosts": len({row["host"] for row in watched}),
                    "observed_s": spent / 1e9, "app": app, "protocol": protocol, "port": None if port == -1 else port,
                    "kind": kind, "instances": instances, "population": population,
                    "usage_share": share(instances, population), "connections": len(came) if population else None,
                    "orig_bytes": total(came, "orig_bytes"),
                    "orig_share": share(total(came, "orig_bytes"), total(everything, "orig_bytes")),
                    "resp_bytes": total(came, "resp_bytes"),
                    "resp_share": share(total(came, "resp_bytes"), total(everything, "resp_bytes")), **lost,
                }
            )  # fmt: skip
    return made


def orders(attempts: list[Row], window_ns: int, least: int) -> list[Row]:
    """How often each service precedes each other one, and how often chance would let it."""
    rows = [
        row
        for row in attempts
        if not row["failed"] and row["port"] != -1 and row["period_s"] * 2e9 <= window_ns
        and row["last_ns"] >= row["first_ns"]
    ]  # fmt: skip
    sums: dict[Any, list[tuple[int, int, int, float]]] = {}
    ends: dict[Any, int] = {}
    begins: dict[Any, int] = {}
    for instance in {instance_of(row) for row in rows}:
        own = [row for row in rows if instance_of(row) == instance]
        born, gone = min(row["first_ns"] for row in own), max(row["last_ns"] for row in own)
        services = {(row["protocol"], row["port"]) for row in own}
        over, begun = {}, {}
        for service in services:
            uses = [row for row in own if (row["protocol"], row["port"]) == service]
            over[service] = sorted({row["last_ns"] for row in uses if row["end"] != "active"})
            starts = sorted(row["first_ns"] for row in uses)
            begun[service] = [at for k, at in enumerate(starts) if k == 0 or at - starts[k - 1] > window_ns]
            ends[(instance[0], service)] = ends.get((instance[0], service), 0) + len(over[service])
            begins[(instance[0], service)] = begins.get((instance[0], service), 0) + len(begun[service])
        for before in services:
            for after in services - {before}:
                if not over[before]:
                    continue
                # the length of the union of [end, end + W], within the lifetime
                covered, until = 0, born
                for end in over[before]:
                    covered += max(0, min(end + window_ns, gone) - max(end, until))
                    until = max(until, min(end + window_ns, gone))
                chance = covered / (gone - born) if gone > born else 1.0
                hits = sum(any(at - window_ns <= end <= at for end in over[before]) for at in begun[after])
                sums.setdefault((instance[0], before, after), []).append(
                    (len(over[before]), len(begun[after]), hits, len(begun[after]) * chance)
                )
    made = []
    for (app, before, after), found in sums.items():
        enough = ends[(app, before)] >= least and begins[(app, after)] >= least
        if not enough or sum(one[0] for one in found) < least or sum(one[1] for one in found) < least:
            continue
        made.append(
            {
                "app": app, "before_protocol": before[0], "before_port": before[1], "protocol": after[0],
                "port": after[1], "instances": len(found), "ordered_instances": sum(one[2] > 0 for one in found),
                "ends": sum(one[0] for one in found), "begins": sum(one[1] for one in found),
                "preceded": sum(one[2] for one in found), "expected": sum(one[3] for one in found),
            }
        )  # fmt: skip
    return made
