# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged answers of the kernel: the tracer's parsers refuse them or give rows that the controller takes."""

import contextlib
import ipaddress
import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.campaigns.mutation import damage_bytes
from tests.campaigns.result import Result
from whoneeds.collector.checks import check_segment
from whoneeds.model.errors import EvidenceError, HostError
from whoneeds.model.evidence import ProcessRecord, SegmentHeader
from whoneeds.model.identity import segment_id
from whoneeds.model.schema import check_value, columns
from whoneeds.segment.read import read_segment
from whoneeds.segment.write import write_segment
from whoneeds.tracer import addresses, namespaces, netlink, processes, sock_diag
from whoneeds.tracer.cgroups import parse_cgroup
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.processes import Attributes
from whoneeds.tracer.socket_rows import Batch

_BOOT = "0b0e7bb0-5a7d-4e5c-8f0a-3c1d2e4f5a6b"
_MESSAGES = 12
_PAIRS = 6
#: One damaged listing in so many is carried through to a segment and back.
_WHOLE_WAY = 20
_AT = Instant(1_704_067_200 * 10**9, 10**9)


def _record_answers(kind: int, protocol: int, payload: bytes) -> list[bytes]:
    """Real answers of this kernel, cut to a few messages each."""
    channel = netlink.open_netlink(protocol)
    try:
        made, _whole = netlink.dump(channel, kind, payload, "answers to damage", _cut_buffer)
    finally:
        channel.close()
    return made


def _cut_buffer(buffer: bytes, runs: list[netlink.Run]) -> list[bytes]:
    messages = list(netlink.each_message(runs))
    made = []
    for at in range(0, len(messages), _MESSAGES):
        first, last = messages[at], messages[min(at + _MESSAGES, len(messages)) - 1]
        made.append(buffer[first[1] - netlink.HEADER.size : (last[2] + 3) & ~3])
    return made


@contextlib.contextmanager
def _connections(number: int) -> Iterator[None]:
    """Some connections with traffic, in both families."""
    with contextlib.ExitStack() as stack:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with contextlib.suppress(OSError):  # a system without IPv6
                server = stack.enter_context(socket.create_server((address, 0), family=family))
                for _each in range(number):
                    client = stack.enter_context(socket.create_connection(server.getsockname()[:2]))
                    accepted = stack.enter_context(server.accept()[0])
                    client.sendall(b"x" * 100)
                    accepted.recv(100)
        yield


def fuzz_sock_diag(result: Result, count: int, rng: random.Random) -> None:
    """Damage listings of sockets."""
    with _connections(_PAIRS):
        old = sock_diag._OLD_REQUEST.pack(sock_diag._WANT_INFO, sock_diag._TCP_STATES, 0)
        answers = _record_answers(sock_diag._TCPDIAG_GETSOCK, sock_diag.NETLINK_SOCK_DIAG, old)
        for family in (sock_diag.IPV4, sock_diag.IPV6):
            request = sock_diag._REQUEST.pack(family, sock_diag.UDP, 0, sock_diag._ANY_STATE)
            answers += _record_answers(sock_diag._SOCK_DIAG_BY_FAMILY, sock_diag.NETLINK_SOCK_DIAG, request)
    with tempfile.TemporaryDirectory(prefix="whoneeds-listings-") as place:
        for number in range(count):
            buffer = damage_bytes(rng.choice(answers), answers, rng)
            result.add("damaged_listings")
            try:
                part = netlink.split_messages(buffer)
                raws = sock_diag.parse_rows(buffer, part.runs)
            except HostError:
                continue
            except Exception as error:
                result.violate(f"listing {buffer.hex()}: {type(error).__name__}: {error}")
                continue
            what = f"listing {buffer.hex()}"
            _check_rows(buffer, part.runs, raws, what, result)
            if number % _WHOLE_WAY == 0:
                result.add("listings_carried_through")
                _carry_through(Path(place), raws, rng.choice(("tcp", "udp")), what, result)


def _check_rows(buffer: bytes, runs: list[netlink.Run], raws: list[Any], what: str, result: Result) -> None:
    """Each message gives what it gives alone, so that nothing is read out of its neighbours; ends are addresses."""
    alone = []
    for kind, begin, end in netlink.each_message(runs):
        alone += sock_diag.parse_rows(buffer[begin:end], [(kind, 0, end - begin, end - begin, 1)])
    if alone != raws:
        result.violate(f"{what}: a message reads differently alone")
    for raw in raws:
        row = sock_diag.read_row(raw)
        ends = sock_diag.decode_ends(row[6], row[0])
        ipaddress.ip_address(ends.local_addr)
        if ends.remote_addr is not None:
            ipaddress.ip_address(ends.remote_addr)


