# SPDX-License-Identifier: GPL-3.0-or-later
"""One packet of a TCP connection: the states of its ends, their numbers, and how it ends.

The states, and which change follows from which packet, are those of Zeek's conn.log, so that its ``conn_state`` can be
told. Sequence numbers are unrolled: they count from the SYN of their end, and do not wrap.
"""

import numpy as np

from whoneeds.flow.compiled import part
from whoneeds.flow.compiled.packet import ACK, FIN, RST, SYN
from whoneeds.flow.compiled.streams import take_acknowledgement, take_piece
from whoneeds.flow.compiled.table import (
    ATTEMPT,
    CLOSE_DELAY,
    CLOSED,
    ESTABLISHED,
    INACTIVE,
    NEVER,
    PARTIAL,
    RESET,
    SYN_ACK_SENT,
    SYN_SENT,
)

#: A SYN or RST whose number lies further off than this says nothing of what was sent.
_BELIEVED_BYTES = 1 << 20
_TICK_NS = 6_000_000_000
#: What the originator did, as far as it tells an attempt that it broke off: nothing, only SYNs, these and a RST, else.
_NOTHING, _ONLY_SYN, BROKEN_OFF, _MORE = 0, 1, 2, 3


@part
def distance(later, earlier):
    """How far one 32-bit number is behind another; negative if it is before."""
    apart = (later - earlier) & 0xFFFFFFFF
    return apart - 0x100000000 if apart & 0x80000000 else apart


@part
def _relative(end, number, near):
    """A sequence number as a count from the SYN, unrolled to lie near a count that is known."""
    return near + distance(number, (np.int64(end["start"]) + near) & 0xFFFFFFFF)


@part
def _begin_numbers(end, start, last):
    end["start"] = np.uint32(start & 0xFFFFFFFF)
    end["acked"], end["last"] = 0, distance(last & 0xFFFFFFFF, start & 0xFFFFFFFF)


@part
def _turn(flow, end, peer, state):
    if state != end["state"]:
        if state > SYN_ACK_SENT and end["state"] <= SYN_ACK_SENT and peer["state"] <= SYN_ACK_SENT:
            flow["is_open"] = 1
        end["before"], end["state"] = end["state"], state


@part
def is_reused(orig, resp, packet):
    """Whether a packet begins another connection between the same ports."""
    flags = np.int64(packet["flags"])
    if not flags & SYN:
        return False
    caller = orig
    if flags & ACK:
        if orig["state"] != INACTIVE:
            return False
        caller = resp
    if orig["did_close"] and resp["did_close"]:
        return True
    number = packet["sequence"]
    if number == caller["start"]:
        return False
    crossed = not flags & ACK and caller["state"] == SYN_ACK_SENT and resp["state"] == INACTIVE
    return not (crossed and number == resp["start"])


@part
def take_segment(flow, rest, ends, fin_at, at, side, packet, limits, pieces, numbers):
    """Take a TCP packet in, after its flow was found.

    Parameters
    ----------
    flow, rest : records
        The flow at `at`.
    ends, fin_at : arrays
    at, side : int
        Place of the flow, and the side on which the sender is.
    packet, limits, pieces, numbers : arrays
    """
    end, peer = ends[2 * at + side], ends[2 * at + 1 - side]
    is_orig = side == flow["orig_side"]
    flags, length = np.int64(packet["flags"]), packet["payload"]
    has_syn, has_fin, has_rst, has_ack = flags & SYN, flags & FIN, flags & RST, flags & ACK
    if not end["was_seen"]:
        if is_orig:
            flow["is_partial"] = not has_syn or has_ack != 0
        elif not flow["is_partial"]:
            flow["is_partial"] = not has_syn
    taken = (0 if has_rst else length) + (1 if has_syn else 0) + (1 if has_fin else 0)
    base = packet["sequence"]
    _begin_end(end, base, base + taken, has_syn)
    relative = _relative(end, base, end["last"])
    _note_history(flow, is_orig, flags, length)
    orig, resp = ends[2 * at + flow["orig_side"]], ends[2 * at + 1 - flow["orig_side"]]
    if not orig["did_close"] or not resp["did_close"]:
        flow["last_ns"] = packet["time_ns"]
    if has_fin:
        end["fins"] = 1
        fin_at[2 * at + side] = relative + taken
    acknowledged = 0
    if has_ack:
        if peer["state"] == INACTIVE:
            acknowledged = 1
            _begin_numbers(peer, packet["acknowledged"] - 1, packet["acknowledged"] - 1)
        else:
            acknowledged = _relative(peer, packet["acknowledged"], peer["acked"])
            if acknowledged < 0:
                acknowledged = 0
            elif not has_rst and _is_believed(packet["acknowledged"], acknowledged - peer["acked"]):
                peer["acked"] = acknowledged
    _advance(end, relative + taken, has_syn or has_rst, has_fin)
    close = _step(flow, rest, end, peer, base, is_orig, length, flags, packet["time_ns"], limits)
    if has_ack:
        flow["missed"] += take_acknowledgement(
            peer, end, fin_at, 2 * at + 1 - side, acknowledged, flow["is_partial"], pieces, numbers
        )
    end["was_seen"] = 1
    if length > 0 and packet["kept"] >= length and not has_rst and relative >= 0:
        begin = relative + 1 if has_syn else relative
        take_piece(end, begin, begin + length, pieces, numbers)
    if close:
        _close(flow, rest, end, peer, limits)


@part
def _is_believed(number, ahead):
    """Whether an acknowledgement counts: a broken one is likelier than a large stream that ends at 0."""
    return ahead > 0 and (number != 0 or ahead <= _BELIEVED_BYTES)


