# SPDX-License-Identifier: GPL-3.0-or-later
"""One packet, decoded: places in an array of numbers, so that compiled code hands it on without making objects.

A packet is an ``int64`` array of `SIZE` numbers at the places named here, and four ``uint64`` for its addresses. IPv4
addresses are written as IPv6 knows them (``::ffff:a.b.c.d``), so that there is one kind.
"""

from whoneeds.model.evidence import TUNNELS

(
    TIME_NS, PROTOCOL, SOURCE_PORT, TARGET_PORT, ONE_WAY, FLAGS, SEQUENCE, ACKNOWLEDGED, PAYLOAD_BYTES, KEPT_BYTES,
    IP_BYTES, VLAN, INNER_VLAN, TUNNEL, OUTER, BODY, BODY_END, WIRE_END, IS_BAD, FAMILY, HEADER,
) = range(21)  # fmt: skip
SIZE = 24

#: Protocol numbers of IP.
ICMP, IPIP, TCP, UDP, IPV6_IN_IP, GRE, ESP, ICMP6, SCTP = 1, 4, 6, 17, 41, 47, 50, 58, 132
#: Flags of TCP.
FIN, SYN, RST, ACK = 1, 2, 4, 16
#: What a decoder answers.
DONE, SKIPPED, FRAGMENT = range(3)
#: Kinds of tunnels; 0 is none.
IN_GRE, IN_IP, IN_VXLAN, IN_GENEVE, IN_GTP, IN_TEREDO, IN_AYIYA = (
    1 + TUNNELS.index(word) for word in ("gre", "ipip", "vxlan", "geneve", "gtp", "teredo", "ayiya")
)
