# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence: what a host observed, as it observed it. Nothing here is a conclusion.

Conventions: instants ``*_ns`` are UTC nanoseconds as the observer's clock said; ``None`` is not known and ``0``
is a measured zero; addresses are canonical text with IPv4-mapped IPv6 already unmapped; ``local`` and
``remote`` describe sockets, ``orig`` and ``resp`` the roles in a flow.

Long, because it is one vocabulary: each column of each record with its meaning, and no code besides.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

from whoneeds.model.schema import documented

#: Schema number of segments written by this version. Readers refuse others by name.
SEGMENT_SCHEMA = 1

PROTOCOLS = ("tcp", "udp")
STATES = (
    "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close",
    "close_wait", "last_ack", "listen", "closing", "new_syn_recv", "bound",
)  # fmt: skip
SOURCES = ("event", "table", "tuple_only", "psutil")
#: Beside those of socket records: 'wire' is of who watched a network, and holds no sockets.
SEGMENT_SOURCES = (*SOURCES, "wire")
TRANSLATION_SOURCES = ("event", "table")
NAME_SOURCES = ("dns", "sni")
UNIX_TYPES = ("stream", "dgram", "seqpacket")
LOCATIONS = ("inside", "vpn", "outside")
GAP_REASONS = (
    "permission", "vanished", "unsupported", "late", "dropped", "truncated", "ambiguous", "failed",
)  # fmt: skip
TRANSLATED = ("resolved", "unresolved")
DIRECTIONS = ("handshake", "listener", "event", "port", "told", "unknown")
ENDS = ("fin", "rst", "rejected", "unanswered", "idle", "active")
#: Transports of flows on a wire; 'other' is any that has no ports.
WIRE_PROTOCOLS = ("tcp", "udp", "icmp", "sctp", "other")
#: How it is known which end of a flow on a wire began: its SYN, who answered others, the ports, merely who spoke first,
#: or another's word.
WIRE_DIRECTIONS = ("handshake", "listener", "port", "first", "told")
HANDSHAKES = ("full", "orig", "resp", "none")
CLOSED_BY = ("both", "orig", "resp", "none")
WIRE_SOURCES = ("pcap", "zeek", "suricata", "netflow", "segment")
TUNNELS = ("gre", "ipip", "vxlan", "geneve", "gtp", "teredo", "ayiya", "other")


@dataclass(frozen=True)
class SegmentHeader:
    """What a segment says about itself: who observed, when, how, and from where."""

    segment_id: str = documented("Identity of the segment: host/boot/sequence.", max_length=400)
    host: str = documented("Host that observed; replaced by the inventory name when it is taken in.")
    boot_id: str = documented("The kernel's random identifier of this boot.", max_length=36)
    sequence: int = documented("Time since boot when the segment was opened; orders segments of one boot.", unit="ns")
    schema: int = documented("Schema number of the segment.")
    tracer_version: str = documented("Version of the tracer that wrote it.", max_length=64)
    opened_ns: int = documented("When the segment was opened, by the host's clock.", unit="ns")
    opened_mono_ns: int = documented(
        "The same instant as time since boot, suspended time included; of what was imported, whose boot is not known, "
        "by the host's clock as well.",
        unit="ns",
    )
    closed_ns: int = documented("When the segment was closed, by the host's clock.", unit="ns")
    closed_mono_ns: int = documented("The same instant as time since boot, suspended time included.", unit="ns")
    period_s: float = documented("Time between two samples of the socket tables, as set.", unit="s")
    samples: int = documented("Samples of the socket tables that this segment covers.")
    sources: Tuple[str, ...] = documented(
        "Where its socket records come from; 'wire' where it has none, since a network was watched and no host.",
        choices=SEGMENT_SOURCES,
    )
    privileged: bool = documented(
        "Whether the tracer held the rights to look into processes of other users; what was refused all the same is "
        "a Gap."
    )
    addresses: Tuple[str, ...] = documented(
        "The host's own addresses in its main network namespace, loopback left out."
    )
    location: Optional[str] = documented(
        "Where the host was, by the rules set on its addresses; absent where no rules are set.", choices=LOCATIONS
    )
    dropped_segments: int = documented(
        "Segments that the byte budget pushed out of this host's directory before they were collected, ever."
    )
    capture_digest: Optional[str] = documented(
        "SHA-256 of the capture file (pcap) beside the segment, in hexadecimal; absent where there is none.",
        max_length=64,
        default=None,
    )
    capture_bytes: Optional[int] = documented("Size of that file.", unit="bytes", default=None)