@part
def _begin_end(end, base, last, has_syn):
    """Number a stream that begins, or that turns out to begin elsewhere."""
    state = end["state"]
    if state == INACTIVE:
        if has_syn:
            _begin_numbers(end, base, last)
        else:  # as though a SYN had been before it
            _begin_numbers(end, base - 1, base)
    elif has_syn and (
        (state in (SYN_SENT, SYN_ACK_SENT) and base != end["start"])
        or state in (ESTABLISHED, PARTIAL)
        or (state == RESET and end["before"] == INACTIVE)
    ):
        _begin_numbers(end, base, last)


@part
def _note_history(flow, is_orig, flags, length):
    """Remember whether the originator sent SYNs and then a RST, and nothing that says that it was answered."""
    state = flow["history"]
    if state >= BROKEN_OFF:
        return
    several = (flags & SYN != 0) + (flags & FIN != 0) + (flags & RST != 0) > 1
    if state == _NOTHING:
        flow["history"] = _ONLY_SYN if is_orig and flags & SYN and not flags & ACK and not several else _MORE
    elif is_orig:
        if several or flags & FIN or (flags & SYN and flags & ACK):
            flow["history"] = _MORE
        elif flags & RST:
            flow["history"] = BROKEN_OFF
        elif not flags & SYN and not length and flags & ACK:
            flow["history"] = _MORE


@part
def _advance(end, last, is_doubtful, has_fin):
    """Note how far a stream went."""
    ahead = last - end["last"]
    if is_doubtful and (ahead > _BELIEVED_BYTES or ahead < -_BELIEVED_BYTES):
        return
    if has_fin and end["last"] == 1:
        end["last"] = last if ahead >= 0 else last + 0x100000000  # so long that the numbers went once around
    elif end["state"] != RESET and ahead > 0:
        end["last"] = last


@part
def _step(flow, rest, end, peer, base, is_orig, length, flags, now_ns, limits):
    """Change the states; whether this end is closed by it."""
    state = end["state"]
    has_syn, has_fin, has_rst = flags & SYN, flags & FIN, flags & RST
    if state == INACTIVE:
        return _step_inactive(flow, rest, end, peer, base, is_orig, length, flags, now_ns, limits)
    if state in (SYN_SENT, SYN_ACK_SENT):
        if has_fin:
            _turn(flow, end, peer, CLOSED)
        if has_rst:
            _turn(flow, end, peer, RESET)
        return has_fin or has_rst
    if state in (ESTABLISHED, PARTIAL):
        if has_syn and state == PARTIAL and peer["state"] == INACTIVE and not flags & ACK:
            _turn(flow, end, peer, SYN_SENT)
        if has_fin and not has_rst:
            _turn(flow, end, peer, CLOSED)
            if peer["state"] == RESET and peer["before"] == CLOSED:
                _turn(flow, peer, end, CLOSED)
        if has_rst:
            _turn(flow, end, peer, RESET)
        return has_fin or has_rst
    if state == CLOSED and has_rst and peer["state"] != CLOSED:
        _turn(flow, end, peer, RESET)
        return not end["did_close"]
    return False


@part
def _step_inactive(flow, rest, end, peer, base, is_orig, length, flags, now_ns, limits):
    has_syn, has_fin, has_rst, has_ack = flags & SYN, flags & FIN, flags & RST, flags & ACK
    if has_syn:
        if is_orig:
            _turn(flow, end, peer, SYN_ACK_SENT if has_ack else SYN_SENT)
            flow["saw_opening"] = not has_ack
            if rest["attempt_ns"] == NEVER:
                rest["attempt_ns"] = now_ns + limits[ATTEMPT]
        else:
            if not has_ack and peer["state"] == SYN_ACK_SENT and base == end["start"]:
                # SYN and its answer came in the wrong order: whoever sent the SYN began
                flow["is_partial"] = 0
                flow["orig_side"] = 1 - flow["orig_side"]
                flow["flipped"] = 1
                peer["was_seen"] = 1
                _turn(flow, peer, end, ESTABLISHED)
            if peer["state"] == SYN_SENT:
                _turn(flow, peer, end, ESTABLISHED)
            _turn(flow, end, peer, ESTABLISHED)
            flow["saw_opening"] = 1
    if has_fin:
        _turn(flow, end, peer, CLOSED)
    if has_rst:
        _turn(flow, end, peer, RESET)
    if end["state"] == INACTIVE:
        if not is_orig and not length and peer["state"] == SYN_SENT:
            pass  # some acknowledge a SYN before they answer it
        elif has_ack and peer["state"] == ESTABLISHED:
            _turn(flow, end, peer, ESTABLISHED)
            flow["is_partial"] = 0
            end["was_seen"] = 1
        else:
            _turn(flow, end, peer, PARTIAL)
    return has_fin or has_rst


@part
def _close(flow, rest, end, peer, limits):
    """One end is closed: the connection is over after a delay, or looked at again in a while."""
    if end["did_close"]:
        return
    end["did_close"] = 1
    if end["state"] == RESET or peer["did_close"] or peer["state"] == INACTIVE:
        flow["close_ns"] = flow["last_ns"] + limits[CLOSE_DELAY]  # anew, if the other end closed before
    elif end["before"] != INACTIVE:
        rest["tick_ns"] = min(rest["tick_ns"], flow["last_ns"] + _TICK_NS)


@part
def payload_of(end, peer):
    """Bytes that an end sent, by its numbers; neither the SYN nor a FIN counts."""
    if end["before"] == SYN_SENT and end["state"] == RESET and peer["state"] == INACTIVE and end["acked"] > 1:
        return 0  # a half-open connection that was found and broken off: its numbers mislead
    size = max(end["last"], end["acked"])
    if size:
        size -= 1
    if end["fins"] and size:
        size -= 1
    return max(size, 0)
