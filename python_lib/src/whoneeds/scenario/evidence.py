# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of a population: segments, processes, sockets and names as hosts would have recorded them."""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from whoneeds.model.evidence import SEGMENT_SCHEMA, NameRecord, ProcessRecord, SegmentHeader, SocketRecord
from whoneeds.scenario.connections import ENDED, REJECTED, UNANSWERED
from whoneeds.scenario.population import Population
from whoneeds.scenario.processes import expand
from whoneeds.scenario.rows import fill, join_text, known, text
from whoneeds.scenario.sampling import Ends, Looks
from whoneeds.scenario.uptime import US

_SEGMENT_US = 3600 * US
#: Time from a boot's begin until the tracer runs, by the kernel's own clock.
_STARTED_US = 10 * US
_NETNS = "4026531840"
_ANY = "0.0.0.0"  # noqa: S104


class Evidence:
    """Evidence of what was seen; every table is made when it is asked for.

    Parameters
    ----------
    population : Population
    looks : Looks
    period_s : float
    orig, resp : Ends
        What the calling and the called ends saw of each connection.
    """

    def __init__(self, population: Population, looks: Looks, period_s: float, orig: Ends, resp: Ends) -> None:
        self._population, self._looks, self._period_s = population, looks, period_s
        self._orig, self._resp = orig, resp
        self._base_ns = population.settings.begin_s * 10**9
        uptime = population.uptime
        lengths = uptime.stretch_end - uptime.stretch_begin
        self._segments_of = -(-lengths // _SEGMENT_US)
        self._first_segment = np.cumsum(self._segments_of) - self._segments_of

    # -- identities ----------------------------------------------------------------------------------------------

    @cached_property
    def _boot_prefixes(self) -> pa.Array:
        """Host and boot of each boot, as identities begin."""
        population = self._population
        return pa.array([
            f"{population.uptime.hosts[host]}/{population.seed % 2**32:08x}-{host:04x}-4000-8000-{boot:012x}"
            for boot, host in enumerate(population.uptime.boot_host)
        ], type=pa.string())  # fmt: skip

    @cached_property
    def process_ids(self) -> pa.Array:
        """Identity of each process of the population."""
        process = self._population.process
        return join_text(text(self._boot_prefixes, process["boot"]), "/", process["pid"], "/", process["ticks"])

    @cached_property
    def segment_ids(self) -> pa.Array:
        """Identity of each segment."""
        stretch, opened = self._opened
        boot = self._population.uptime.stretch_boot[stretch]
        since = opened - self._population.uptime.boot_begin[boot] + _STARTED_US
        return join_text(text(self._boot_prefixes, boot), "/", since * 1000)

    def socket_ids(self, rows: Any, *, called: bool) -> pa.Array:
        """Identities of the sockets at one end of some connections."""
        made, uptime = self._population.made, self._population.uptime
        stretch = made["resp_stretch" if called else "stretch"][rows]
        # a cookie is written in hexadecimal; one without letters is one as well
        return join_text(text(self._boot_prefixes, uptime.stretch_boot[stretch]), f"/{_NETNS}/", rows * 2 + called)

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        """Stretch and begin of each segment."""
        stretch, number = expand(self._segments_of)
        return stretch, self._population.uptime.stretch_begin[stretch] + number * _SEGMENT_US

    def _segment_at(self, stretch: Any, at: Any) -> Any:
        """Number of the segment of a stretch that an instant falls into."""
        number = (at - self._population.uptime.stretch_begin[stretch]) // _SEGMENT_US
        return self._first_segment[stretch] + np.clip(number, 0, self._segments_of[stretch] - 1)

    def _ns(self, at: Any) -> Any:
        return self._base_ns + at * 1000

    # -- tables --------------------------------------------------------------------------------------------------

    def headers(self) -> pa.Table:
        """SegmentHeader: one an hour."""
        uptime, looks = self._population.uptime, self._looks
        stretch, opened = self._opened
        closed = np.minimum(opened + _SEGMENT_US, uptime.stretch_end[stretch])
        boot, host = uptime.stretch_boot[stretch], uptime.stretch_host[stretch]
        since = (opened - uptime.boot_begin[boot] + _STARTED_US) * 1000
        samples = looks.last_at(host, closed - 1) - looks.first_at(host, opened) + 1
        addresses = text(uptime.addresses, uptime.stretch_address[stretch])
        return fill(SegmentHeader, len(stretch), {
            "segment_id": self.segment_ids, "host": text(uptime.hosts, host),
            "boot_id": pc.list_element(pc.split_pattern(text(self._boot_prefixes, boot), "/"), 1),
            "sequence": since, "schema": SEGMENT_SCHEMA, "tracer_version": "scenario",
            "opened_ns": self._ns(opened), "opened_mono_ns": since, "closed_ns": self._ns(closed),
            "closed_mono_ns": since + (closed - opened) * 1000, "period_s": self._period_s,
            "samples": np.maximum(samples, 0), "sources": ["event", "table"] if looks.events else ["table"],
            "privileged": True,
            "addresses": pa.ListArray.from_arrays(pa.array(np.arange(len(stretch) + 1, dtype=np.int32)), addresses),
            "location": "inside", "dropped_segments": 0,
        })  # fmt: skip

    def processes(self) -> pa.Table:
        """ProcessRecord: one for each stretch in which a process had a socket, and one a boot for what began it."""
        population, uptime = self._population, self._population.uptime
        process, piece = population.process, population.piece
        laptops = population.settings.kind == "laptops"
        parts = np.flatnonzero(self._pieces_seen())
        who, stretch = piece["process"][parts], piece["stretch"][parts]
        names = [application.name for application in population.applications]
        uid = process["uid"][who]
        # on laptops the system's own programs and people's have different parents
        parent = np.where(uid < 1000, 0, 1) if laptops else np.zeros(len(who), dtype=np.int64)
        begun, prefix = (parent + 1) * (4 if laptops else 1), text(self._boot_prefixes, process["boot"][who])
        units = pa.array([None if laptops else f"{name}.service" for name in names], type=pa.string())
        own = {
            "process_id": self.process_ids.take(pa.array(who)),
            "host": text(uptime.hosts, uptime.stretch_host[stretch]), "pid": process["pid"][who],
            "start_ticks": process["ticks"][who], "ppid": begun,
            "name": text(names, process["app"][who]), "uid": uid, "unit": units.take(pa.array(process["app"][who])),
            "first_ns": self._ns(piece["first"][parts]), "last_ns": self._ns(piece["last"][parts] - 1),
            "parent_id": join_text(prefix, "/", begun, "/", begun),
            "session": None if laptops else process["pid"][who],
            "segment_id": self.segment_ids.take(pa.array(self._segment_at(stretch, piece["first"][parts]))),
        }  # fmt: skip
        boot, number = expand(np.full(len(uptime.boot_host), 2 if laptops else 1))
        first = uptime.boot_first[boot]
        pid = (number + 1) * (4 if laptops else 1)
        roots = {
            "process_id": join_text(text(self._boot_prefixes, boot), "/", pid, "/", pid),
            "host": text(uptime.hosts, uptime.boot_host[boot]), "pid": pid, "start_ticks": pid, "ppid": 0,
            "name": text(("services.exe", "explorer.exe") if laptops else ("systemd",), number),
            "uid": np.where(number == 0, 18, 1000 + uptime.boot_host[boot]) if laptops else 0,
            "first_ns": self._ns(uptime.stretch_begin[first]), "last_ns": self._ns(uptime.stretch_end[first] - 1),
            "session": None if laptops else pid,
            "segment_id": self.segment_ids.take(pa.array(self._first_segment[first])),
        }  # fmt: skip
        return pa.concat_tables([
            fill(ProcessRecord, len(parts), own), fill(ProcessRecord, len(boot), roots)
        ])  # fmt: skip

    def _pieces_seen(self) -> Any:
        """Which pieces of processes held a socket that was seen: a connection's, or one that waits."""
        population = self._population
        process, piece, made = population.process, population.piece, population.made
        many = len(population.uptime.stretch_host)
        held = np.unique(np.concatenate([
            made["process"][self._orig.seen] * many + made["stretch"][self._orig.seen],
            made["resp_process"][self._resp.seen] * many + made["resp_stretch"][self._resp.seen],
        ]))  # fmt: skip
        listens = np.array([bool(application.listens) for application in population.applications], dtype=bool)
        waits = listens[process["app"][piece["process"]]] & self._sampled(piece)
        return waits | np.isin(piece["process"] * many + piece["stretch"], held)

    def _sampled(self, piece: dict[str, Any]) -> Any:
        """Whether a sample fell into a piece; with events a socket that waits is known without."""
        host = self._population.uptime.stretch_host[piece["stretch"]]
        low, high = self._looks.first_at(host, piece["first"]), self._looks.last_at(host, piece["last"] - 1)
        return low <= high

    def sockets(self) -> pa.Table:
        """SocketRecord: one for each end of a connection that was seen, and one a stretch for each that waits."""
        return pa.concat_tables([self._connected(called=False), self._connected(called=True), self._waiting()])

    def _connected(self, *, called: bool) -> pa.Table:
        population = self._population
        uptime, made, process = population.uptime, population.made, population.process
        ends = self._resp if called else self._orig
        rows = np.flatnonzero(ends.seen)
        stretch = made["resp_stretch" if called else "stretch"][rows]
        owner = made["resp_process" if called else "process"][rows]
        near, far = ("resp_addr", "port"), ("orig_addr", "orig_port")
        if not called:
            near, far = far, near
        udp, ended = made["protocol"][rows] == 1, made["ended"][rows]
        sent, got = ends.sent[rows], ends.got[rows]
        if self._looks.events:
            state: Any = "close"
            # of UDP nobody says goodbye
            end: Any = text((*ENDED, "idle"), np.where(udp, len(ENDED), ended))
            counted: Any = np.ones(len(rows), dtype=bool)
        else:
            state = text(("established", "syn_sent"), ((ended >= REJECTED) & ~udp).astype(np.int64))
            end, counted = None, ~udp
        return fill(SocketRecord, len(rows), {
            "socket_id": self.socket_ids(rows, called=called), "host": text(uptime.hosts, uptime.stretch_host[stretch]),
            "netns": _NETNS, "protocol": text(("tcp", "udp"), made["protocol"][rows]),
            "local_addr": text(population.addresses, made[near[0]][rows]), "local_port": made[near[1]][rows],
            "remote_addr": text(population.addresses, made[far[0]][rows]), "remote_port": made[far[1]][rows],
            "state": state, "inode": rows + 1, "uid": process["uid"][owner],
            "process_id": self.process_ids.take(pa.array(owner)), "owners": 1,
            "sent_bytes": known(got if called else sent, counted),
            "received_bytes": known(sent if called else got, counted),
            "first_ns": self._ns(ends.first[rows]), "last_ns": self._ns(ends.last[rows]),
            "samples": ends.samples[rows], "source": "event" if self._looks.events else "table",
            "initiated": (not called) if self._looks.events else None, "end": end,
            "segment_id": self.segment_ids.take(pa.array(self._segment_at(stretch, ends.first[rows]))),
        })  # fmt: skip

    def _waiting(self) -> pa.Table:
        """Sockets that wait, in every stretch in which they do."""
        population, uptime, looks = self._population, self._population.uptime, self._looks
        process, piece = population.process, population.piece
        parts, protocols, ports = [], [], []
        sampled = self._sampled(piece)
        app = process["app"][piece["process"]]
        for number, application in enumerate(population.applications):
            for protocol, port in application.listens:
                own = np.flatnonzero(sampled & (app == number))
                parts.append(own)
                protocols.append(np.full(len(own), protocol == "udp", dtype=np.int64))
                ports.append(np.full(len(own), port) if port else process["chosen"][piece["process"][own]])
        if not parts:
            return fill(SocketRecord, 0, {})
        part, udp, called = np.concatenate(parts), np.concatenate(protocols), np.concatenate(ports)
        who, stretch = piece["process"][part], piece["stretch"][part]
        host = uptime.stretch_host[stretch]
        low, high = looks.first_at(host, piece["first"][part]), looks.last_at(host, piece["last"][part] - 1)
        first = looks.time_of(host, low)
        # beyond all cookies of connections
        cookie = 2 * len(population.made["first"]) + 2 * (who * 65536 + called) + udp
        prefix = text(self._boot_prefixes, uptime.stretch_boot[stretch])
        return fill(SocketRecord, len(part), {
            "socket_id": join_text(prefix, f"/{_NETNS}/", cookie), "host": text(uptime.hosts, host), "netns": _NETNS,
            "protocol": text(("tcp", "udp"), udp), "local_addr": _ANY, "local_port": called,
            "state": text(("listen", "bound"), udp), "inode": cookie + 1, "uid": process["uid"][who],
            "process_id": self.process_ids.take(pa.array(who)), "owners": 1, "first_ns": self._ns(first),
            "last_ns": self._ns(looks.time_of(host, high)), "samples": high - low + 1, "source": "table",
            "segment_id": self.segment_ids.take(pa.array(self._segment_at(stretch, first))),
        })  # fmt: skip

    def names(self) -> pa.Table:
        """NameRecord: what the name service answered for each address that was called, once a stretch."""
        population, uptime, made = self._population, self._population.uptime, self._population.made
        places = population.places
        counts = np.array([len(place.domains) for place in places] + [0])
        offsets = np.cumsum(counts) - counts
        asked = np.flatnonzero(counts[made["place"]] > 0)
        place, member = made["place"][asked], made["member"][asked]
        name = offsets[place] + member % counts[place]
        table = pa.table({
            "stretch": made["stretch"][asked], "name": name, "address": made["resp_addr"][asked],
            "at": made["first"][asked], "until": made["last"][asked],
        })  # fmt: skip
        table = table.group_by(["stretch", "name", "address"], use_threads=False)
        table = table.aggregate([("at", "min"), ("until", "max")])
        stretch, first = table["stretch"].to_numpy(), table["at_min"].to_numpy()
        return fill(NameRecord, len(stretch), {
            "host": text(uptime.hosts, uptime.stretch_host[stretch]), "netns": _NETNS,
            "name": text([domain for each in places for domain in each.domains], table["name"].to_numpy()),
            "address": text(population.addresses, table["address"].to_numpy()), "source": "dns",
            "first_ns": self._ns(first), "last_ns": self._ns(table["until_max"].to_numpy()),
            "segment_id": self.segment_ids.take(pa.array(self._segment_at(stretch, first))),
        })  # fmt: skip


def found_end(ended: Any, udp: Any, *, events: bool) -> Any:
    """How flows are known to have ended, as numbers into `ENDED`: by samples alone, only that nobody answered is."""
    if events:
        failed_udp = udp & (ended >= REJECTED)
        return np.where(udp, np.where(failed_udp, UNANSWERED, -1), ended)
    return np.where(~udp & (ended >= REJECTED), UNANSWERED, -1)
