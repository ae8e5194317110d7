# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user may set of the meter; what is silent for how long, and what is believed of ports."""

from collections.abc import Mapping
from dataclasses import dataclass, field

#: Ports that services have where they are not told otherwise. A packet that comes from one of them, to a port that is
#: none, is taken for an answer. The well-known ports of protocols that networks really carry, by transport.
SERVER_PORTS: dict[str, frozenset[int]] = {
    "tcp": frozenset(
        (21, 22, 25, 53, 80, 81, 88, 110, 135, 143, 389, 443, 445, 502, 563, 585, 587, 614, 631, 636, 989)
        + (990, 992, 993, 995, 1080, 1434, 1883, 2811, 3128, 3268, 3306, 3389, 5222, 5223, 5269, 5432, 6379, 6666)
        + (6667, 6668, 6669, 8000, 8080, 8888, 139, 20000)
    ),
    "udp": frozenset(
        (53, 67, 88, 123, 137, 161, 162, 389, 443, 514, 1812, 2123, 2152, 3544, 4789, 5060, 5072)
        + (5353, 5355, 6081, 20000)
    ),
}


@dataclass(frozen=True)
class MeterSettings:
    """How the meter tells flows apart. The timeouts are Zeek's defaults.

    Attributes
    ----------
    tcp_timeout_s : float
        Silence after which an established TCP connection is another one.
    opening_timeout_s : float
        The same for one that is not established.
    udp_timeout_s, icmp_timeout_s : float
        The same without connections; the latter also for every other protocol.
    attempt_timeout_s : float
        A SYN that nobody answered for that long is given up.
    close_delay_s : float
        Packets after the end of a connection belong to it for that long.
    server_ports : mapping of str to frozenset of int
        Ports of services, by 'tcp' and 'udp'; for flows whose beginning was not seen.
    check_checksums : bool
        Leave packets out whose checksum is wrong. Captures of a host's own traffic have many of those, since network
        cards fill them in; so it is off.
    most_flows : int
        Flows that are remembered at once. Beyond it the one that was silent longest is given up, which is reported.
    tunnel_depth : int
        Tunnels within tunnels that are opened.
    seed : int
        Of the flow table's hash. With one that nobody knows, nobody can make flows collide.
    """

    tcp_timeout_s: float = 300.0
    opening_timeout_s: float = 60.0
    udp_timeout_s: float = 60.0
    icmp_timeout_s: float = 60.0
    attempt_timeout_s: float = 5.0
    close_delay_s: float = 5.0
    server_ports: Mapping[str, frozenset[int]] = field(default_factory=lambda: dict(SERVER_PORTS))
    check_checksums: bool = False
    most_flows: int = 1 << 17
    tunnel_depth: int = 2
    seed: int = 0
