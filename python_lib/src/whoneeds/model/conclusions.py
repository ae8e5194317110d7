# SPDX-License-Identifier: GPL-3.0-or-later
"""Conclusions: what the controller makes of evidence. Each says what it rests on.

Long, because it is one vocabulary: each record is a list of columns with their meaning, and nothing else is here.

Words: ``dependent`` needs ``depends_on``; ``host`` is an inventory name; ``app`` is an application's name;
``*_share`` lies in [0, 1].
"""

from dataclasses import dataclass
from typing import Optional, Tuple

from whoneeds.model.evidence import DIRECTIONS, ENDS, PROTOCOLS, TRANSLATED
from whoneeds.model.schema import documented

SIDES = ("orig", "resp")
RULES = ("socket", "listener", "none")
KINDS = ("static", "transient", "unclassified")
METHODS = ("macroscope", "evidence")
REASONS = ("all_static", "well_known_port", "shared", "not_shared", "weighed", "too_little")


@dataclass(frozen=True)
class Attribution:
    """Who stands behind one end of a flow, and how that is known."""

    flow_id: str = documented("The flow.", max_length=1300)
    side: str = documented("Which end of it.", choices=SIDES)
    host: Optional[str] = documented("Traced host of that end; absent if the end is not traced.")
    process_id: Optional[str] = documented("The process; absent unless exactly one candidate is left.", max_length=400)
    app: Optional[str] = documented("The application; absent unless all candidates agree on it.", max_length=64)
    rule: str = documented(
        "socket: owner of the very socket; listener: owner of the listening socket it reached; none: not known.",
        choices=RULES,
    )
    candidates: int = documented("Processes that could have been meant.")


@dataclass(frozen=True)
class Connection:
    """A flow with the programs at both ends: the row that people ask for."""

    protocol: str = documented("Transport protocol.", choices=PROTOCOLS)
    orig_addr: str = documented("Address of the end that began the conversation.", max_length=45)
    orig_port: int = documented("Port of the end that began the conversation.")
    resp_addr: str = documented("Address of the end that was called.", max_length=45)
    resp_port: int = documented("Port of the end that was called.")
    orig_host: Optional[str] = documented("Traced host of the originator.")
    orig_app: Optional[str] = documented("Application of the originator.", max_length=64)
    orig_pid: Optional[int] = documented("Process number of the originator.")
    resp_host: Optional[str] = documented("Traced host of the responder.")
    resp_app: Optional[str] = documented("Application of the responder.", max_length=64)
    resp_pid: Optional[int] = documented("Process number of the responder.")
    first_ns: int = documented("First seen.", unit="ns")
    last_ns: int = documented("Last seen.", unit="ns")
    orig_bytes: Optional[int] = documented("Bytes from originator to responder.", unit="bytes")
    resp_bytes: Optional[int] = documented("Bytes from responder to originator.", unit="bytes")
    orig_packets: Optional[int] = documented("UDP packets from originator to responder; absent if none were taken in.")
    resp_packets: Optional[int] = documented("UDP packets from responder to originator; absent if none were taken in.")
    end: Optional[str] = documented("How it ended; absent if only samples are known.", choices=ENDS)
    rule: str = documented("How each end is known: originator's rule, slash, responder's rule.", max_length=32)
    direction: str = documented("How it is known which end began.", choices=DIRECTIONS)
    samples: int = documented("Samples in which it was seen.")
    flow_id: str = documented("The flow.", max_length=1300)
    called_addr: Optional[str] = documented(
        "Address that the originator called, where it was translated.", max_length=45, default=None
    )
    called_port: Optional[int] = documented("Port that the originator called, where it was translated.", default=None)
    caller_addr: Optional[str] = documented(
        "Address that the responder takes the originator for, where it was translated.", max_length=45, default=None
    )
    caller_port: Optional[int] = documented(
        "Port that the responder takes the originator for, where it was translated.", default=None
    )
    orig_container: Optional[str] = documented(
        "Container of the originator's process: its name, or identity where no name is known; absent outside "
        "containers.",
        default=None,
    )
    resp_container: Optional[str] = documented(
        "Container of the responder's process, likewise; absent outside containers.", default=None
    )
    translated: Optional[str] = documented(
        "Whether addresses were translated on the way: 'resolved', or 'unresolved' where the far end cannot be the one "
        "in the tuple; absent where nothing tells of it.",
        choices=TRANSLATED,
        default=None,
    )


