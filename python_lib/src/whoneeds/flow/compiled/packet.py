# SPDX-License-Identifier: GPL-3.0-or-later
"""One packet, decoded: a record of numbers, so that compiled code hands it on without making objects.

IPv4 addresses are written as IPv6 knows them (``::ffff:a.b.c.d``), so that there is one kind. While a packet is
decoded, `a` is who sent it and `b` who gets it; then they are put in the flow's order, which does not depend on that.
"""

import numpy as np

from whoneeds.model.evidence import TUNNELS

#: A packet. `ports` holds both ports, the protocol, and whether it is one-way and its addresses wide, as a flow's key.
PACKET = np.dtype(
    [
        ("a_high", "u8"), ("a_low", "u8"), ("b_high", "u8"), ("b_low", "u8"), ("ports", "u8"),
        ("time_ns", "i8"), ("ip_bytes", "i8"), ("payload", "i8"), ("kept", "i8"), ("sequence", "i8"),
        ("acknowledged", "i8"), ("outer", "i8"), ("header", "i8"), ("body", "i8"), ("body_end", "i8"),
        ("wire_end", "i8"), ("hash", "i8"), ("source_port", "i4"), ("target_port", "i4"),
        ("vlan", "i2"), ("inner_vlan", "i2"), ("what", "i1"), ("protocol", "u1"), ("flags", "u1"), ("family", "i1"),
        ("side", "i1"), ("one_way", "i1"), ("is_bad", "i1"), ("tunnel", "i1"),
    ],
    align=True,
)  # fmt: skip

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