@dataclass(frozen=True)
class ProcessRecord:
    """A process that owned at least one socket, or an ancestor of one."""

    process_id: str = documented("Identity: host/boot/pid/start ticks.", max_length=400)
    host: str = documented("Host that observed.")
    pid: int = documented("Process number, in the tracer's own pid namespace.")
    start_ticks: Optional[int] = documented(
        "When the process began, since boot; absent where an imported log does not tell.", unit="clock ticks"
    )
    ppid: Optional[int] = documented("Parent's process number; absent if it could not be read.")
    name: str = documented(
        "Name of the program: the executable's, or the script's where an interpreter runs one.", max_length=64
    )
    exe: Optional[str] = documented("Path of the executable; absent without the right to read it.", max_length=4096)
    uid: Optional[int] = documented("Effective user number.")
    user: Optional[str] = documented("That user's name on the host; absent where the host knows none.", max_length=64)
    unit: Optional[str] = documented("systemd unit that the process belongs to, from its control group.")
    container: Optional[str] = documented("Container identity from the control group; absent outside containers.")
    first_ns: int = documented("When it was first seen.", unit="ns")
    last_ns: int = documented("When it was last seen; of one that owned no socket, when it was asked.", unit="ns")
    container_name: Optional[str] = documented(
        "What the container's runtime calls it: docker's or podman's name, namespace/pod/container of kubernetes; "
        "absent where no file of the runtime says it, or none may be read.",
        default=None,
    )
    parent_id: Optional[str] = documented(
        "Identity of the process that began it, as far as it was there when that was asked; absent if unknown.",
        max_length=400,
        default=None,
    )
    session: Optional[int] = documented(
        "Number of the session that it belongs to, in the tracer's own pid namespace; absent if it could not be read.",
        default=None,
    )


@dataclass(frozen=True)
class SocketRecord:
    """One socket and one owner of it; a socket that several processes hold has one row for each."""

    socket_id: str = documented(
        "Identity of the socket; equal in every row and segment that speaks of it.", max_length=600
    )
    host: str = documented("Host that observed.")
    netns: str = documented("Network namespace, as its inode number.", max_length=32)
    protocol: str = documented("Transport protocol.", choices=PROTOCOLS)
    local_addr: str = documented("Local address.", max_length=45)
    local_port: int = documented("Local port.")
    remote_addr: Optional[str] = documented("Remote address; absent for a socket without a peer.", max_length=45)
    remote_port: Optional[int] = documented("Remote port; absent for a socket without a peer.")
    state: str = documented(
        "State when last seen; 'bound' is a UDP socket without a peer. A socket that was seen open and is closed "
        "by now says so here; all else in its row is as it was when it was last open.",
        choices=STATES,
    )
    inode: int = documented("Socket inode; 0 where the kernel keeps none any more (time_wait).")
    uid: Optional[int] = documented("User number that the kernel gives for the socket.")
    process_id: Optional[str] = documented("The owner of this row; absent if no owner is known.", max_length=400)
    owners: Optional[int] = documented(
        "Most processes that held the socket in one sample, or all that acted on it, where that is more; 0 where none "
        "can (closed, or not accepted yet); absent if that could not be read."
    )
    sent_bytes: Optional[int] = documented(
        "Bytes of data that the local side sent and the other acknowledged (tcp_info, SYN and FIN taken off): since "
        "the connection began, exact when nothing is under way, else at most one too much; absent where the kernel "
        "does not count.",
        unit="bytes",
    )
    received_bytes: Optional[int] = documented(
        "Bytes of data that the local side received (tcp_info), since the connection began; exact where the kernel's "
        "programs tell of it, else at most one too much where the local side closed first, since the peer's FIN counts "
        "as one; absent where the kernel does not count.",
        unit="bytes",
    )
    first_ns: int = documented(
        "When the row's owner was first seen with the socket in this segment; time before anybody had accepted it "
        "belongs to who accepted it.",
        unit="ns",
    )
    last_ns: int = documented("When the row's owner was last seen with the socket in this segment, open.", unit="ns")
    samples: int = documented(
        "Samples of this segment in which the row's owner was seen with the socket; 0 where events alone tell of it."
    )
    source: str = documented(
        "Where the row comes from: the kernel's events, its list of sockets, the list where no more than the tuple is "
        "left (such a row can have no owner), or psutil.",
        choices=SOURCES,
    )
    initiated: Optional[bool] = documented(
        "Whether the local end began the connection; absent where its begin was not seen."
    )
    end: Optional[str] = documented("How it ended; absent where its end was not seen.", choices=ENDS)