@dataclass(frozen=True)
class ApplicationInstance:
    """One run of an application on one address of one host (Macroscope, section 2.1)."""

    app: str = documented("The application.", max_length=64)
    host: str = documented("Host on which it ran.")
    pid: int = documented("Process number.")
    address: str = documented("The host's address that it used.", max_length=45)
    user: Optional[str] = documented(
        "Who ran it: host and user number; absent where that is not known: nobody is no user.", max_length=300
    )
    process_id: str = documented(
        "One process behind the instance (of several with a reused pid: the last).", max_length=400
    )
    first_ns: int = documented("First seen with a connection of its own.", unit="ns")
    last_ns: int = documented("Last seen with a connection of its own.", unit="ns")
    leader_id: Optional[str] = documented(
        "The first process of the same program that it was forked from, itself if it was not: instances with one "
        "leader are one application; absent if the process's parents are not known.",
        max_length=400,
        default=None,
    )
    part_of: Optional[str] = documented(
        "The application of another program that began it, in the same container and session or service; absent if "
        "none is known to have.",
        max_length=64,
        default=None,
    )
    part_of_id: Optional[str] = documented("The first process of that application.", max_length=400, default=None)
    container: Optional[str] = documented(
        "Name of its container, or identity where no name is known; absent outside containers.", default=None
    )


@dataclass(frozen=True)
class LocalUse:
    """All use that an application on a host made of a daemon on the same host, over loopback or AF_UNIX."""

    app: str = documented("The application that asked.", max_length=64)
    host: str = documented("The host.")
    service: str = documented(
        "What was asked: unix:PATH (an abstract name begins with @), tcp:ADDRESS:PORT or udp:ADDRESS:PORT.",
        max_length=300,
    )
    daemon: Optional[str] = documented(
        "The application that answers there; absent where it is not known or ambiguous.", max_length=64
    )
    processes: int = documented("Processes of the application that asked.")
    connections: int = documented(
        "Connections: flows over loopback; over AF_UNIX pairs of a process and one at the daemon's end."
    )
    first_ns: int = documented("First use seen.", unit="ns")
    last_ns: int = documented("Last use seen.", unit="ns")


@dataclass(frozen=True)
class ServiceUse:
    """All use that one instance made of one service instance."""

    app: str = documented("The application.", max_length=64)
    host: str = documented("Host on which the instance ran.")
    pid: int = documented("Process number of the instance.")
    address: str = documented("Address of the instance.", max_length=45)
    user: Optional[str] = documented(
        "Who ran it: host and user number; absent where that is not known: nobody is no user.", max_length=300
    )
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    resp_addr: str = documented("Address of the service instance.", max_length=45)
    resp_host: Optional[str] = documented("Traced host of the service instance.")
    resp_app: Optional[str] = documented("Application that answers there, where known and unambiguous.", max_length=64)
    flows: int = documented("Flows seen.")
    samples: int = documented("Samples of them, summed.")
    duration_s: float = documented("Observed duration of the flows, summed.", unit="s")
    period_s: float = documented("Longest sampling period among the observers.", unit="s")
    orig_bytes: Optional[int] = documented("Bytes from the instance to the service.", unit="bytes")
    resp_bytes: Optional[int] = documented("Bytes from the service to the instance.", unit="bytes")
    first_ns: int = documented("First use seen.", unit="ns")
    last_ns: int = documented("Last use seen.", unit="ns")
    process_id: Optional[str] = documented(
        "The process behind it: where a process number was given out again, each process has rows of its own.",
        max_length=400,
        default=None,
    )


@dataclass(frozen=True)
class ServiceTrait:
    """What can be said of an application's use of a service beside how many use it: what `evidence` weighs.

    Instances are told apart by process, so that a process number that is given out again makes another one.
    """

    app: str = documented("The application.", max_length=64)
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    population: int = documented("Instances of the application.")
    support: int = documented("Those that used the service.")
    support_in_all: int = documented("Instances that used a service, summed over all services of the application.")
    users_in_all: Optional[int] = documented("Known users of the application; absent where none is known.")
    users: Optional[int] = documented("Those who used the service through it.")
    hosts_in_all: int = documented("Hosts on which the application ran.")
    hosts: int = documented("Those on which it used the service.")
    boots_in_all: int = documented("Boots of these hosts in which it ran.")
    boots: int = documented("Those in which it used the service.")
    days_in_all: int = documented("Days (UTC) on which an instance began or ended to use a place.", unit="days")
    days: int = documented("Those on which that was this service.", unit="days")
    flows: int = documented("Connections to the service.")
    samples: int = documented("Samples in which they were seen, summed.")
    duration_s: float = documented("Observed length of a connection, on average.", unit="s")
    period_s: float = documented("Sampling period, on average over connections; 0 where events told.", unit="s")
    early: int = documented("Instances that used it within a minute of their first use of anything.")
    dynamic: Optional[bool] = documented(
        "Whether the kernels of this fleet give such ports to callers; absent where too few connections are known."
    )
    other_services: int = documented("Other services of the application.")
    other_single_services: int = documented("Those of them that one instance used, and no other.")
    near_services: int = documented("Other services of the application in the same run of 256 ports.")
    near_support: int = documented("Instances that used those, summed over them.")
    service_apps: int = documented("Other applications that use the same protocol and port anywhere.")
    destinations: int = documented("Places (address, and host where that is traced) at which it was used.")
    repeated_destinations: int = documented("Those of them that two or more instances used.")
    top_support: int = documented("Instances that used the place that most of them used.")
    place_support: int = documented("Instances that used a place, summed over places.")
    other_ports: int = documented("Other ports that the application called there, summed over places.")
    other_single_ports: int = documented("Those of them that one instance called, and no other.")
    shared_destinations: int = documented("Places at which other applications use the service as well.")
    named_destinations: Optional[int] = documented(
        "Places that somebody resolved a name for; absent where no host told of names at all."
    )
    loopback_destinations: int = documented("Loopback addresses among the places.")
    traced_destinations: int = documented("Places on traced hosts.")
    listened_destinations: int = documented("Those where a socket was seen waiting on the port.")
    own_destinations: int = documented("Those where the application itself waits on it.")
    unit_destinations: int = documented("Those where a service of the host's service manager waits on it.")
    first_ns: int = documented("First use of the service.", unit="ns")
    last_ns: int = documented("Last use of the service.", unit="ns")
    app_first_ns: int = documented("First use of anything by the application.", unit="ns")
    app_last_ns: int = documented("Last use of anything by the application.", unit="ns")


