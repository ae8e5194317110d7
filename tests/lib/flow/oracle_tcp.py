# SPDX-License-Identifier: GPL-3.0-or-later
"""The oracle's idea of one TCP connection: the states, sizes and gaps that Zeek's conn.log speaks of.

Sequence numbers are unrolled into plain integers, so that no arithmetic here knows of 32 bits but `unrolled`.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

INACTIVE, SYN_SENT, SYN_ACK_SENT, PARTIAL, ESTABLISHED, CLOSED, RESET = (
    "inactive", "SYN sent", "SYN and ACK sent", "partial", "established", "closed", "reset",
)  # fmt: skip
_OPENING = (INACTIVE, SYN_SENT, SYN_ACK_SENT)
#: A SYN or a RST whose number lies further off than this says nothing about what was sent.
_BELIEVED_BYTES = 1 << 20
_S = 10**9
CLOSE_DELAY_NS, LINGER_NS, SESSION_TICK_NS, ATTEMPT_NS = 5 * _S, 5 * _S, 6 * _S, 5 * _S


class Segment(NamedTuple):
    """What of a TCP header matters; `data_bytes` by the IP header, `captured` of them are there."""

    seq: int
    ack: int
    flags: str
    data_bytes: int
    captured_bytes: int


def unrolled(number: int, near: int) -> int:
    """The integer that ends in these 32 bits and lies nearest to another."""
    delta = (number - near) & 0xFFFFFFFF
    return near + (delta - (1 << 32) if delta & 0x80000000 else delta)


@dataclass
class Endpoint:
    """One end of a connection."""

    letters: str = ""  # what it sent, in order: Zeek's letters for the history, in upper case
    state: str = INACTIVE
    before: str = INACTIVE
    start: int = 0
    last: int = 0
    ack: int = 0
    fins: int = 0
    fin_at: int = 0  # relative number behind its FIN
    did_close: bool = False
    packets: int = 0
    ip_bytes: int = 0
    missed: int = 0
    read_to: int = 1  # relative number up to which the stream was read, or given up
    beyond: set[int] = field(default_factory=set)  # relative numbers of bytes that came early, one by one

    def turn(self, state: str) -> None:
        """Change the state."""
        if state != self.state:
            self.before, self.state = self.state, state

    def begin(self, seq: int, last: int) -> None:
        """Number the stream from here."""
        self.start, self.ack, self.last = seq, seq, last

    @property
    def size(self) -> int:
        """Payload by the numbers: neither the SYN nor a FIN counts."""
        size = max(self.last, self.ack) - self.start
        size -= 1 if size else 0
        size -= 1 if size and self.fins else 0
        return max(size, 0)

    @property
    def clean(self) -> bool:
        """Whether a gap in what it sent can be believed."""
        return self.state == ESTABLISHED or (self.state == CLOSED and self.before == ESTABLISHED)

    def read(self, at: int, count: int) -> None:
        """Bytes of the stream came."""
        acked = self.ack - self.start
        self.beyond.update(number for number in range(at, at + count) if number >= max(self.read_to, acked))
        while self.read_to in self.beyond:
            self.beyond.remove(self.read_to)
            self.read_to += 1

    def acked(self, to: int, partial: bool, clean: bool) -> None:
        """The peer says that it has everything up to here: what did not come by now is missed."""
        if self.fins and to >= self.fin_at:
            to = self.fin_at - 1
        if to <= self.read_to or (to <= 2 and partial):
            return
        if clean:
            self.missed += sum(number not in self.beyond for number in range(self.read_to, to))
        self.beyond = {number for number in self.beyond if number >= to}
        self.read_to = to
        while self.read_to in self.beyond:
            self.beyond.remove(self.read_to)
            self.read_to += 1


class TcpLife:
    """A TCP connection, from its first packet on.

    Parameters
    ----------
    time_ns : int
        Of its first packet.
    """

    def __init__(self, time_ns: int) -> None:
        self.orig, self.resp = Endpoint(), Endpoint()
        self.last_ns = time_ns
        self.partial = False
        self.saw_opening = False  # a SYN of its originator, or the answer to it
        self.idle_after_opening = False
        self.attempt_ns: int | None = None
        self.close_ns: int | None = None
        self.ticks = [time_ns + ATTEMPT_NS]
        self.turned = False  # whether it turned out only behind it who was called
        self._seen: set[str] = set()

    def is_reused_by(self, segment: Segment) -> bool:
        """Whether a packet begins another connection between the same ports."""
        if "S" not in segment.flags:
            return False
        begun_by = self.orig
        if "A" in segment.flags:
            if self.orig.state != INACTIVE:
                return False
            begun_by = self.resp
        if self.orig.did_close and self.resp.did_close:
            return True
        if segment.seq == begun_by.start & 0xFFFFFFFF:
            return False
        crossed = "A" not in segment.flags and self.orig.state == SYN_ACK_SENT and self.resp.state == INACTIVE
        return not (crossed and segment.seq == self.resp.start & 0xFFFFFFFF)

    def is_over(self, now_ns: int, idle_ns: int, opening_idle_ns: int) -> bool:
        """Whether it had ended when something else happened at this time."""
        if self.close_ns is not None:
            return self.close_ns <= now_ns
        if self.attempt_ns is not None and self.attempt_ns <= now_ns:
            self.attempt_ns = None
            if self.orig.state in (SYN_SENT, SYN_ACK_SENT) and self.resp.state == INACTIVE:
                return True
        while self.ticks[0] <= now_ns:
            tick = self.ticks.pop(0)
            self.ticks = sorted([*self.ticks, tick + SESSION_TICK_NS])
            if self.last_ns + LINGER_NS < tick and self._half_over():
                return True
        return self.last_ns + (idle_ns if self.idle_after_opening else opening_idle_ns) <= now_ns

    def _half_over(self) -> bool:
        ends = (self.orig, self.resp)
        return any(end.did_close for end in ends) and any(end.state in (RESET, INACTIVE) for end in ends)

    def take(self, from_orig: bool, segment: Segment, time_ns: int, ip_bytes: int) -> bool:
        """Take a packet in; true if it showed that the roles were the other way round."""
        me, peer = (self.orig, self.resp) if from_orig else (self.resp, self.orig)
        flags, count = segment.flags, segment.data_bytes
        syn, fin, rst, ack = (flag in flags for flag in "SFRA")
        self._note_partial(from_orig, syn, ack)
        self.saw_opening |= syn and from_orig != ack and me.state == INACTIVE
        length = syn + fin + (0 if rst else count)
        self._number(me, segment.seq, syn, length)
        at = unrolled(segment.seq, me.last)
        relative = at - me.start
        me.letters += _letter(syn, fin, rst, ack, count)
        if not (self.orig.did_close and self.resp.did_close):
            self.last_ns = time_ns
        if fin:
            me.fins += 1
            me.fin_at = relative + length
        relative_ack = self._acknowledge(peer, segment.ack, rst) if ack else 0
        advance = self._advance(me, at + length, syn, fin, rst)
        closing = self._change(me, peer, from_orig, segment, advance)
        flipped = closing == "flipped"
        if not self.idle_after_opening:
            self.idle_after_opening = me.state not in _OPENING or peer.state not in _OPENING
        if ack:
            peer.acked(relative_ack, self.partial, me.clean and peer.clean)
        if count and not rst and relative >= 0 and segment.captured_bytes >= count:
            me.read(relative + syn, count)
        me.packets += 1
        me.ip_bytes += ip_bytes
        self._seen.add("orig" if me is self.orig else "resp")
        if closing is True and not me.did_close:
            me.did_close = True
            if me.state == RESET or peer.did_close or peer.state == INACTIVE:
                self.close_ns = self.last_ns + CLOSE_DELAY_NS
            elif me.before != INACTIVE:
                self.ticks = sorted([*self.ticks, self.last_ns + SESSION_TICK_NS])
        return flipped

    def _note_partial(self, from_orig: bool, syn: bool, ack: bool) -> None:
        if from_orig and "orig" not in self._seen:
            self.partial = not syn or ack
        elif not from_orig and "resp" not in self._seen and not self.partial:
            self.partial = not syn

    def _number(self, me: Endpoint, seq: int, syn: bool, length: int) -> None:
        if me.state == INACTIVE:
            if syn:
                me.begin(seq, seq + length)
            else:  # as if there had been a SYN before
                me.begin(seq - 1, seq)
        elif syn:
            opening = me.state in (SYN_SENT, SYN_ACK_SENT) and seq != me.start & 0xFFFFFFFF
            if opening or me.state in (ESTABLISHED, PARTIAL) or (me.state == RESET and me.before == INACTIVE):
                me.begin(seq, seq + length)

    def _acknowledge(self, peer: Endpoint, ack: int, rst: bool) -> int:
        if peer.state == INACTIVE:
            peer.begin(ack - 1, ack - 1)
            return 1
        told = unrolled(ack, peer.ack)
        if told < peer.start:
            return 0
        broken = ack == 0 and told - peer.ack > _BELIEVED_BYTES
        if not rst and not broken:
            peer.ack = max(peer.ack, told)
        return told - peer.start

    def _advance(self, me: Endpoint, end: int, syn: bool, fin: bool, rst: bool) -> int:
        advance = end - me.last
        if (syn or rst) and abs(advance) > _BELIEVED_BYTES:
            return advance
        if fin and me.last == me.start + 1:  # nothing between SYN and FIN was seen, so it may have been gigabytes
            me.last += (end - me.last) & 0xFFFFFFFF
        elif me.state != RESET and advance > 0:
            me.last = end
        return advance

    def _change(self, me: Endpoint, peer: Endpoint, from_orig: bool, segment: Segment, advance: int) -> bool | str:
        """Change states; true if this end closed by it."""
        syn, fin, rst, ack = (flag in segment.flags for flag in "SFRA")
        if me.state == INACTIVE:
            return self._first_of(me, peer, from_orig, segment)
        closing = False
        if me.state in (SYN_SENT, SYN_ACK_SENT, ESTABLISHED, PARTIAL):
            opening = me.state in (SYN_SENT, SYN_ACK_SENT)
            if syn and me.state == PARTIAL and peer.state == INACTIVE and not ack:
                me.turn(SYN_SENT)
            if fin and (opening or not rst):
                me.turn(CLOSED)
                if not opening and peer.state == RESET and peer.before == CLOSED:
                    peer.turn(CLOSED)  # a FIN and then a RST was its way to end
                closing = True
            if rst:
                me.turn(RESET)
                closing = True
        elif me.state == CLOSED and rst and peer.state != CLOSED:
            me.turn(RESET)
            closing = not me.did_close
        return closing

    def _first_of(self, me: Endpoint, peer: Endpoint, from_orig: bool, segment: Segment) -> bool | str:
        syn, fin, rst, ack = (flag in segment.flags for flag in "SFRA")
        flipped = False
        if syn and from_orig:
            me.turn(SYN_ACK_SENT if ack else SYN_SENT)
            self.attempt_ns = self.last_ns + ATTEMPT_NS
        elif syn:
            if not ack and peer.state == SYN_ACK_SENT and segment.seq == me.start & 0xFFFFFFFF:
                self.partial, flipped = False, True
                self.orig, self.resp = me, peer
                peer.turn(ESTABLISHED)
            if peer.state == SYN_SENT:
                peer.turn(ESTABLISHED)
            me.turn(ESTABLISHED)
        if fin:
            me.turn(CLOSED)
        if rst:
            me.turn(RESET)
        if me.state == INACTIVE:
            if not from_orig and not segment.data_bytes and peer.state == SYN_SENT:
                pass  # some acknowledge a SYN before they answer it
            elif ack and peer.state == ESTABLISHED:
                me.turn(ESTABLISHED)
                self.partial = False
            else:
                me.turn(PARTIAL)
        return "flipped" if flipped else fin or rst

    @property
    def was_answered(self) -> bool:
        """Whether the called end answered an opening, and the connection was not reset."""
        took_part = [
            (end.before if end.state == CLOSED else end.state) not in (INACTIVE, PARTIAL)
            for end in (self.orig, self.resp)
        ]
        return all(took_part) and self.state in ("S1", "S2", "S3", "SF")

    def turn_round(self) -> None:
        """Let the ends change places."""
        self.orig, self.resp, self.turned = self.resp, self.orig, True

    def size_of(self, end: Endpoint, peer: Endpoint) -> int:
        """Payload that an end sent; none where its attempt was broken off, whatever its numbers say."""
        given_up = end.before == SYN_SENT and end.state == RESET and peer.state == INACTIVE
        return 0 if given_up and end.ack > end.start + 1 else end.size

    @property
    def state(self) -> str:
        """The word that Zeek has for how it stands."""
        orig, resp = self.orig, self.resp
        if self.turned and orig.state == RESET == resp.state:
            return "RSTO"
        orig_unknown, resp_unknown = orig.state in (INACTIVE, PARTIAL), resp.state in (INACTIVE, PARTIAL)
        if resp.state == RESET:
            if orig.state in (SYN_SENT, SYN_ACK_SENT) or (
                orig.state == RESET and not self.size_of(orig, resp) + self.size_of(resp, orig)
            ):
                return "REJ"
            return "RSTRH" if orig_unknown else "RSTR"
        if orig.state == RESET:
            if not resp_unknown:
                return "RSTO"
            return "RSTOS0" if re.fullmatch("S[^HAFIQ]*R.*", orig.letters) else "OTH"
        if orig.state == CLOSED:
            return "SF" if resp.state == CLOSED else "SH" if resp_unknown else "S2"
        if resp.state == CLOSED:
            return "SHR" if orig_unknown else "S3"
        if (orig.state, resp.state) == (SYN_SENT, INACTIVE):
            return "S0"
        return "S1" if (orig.state, resp.state) == (ESTABLISHED, ESTABLISHED) else "OTH"

    @property
    def handshake(self) -> str:
        """Which parts of the opening were seen."""
        seen = ("S" in self.orig.letters, "H" in self.resp.letters or "S" in self.resp.letters)
        return {(True, True): "full", (True, False): "orig", (False, True): "resp", (False, False): "none"}[seen]

    @property
    def closed_by(self) -> str:
        """Which ends closed it."""
        seen = tuple(bool(set("FRI") & set(end.letters)) for end in (self.orig, self.resp))
        return {(True, True): "both", (True, False): "orig", (False, True): "resp", (False, False): "none"}[seen]


def _letter(syn: bool, fin: bool, rst: bool, ack: bool, count: int) -> str:
    if syn + fin + rst > 1:
        return "I" if fin and rst else "Q"
    if syn:
        return "H" if ack else "S"
    return "F" if fin else "R" if rst else "D" if count else "A" if ack else ""