@dataclass(frozen=True)
class TranslationRecord:
    """A conversation whose addresses or ports the host's kernel translated (conntrack: DNAT, SNAT, masquerade)."""

    host: str = documented("Host that translated.")
    netns: str = documented("Network namespace in which it was translated, as its inode number.", max_length=32)
    protocol: str = documented("Transport protocol.", choices=PROTOCOLS)
    orig_addr: str = documented("Address of who began, as it came to the translator.", max_length=45)
    orig_port: int = documented("Port of who began, as it came to the translator.")
    resp_addr: str = documented("Address that was called.", max_length=45)
    resp_port: int = documented("Port that was called.")
    new_orig_addr: str = documented("Address of who began, as the called end sees it.", max_length=45)
    new_orig_port: int = documented("Port of who began, as the called end sees it.")
    new_resp_addr: str = documented("Address that the conversation went on to.", max_length=45)
    new_resp_port: int = documented("Port that the conversation went on to.")
    first_ns: int = documented(
        "When it began, by the kernel's event; else the earliest time at which it can have begun: the look before the "
        "one that found it, or that look itself if it was the first.",
        unit="ns",
    )
    last_ns: int = documented("When the kernel forgot it, by its event, or when it was last looked up.", unit="ns")
    source: str = documented("Whether an event told of it, or only the table.", choices=TRANSLATION_SOURCES)


@dataclass(frozen=True)
class UnixConnectionRecord:
    """A process that held a connection to a named AF_UNIX socket of another one; a row for each pair of holders."""

    host: str = documented("Host that observed.")
    netns: str = documented("Network namespace of the sockets, as its inode number.", max_length=32)
    type: str = documented("Type of the sockets.", choices=UNIX_TYPES)
    path: str = documented(
        "Path that the server's socket is bound to, as it gave it; an abstract name begins with @. Bytes that are no "
        "text are made visible."
    )
    process_id: str = documented("The process that connected, or inherited the connection.", max_length=400)
    server_process_id: str = documented("A process that holds the other end.", max_length=400)
    first_ns: int = documented("When it was first seen.", unit="ns")
    last_ns: int = documented("When it was last seen.", unit="ns")
    samples: int = documented("Looks in which it was seen.")


@dataclass(frozen=True)
class CaptureRecord:
    """Packets of one network namespace that a segment rests on: what was asked for, and whether it was all."""

    host: str = documented("Host that observed.")
    netns: str = documented("Network namespace, as its inode number.", max_length=32)
    filter: str = documented(
        "What was asked for: 'headers' (UDP, and of TCP what begins or ends a connection or names a server), 'all', or "
        "an expression in the language of tcpdump.",
        max_length=1024,
    )
    first_ns: int = documented("Begin of the time in which packets were taken in.", unit="ns")
    last_ns: int = documented("End of that time.", unit="ns")
    packets: int = documented("Packets that fitted the filter, the lost ones included.")
    stored_packets: int = documented("Packets of these that are in the capture file.")
    lost_packets: int = documented(
        "Packets that nobody looked at; where it is 0 and the filter lets all of UDP pass, a conversation that no "
        "packet tells of was none."
    )
    interface_base: Optional[int] = documented(
        "What is added to the kernel's interface numbers in the capture file; absent where none of this namespace are "
        "in it."
    )