@dataclass(frozen=True)
class ApplicationCoverage:
    """What could have been missed of an application on a host: 'not seen' means no more than this says."""

    app: str = documented("The application.", max_length=64)
    host: str = documented("The host.")
    runs: int = documented("Processes of it that were seen.")
    observed_s: float = documented(
        "Time for which it was watched while it ran: from first to last sight of its processes, overlaps counted once, "
        "gaps taken off.",
        unit="s",
    )
    period_s: float = documented("Longest sampling period; 0 where events told of every connection.", unit="s")
    interval_s: Optional[float] = documented(
        "A dependency that is used at random times, on average at least this often, and held for a sampling period "
        "or longer, was missed with 5 % probability at most; absent where nothing was watched.",
        unit="s",
    )
    short_interval_s: Optional[float] = documented("The same of uses that last a second on average.", unit="s")
    run_share: float = documented(
        "A dependency that at least this share of its runs use was missed with 5 % probability at most.", unit="share"
    )


@dataclass(frozen=True)
class Dependency:
    """Somebody needs something: the product of the whole line.

    Levels (Macroscope, section 2.1): 1 app -> (protocol, port); 2 app -> (address, protocol, port);
    3 (app, pid, address) -> (protocol, port); 4 (app, pid, address) -> (address, protocol, port).
    """

    level: int = documented("Level of detail, 1 to 4.")
    app: str = documented("The application that needs.", max_length=64)
    host: Optional[str] = documented("Host of the instance that needs (levels 3 and 4).")
    pid: Optional[int] = documented("Process number of the instance that needs (levels 3 and 4).")
    address: Optional[str] = documented("Address of the instance that needs (levels 3 and 4).", max_length=45)
    protocol: str = documented("Protocol of the service that is needed.", choices=PROTOCOLS)
    port: int = documented("Port of the service that is needed.")
    resp_addr: Optional[str] = documented("Address of the service instance (levels 2 and 4).", max_length=45)
    resp_host: Optional[str] = documented("Traced host of the service instance (levels 2 and 4).")
    resp_app: Optional[str] = documented("Application that answers there, where known and unambiguous.", max_length=64)
    kind: str = documented("Whether the need is built in (static) or of the moment (transient).", choices=KINDS)
    method: str = documented("Method that decided the kind.", choices=METHODS)
    reason: str = documented("The part of the method that decided.", choices=REASONS)
    support: int = documented(
        "Instances of the application that used the service (levels 1 and 3) or the service instance (2 and 4)."
    )
    population: int = documented("Instances of the application that were seen.")
    users: Optional[int] = documented(
        "Known users whose instances used it, counted like support; absent where none is known."
    )
    usage_share: float = documented("support / population, before any adjustment for sampling.", unit="share")
    adjusted_share: float = documented("The same after adjustment for what sampling misses.", unit="share")
    flows: int = documented("Flows of this very row.")
    orig_bytes: Optional[int] = documented("Bytes from the dependent.", unit="bytes")
    resp_bytes: Optional[int] = documented("Bytes to the dependent.", unit="bytes")
    first_ns: int = documented("First use seen.", unit="ns")
    last_ns: int = documented("Last use seen.", unit="ns")
    probability: Optional[float] = documented(
        "How probable it is that the need is built in, of such evidence; absent where the method gives none.",
        unit="share",
        default=None,
    )
    grounds: Optional[str] = documented(
        "In words, what weighed most; absent where the method gives none.", default=None
    )


