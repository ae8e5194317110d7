# SPDX-License-Identifier: GPL-3.0-or-later
"""Zeek's conn_state of a wire flow: the meter's three words, and which end spoke, tell it."""

from whoneeds.model.evidence import WireFlow


def conn_state(flow: WireFlow) -> str:
    """The state that Zeek gives the flow; see ``docs/flows.md``."""
    if flow.protocol == "udp":
        spoke = bool(flow.orig_packets), bool(flow.resp_packets)
        return {(True, True): "SF", (True, False): "S0", (False, True): "SHR", (False, False): "OTH"}[spoke]
    if flow.protocol != "tcp":
        return "OTH"
    orig_open, resp_open = flow.handshake in ("full", "orig"), flow.handshake in ("full", "resp")
    if flow.end == "rejected":
        return "REJ"
    if flow.end == "rst" and flow.closed_by == "resp":
        return "RSTR" if orig_open else "RSTRH"
    if flow.end == "rst":
        return "RSTO" if resp_open else "RSTOS0" if orig_open else "OTH"
    if flow.closed_by == "both":
        return "SF"
    if flow.closed_by == "orig":
        return "S2" if resp_open else "SH"
    if flow.closed_by == "resp":
        return "S3" if orig_open else "SHR"
    if flow.end == "unanswered":
        return "S0"
    return "S1" if flow.handshake == "full" else "OTH"