@dataclass(frozen=True)
class ExchangeRecord:
    """UDP packets that one local end and one remote end sent each other, until both were silent for ten seconds."""

    host: str = documented("Host that observed.")
    netns: str = documented("Network namespace, as its inode number.", max_length=32)
    protocol: str = documented("Transport protocol.", choices=PROTOCOLS)
    local_addr: str = documented("Local address.", max_length=45)
    local_port: int = documented("Local port.")
    remote_addr: str = documented("Remote address.", max_length=45)
    remote_port: int = documented("Remote port.")
    sent_packets: int = documented("Packets from the local end to the remote one.")
    received_packets: int = documented("Packets from the remote end to the local one.")
    sent_bytes: int = documented("Data in the packets sent, headers left out.", unit="bytes")
    received_bytes: int = documented("Data in the packets received, headers left out.", unit="bytes")
    first_ns: int = documented("When the first packet was seen.", unit="ns")
    last_ns: int = documented("When the last packet was seen.", unit="ns")
    initiated: Optional[bool] = documented(
        "Whether the local end sent the first packet; absent where it is not known which one was the first."
    )


@dataclass(frozen=True)
class NameRecord:
    """A name that was seen to stand for an address: in a name service's answer, or asked for in a TLS hello."""

    host: str = documented("Host that observed.")
    netns: str = documented("Network namespace, as its inode number.", max_length=32)
    name: str = documented("The name that was asked for, in lower case, aliases resolved.", max_length=253)
    address: str = documented("The address that it stood for.", max_length=45)
    source: str = documented("Where it was seen: an answer of a name service, or a TLS hello.", choices=NAME_SOURCES)
    first_ns: int = documented("When it was first seen.", unit="ns")
    last_ns: int = documented("When it was last seen.", unit="ns")


@dataclass(frozen=True)
class Gap:
    """Something that was not seen. A gap is data: silence would be read as absence."""

    host: str = documented("Host that observed.")
    source: str = documented("What could not be read: a source, or the interface within it.", max_length=64)
    reason: str = documented("Why.", choices=GAP_REASONS)
    detail: str = documented("In words, for people.", max_length=255)
    first_ns: int = documented("Begin of the time that is affected.", unit="ns")
    last_ns: int = documented("End of the time that is affected.", unit="ns")
    lost: Optional[int] = documented("How many things were lost; absent if that cannot be known.")


@dataclass(frozen=True)
class WireFlow:
    """One conversation as it went over a wire that somebody watched: out of packets, or told by another meter."""

    flow_id: str = documented("Identity: what was read, and the flow's number in it.", max_length=160)
    host: str = documented("Who watched: a host, or a monitor in the network.")
    source: str = documented("What it was read from.", choices=WIRE_SOURCES)
    protocol: str = documented("Transport protocol.", choices=WIRE_PROTOCOLS)
    orig_addr: str = documented("Address of the end that began the conversation.", max_length=45)
    orig_port: int = documented("Port of the end that began the conversation; of ICMP the type of its first packet.")
    resp_addr: str = documented("Address of the end that was called.", max_length=45)
    resp_port: int = documented("Port of the end that was called; of ICMP the type of the answer, or the code.")
    direction: str = documented(
        "How it is known which end began; 'told' by whoever metered it.", choices=WIRE_DIRECTIONS
    )
    first_ns: int = documented("Time of the first packet, by the watcher's clock.", unit="ns")
    last_ns: int = documented("Time of the last packet, by the watcher's clock.", unit="ns")
    orig_packets: Optional[int] = documented("Packets from the originator; absent if not counted.")
    resp_packets: Optional[int] = documented("Packets from the responder; absent if not counted.")
    orig_bytes: Optional[int] = documented(
        "Payload from the originator, of TCP by its sequence numbers; absent if not known.", unit="bytes"
    )
    resp_bytes: Optional[int] = documented(
        "Payload from the responder, of TCP by its sequence numbers; absent if not known.", unit="bytes"
    )
    orig_ip_bytes: Optional[int] = documented("Bytes of the originator's packets, IP headers included.", unit="bytes")
    resp_ip_bytes: Optional[int] = documented("Bytes of the responder's packets, IP headers included.", unit="bytes")
    missed_bytes: Optional[int] = documented("Payload that was sent and is not in what was read.", unit="bytes")
    end: str = documented(
        "How it ended. 'idle': nothing came for its timeout; 'active': it went on when the reading ended.", choices=ENDS
    )
    handshake: str = documented(
        "Which ends of a TCP connection took part in its opening, as far as can be told: 'full' is both.",
        choices=HANDSHAKES,
    )
    closed_by: str = documented(
        "Which ends ended a TCP connection: both in order by FIN, or the one whose FIN or RST decided how it ended.",
        choices=CLOSED_BY,
    )
    community_id: Optional[str] = documented(
        "Community ID, version 1 with seed 0: other tools name the flow so.", max_length=40
    )
    vlan: Optional[int] = documented("Number of the outermost VLAN; absent where there is none.")
    inner_vlan: Optional[int] = documented("Number of the VLAN within it; absent where there is none.")
    tunnel: Optional[str] = documented(
        "What the flow's packets travelled in; absent where in nothing.", choices=TUNNELS
    )
    outer_flow_id: Optional[str] = documented(
        "The flow that carries the tunnel; absent where there is none.", max_length=160
    )