@dataclass(frozen=True)
class Need:
    """One entry of a host's facts: something on this host needs a service somewhere."""

    app: str = documented("The application on this host.", max_length=64)
    kind: str = documented("static or transient; unclassified where too little is known.", choices=KINDS)
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    address: str = documented("Address of the service.", max_length=45)
    host: Optional[str] = documented("Inventory host that owns the address; absent if it is not traced.")
    provider: Optional[str] = documented("Application that answers there.", max_length=64)
    usage_share: float = documented(
        "Share of the application's instances, fleet-wide, that use the service.", unit="share"
    )
    support: int = documented("Instances on this host that used it.")
    flows: int = documented("Flows seen.")
    orig_bytes: Optional[int] = documented("Bytes sent to the service.", unit="bytes")
    resp_bytes: Optional[int] = documented("Bytes received from the service.", unit="bytes")
    first_ns: int = documented("First use seen.", unit="ns")
    last_ns: int = documented("Last use seen.", unit="ns")
    probability: Optional[float] = documented(
        "How probable it is that the need is built in; absent where the method gives none.", unit="share", default=None
    )
    grounds: Optional[str] = documented(
        "In words, what weighed most, fleet-wide; absent where the method gives none.", default=None
    )
    name: Optional[str] = documented(
        "Name that the application called the address by; absent if none is known or they differ.",
        max_length=253,
        default=None,
    )
    any_of: Optional[str] = documented(
        "Set of services of which it needs any one; an application's entries with the same word stand for each other. "
        "Absent where it needs this very one.",
        max_length=300,
        default=None,
    )


@dataclass(frozen=True)
class WireJoin:
    """How what a monitor saw was joined with what a host recorded; a row for each two with a connection in common."""

    monitor: str = documented("Who watched.")
    host: str = documented("The host.")
    ahead_ns: Optional[int] = documented(
        "How far the monitor's clock was found to be ahead of the host's, negative if it is behind; absent if too few "
        "connections agree.",
        unit="ns",
    )
    agreeing: int = documented("Connections that agree on that.")
    witnesses: int = documented("Connections whose addresses and ports came once on both.")
    joined: int = documented("The monitor's flows that were laid to connections of the host.")
    doubtful: int = documented(
        "Its flows of which it cannot be told to which connection they belong, or whether to any; they are left out."
    )


@dataclass(frozen=True)
class Dependent:
    """One entry of a host's facts: somebody needs a service that this host offers."""

    host: str = documented("Traced host on which the dependent runs; it may be this host itself.")
    app: str = documented("The application that needs.", max_length=64)
    kind: str = documented("static or transient; unclassified where too little is known.", choices=KINDS)
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    provider: Optional[str] = documented("Application that answers here.", max_length=64)
    support: int = documented("Instances on that host that used it.")
    flows: int = documented("Flows seen.")
    first_ns: int = documented("First use seen.", unit="ns")
    last_ns: int = documented("Last use seen.", unit="ns")
    probability: Optional[float] = documented(
        "How probable it is that the need is built in; absent where the method gives none.", unit="share", default=None
    )


@dataclass(frozen=True)
class Provision:
    """One entry of a host's facts: a service that something on this host offers."""

    app: Optional[str] = documented(
        "The application that listens; absent if it is not known or ambiguous.", max_length=64
    )
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    loopback_only: bool = documented("Whether it can be reached from this host only.")
    needed_by_hosts: Tuple[str, ...] = documented("Traced hosts with a static need for it.")
    needed_by_apps: Tuple[str, ...] = documented("Applications with a static need for it.", max_length=64)


@dataclass(frozen=True)
class HostCoverage:
    """How well a host was looked at: without it, 'not seen' could be read as 'not there'."""

    segments: int = documented("Segments taken in.")
    samples: int = documented("Samples of the socket tables.")
    period_s: Optional[float] = documented("Longest sampling period.", unit="s")
    privileged: Optional[bool] = documented("Whether the tracer could always look into other users' processes.")
    first_ns: Optional[int] = documented("Begin of the observation.", unit="ns")
    last_ns: Optional[int] = documented("End of the observation.", unit="ns")
    ends: int = documented("Ends of conversations on the host; one that stayed on it has two.")
    by_socket: int = documented("Of these, ends whose process is known as the one that held the very socket.")
    by_listener: int = documented("Ends whose process is known as the one that waited where the conversation arrived.")
    ambiguous: int = documented("Ends that have candidates, and no process: it cannot be told which of them it was.")
    unknown: int = documented("Ends without any candidate.")
    unpaired: int = documented("Conversations of the host whose other end is one of several sockets: not told which.")
    gaps: Tuple[str, ...] = documented("What could not be seen, in words, each once.", max_length=255)
