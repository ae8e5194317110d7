# SPDX-License-Identifier: GPL-3.0-or-later
"""What was seen of one socket in a segment: who held it, in which samples, with how many bytes."""

from typing import Dict, Optional

from whoneeds.tracer.owners import Holders
from whoneeds.tracer.socket_rows import Ended, Ends

NOBODY: Holders = ()


class Span:
    """Samples in which the same processes held a socket."""

    __slots__ = ("first_ns", "last_ns", "samples")

    def __init__(self, now_ns: int) -> None:
        self.first_ns = self.last_ns = now_ns
        self.samples = 0


class Sighting:
    """What was seen of one socket in this segment.

    Attributes
    ----------
    turn : int
        Sample in which it was looked at last.
    standing : bool
        Whether it was in every sample since.
    counted : bool
        Whether these count: a connection is not seen any longer once it is closed.
    settled : int
        Sample up to which they are put down to its span.
    holders, span : Holders, Span
        Who holds it, and the samples of that.
    earlier : dict of Holders to Span, or None
        The same of others that held it.
    ended : Ended or None
        What events tell of its life, once it is over.
    """

    __slots__ = (
        "counted", "earlier", "ended", "ends", "holders", "inode", "protocol", "received", "sent", "settled", "source",
        "span", "standing", "state", "turn", "uid",
    )  # fmt: skip

    def __init__(self, protocol: str, ends: Ends, source: str, now_ns: int) -> None:
        self.protocol, self.ends, self.source = protocol, ends, source
        self.state, self.inode, self.turn, self.settled = 0, 0, -1, 0
        self.standing = self.counted = False
        self.ended: Optional[Ended] = None
        self.uid: Optional[int] = None
        self.sent: Optional[int] = None
        self.received: Optional[int] = None
        self.holders = NOBODY
        self.span = Span(now_ns)
        self.earlier: Optional[Dict[Holders, Span]] = None

    def spans(self) -> Dict[Holders, Span]:
        """Samples by who held it then."""
        now = {self.holders: self.span}
        return now if self.earlier is None else {**self.earlier, **now}