@dataclass(frozen=True)
class FlowRecord:
    """One conversation between two ends, however many observers saw it."""

    flow_id: str = documented("Identity: the observing sockets' identities, joined.", max_length=1300)
    protocol: str = documented("Transport protocol.", choices=PROTOCOLS)
    orig_addr: str = documented("Address of the end that began the conversation.", max_length=45)
    orig_port: int = documented("Port of the end that began the conversation.")
    resp_addr: str = documented("Address of the end that was called.", max_length=45)
    resp_port: int = documented("Port of the end that was called.")
    direction: str = documented(
        "How it is known which end began; 'told' by another meter, whose log was imported.", choices=DIRECTIONS
    )
    orig_host: Optional[str] = documented("Traced host on which the originator's socket was seen.")
    resp_host: Optional[str] = documented(
        "Traced host on which the responder's socket was seen, or that owns the address."
    )
    orig_socket_id: Optional[str] = documented("The originator's socket, where it was seen.", max_length=600)
    resp_socket_id: Optional[str] = documented("The responder's socket, where it was seen.", max_length=600)
    first_ns: int = documented("First seen by any observer.", unit="ns")
    last_ns: int = documented("Last seen by any observer.", unit="ns")
    duration_s: float = documented(
        "Time from begin to end where events told of them; else from first to last sample, which is short by up to "
        "two periods.",
        unit="s",
    )
    samples: int = documented("Samples in which it was seen, by the observer that saw it best.")
    period_s: float = documented(
        "Sampling period of that observer; 0 where events told of it, so that nothing was too short to be seen.",
        unit="s",
    )
    orig_bytes: Optional[int] = documented(
        "Bytes from originator to responder; absent if no observer counted.", unit="bytes"
    )
    resp_bytes: Optional[int] = documented(
        "Bytes from responder to originator; absent if no observer counted.", unit="bytes"
    )
    orig_packets: Optional[int] = documented(
        "Packets from originator to responder, of TCP by a watcher on the wire; absent if no observer took packets in. "
        "Of UDP that says that only a connected socket is known, and not whether anything was sent."
    )
    resp_packets: Optional[int] = documented(
        "Packets from responder to originator; absent if no observer took packets in."
    )
    end: Optional[str] = documented(
        "How it ended, where that was seen. 'rejected': somebody answered no within a second, or the caller gave up; "
        "'unanswered': nobody answered.",
        choices=ENDS,
    )
    candidates: int = documented(
        "Sockets that could be the other end, where it cannot be told which; 0 where it was found or none was seen."
    )
    location: Optional[str] = documented("Where the observing host was, by its own rules.", choices=LOCATIONS)
    called_addr: Optional[str] = documented(
        "Address that the originator called, where address or port were translated on the way.",
        max_length=45,
        default=None,
    )
    called_port: Optional[int] = documented(
        "Port that the originator called, where address or port were translated on the way.", default=None
    )
    caller_addr: Optional[str] = documented(
        "Address that the responder takes the originator for, where address or port were translated on the way.",
        max_length=45,
        default=None,
    )
    caller_port: Optional[int] = documented(
        "Port that the responder takes the originator for, where address or port were translated on the way.",
        default=None,
    )
    translated: Optional[str] = documented(
        "Whether addresses were translated on the way. 'resolved': orig and resp are the real ends; 'unresolved': the "
        "far end cannot be the one in the tuple, and it is not known which it is; absent where nothing tells of it.",
        choices=TRANSLATED,
        default=None,
    )