def _carry_through(place: Path, raws: list[Any], protocol: str, what: str, result: Result) -> None:
    """Observe the rows, write the segment and read it as the controller does."""
    observation = Observation("h1", _BOOT, _AT)
    holder = Holder(7, 8)
    holders = dict.fromkeys(sock_diag.inodes_of(raws), (holder,))
    reading = (sock_diag.decode_ends, sock_diag.read_row, sock_diag.IDENTITY)
    observation.add_sample(_AT, [Batch("4026531840", protocol, "table", raws, *reading)], holders)
    observation.name(holder, Attributes(1, "nginx", None, 0, None, None, None))
    header = SegmentHeader(
        segment_id("h1", _BOOT, _AT.boot_ns), "h1", _BOOT, _AT.boot_ns, 1, "0.1.0", _AT.wall_ns, _AT.boot_ns,
        _AT.wall_ns, _AT.boot_ns, 5.0, 1, ("table",), True, (), None, 0,
    )  # fmt: skip
    tables = observation.records(_AT)
    path = Path(write_segment(str(place), header, tables))
    try:
        segment = read_segment(str(path))
        check_segment(segment, _AT.wall_ns)
        if segment.tables != tables:
            result.violate(f"{what}: rows changed on their way")
    except EvidenceError as error:
        result.violate(f"{what}: the controller refuses the segment: {error}")
    path.unlink()


def fuzz_addresses(result: Result, count: int, rng: random.Random) -> None:
    """Damage lists of addresses."""
    answers = _record_answers(addresses._RTM_GETADDR, addresses._NETLINK_ROUTE, bytes(addresses._ADDRESS_BYTES))
    for _number in range(count):
        buffer = damage_bytes(rng.choice(answers), answers, rng)
        result.add("damaged_address_lists")
        try:
            for found in addresses.parse_addresses(buffer, netlink.split_messages(buffer).runs):
                ipaddress.ip_address(found)
        except HostError:
            continue
        except Exception as error:
            result.violate(f"addresses {buffer.hex()}: {type(error).__name__}: {error}")


def fuzz_proc_files(result: Result, count: int, rng: random.Random) -> None:
    """Damage files of the process file system; what is read from them must fit the columns that it goes to."""
    texts = {name: Path(f"/proc/self/{name}").read_bytes() for name in ("stat", "status", "cgroup", "mountinfo")}
    texts["stat"] = texts["stat"].replace(b"(", b"(a) (b\n", 1)
    texts["cgroup"] += (
        b"1:name=systemd:/system.slice/_x.service\n0::/kubepods/pod1/" + b"a1" * 32 + b"\n0::/lxc.payload.c1/x\n"
    )
    texts["mountinfo"] += b"88 31 0:4 net:[4026532301] /run/netns/a\\040b rw shared:7 - nsfs nsfs rw\n"
    texts["exe"] = b"/usr/bin/python3.11 (deleted)"
    known = {column.name: column for column in columns(ProcessRecord)}

    def fits(**values: Any) -> None:
        for name, value in values.items():
            check_value(known[name], value)

    def stat(text: str) -> None:
        found = processes.parse_stat(text)
        fits(ppid=found.ppid, start_ticks=found.start_ticks, name=processes.program_name(None, found.comm))

    def cgroup(text: str) -> None:
        found = parse_cgroup(text)
        fits(unit=found.unit, container=found.container)

    def exe(text: str) -> None:
        fits(
            name=processes.program_name(text, "redis-server", lambda _path: text), exe=processes.legal_text(text, 4096)
        )

    readers: dict[str, Callable[[str], object]] = {
        "stat": stat,
        "status": lambda text: fits(uid=processes._effective_uid(text)),
        "cgroup": cgroup,
        "mountinfo": namespaces.parse_namespace_mounts,
        "exe": exe,
    }
    for number in range(count):
        name = list(readers)[number % len(readers)]
        content = damage_bytes(texts[name], list(texts.values()), rng)
        result.add("damaged_proc_files")
        try:
            readers[name](content.decode("utf-8", "surrogateescape"))
        except HostError:
            continue
        except Exception as error:
            result.violate(f"{name} {content.hex()[:600]}: {type(error).__name__}: {error}")
