# SPDX-License-Identifier: GPL-3.0-or-later
"""What is called, by name instead of by address: conclusions out of names that were seen to stand for addresses."""

from dataclasses import dataclass
from typing import Optional

from whoneeds.model.evidence import PROTOCOLS
from whoneeds.model.schema import documented

TOLD_BY = ("dns", "sni", "both", "ambiguous", "none")
SET_RULES = ("name", "turns")


@dataclass(frozen=True)
class Destination:
    """By which name an application on a host called a service instance."""

    app: str = documented("The application that calls.", max_length=64)
    host: str = documented("Its host.")
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    resp_addr: str = documented("Address of the service instance.", max_length=45)
    resp_host: Optional[str] = documented("Traced host of the service instance.")
    name: Optional[str] = documented(
        "The one name that stood for the called address, on that host, when the calls began; absent if none did or "
        "several.",
        max_length=253,
    )
    told_by: str = documented(
        "Where the name was seen: answers of name services (dns), TLS hellos (sni), or both; ambiguous: several names "
        "stood for the address at that time; none: no name did.",
        choices=TOLD_BY,
    )
    organisation: Optional[str] = documented(
        "The registered domain that the name lies in, by the public suffix list; of a host that is not traced, the "
        "whole name where its suffix is not in the list.",
        max_length=253,
    )
    flows: int = documented("Flows that were called so.")
    first_ns: int = documented("First use seen.", unit="ns")
    last_ns: int = documented("Last use seen.", unit="ns")


@dataclass(frozen=True)
class ReplicaSet:
    """One of several service instances among which an application on a host chooses: it needs any of the set."""

    set_id: str = documented("Name of the set, the same for all its members.", max_length=300)
    app: str = documented("The application that chooses.", max_length=64)
    host: str = documented("Its host.")
    protocol: str = documented("Protocol of the service.", choices=PROTOCOLS)
    port: int = documented("Port of the service.")
    resp_addr: str = documented("Address of this member.", max_length=45)
    resp_host: Optional[str] = documented("Traced host of this member.")
    rule: str = documented(
        "name: one name stood for all of them; turns: no member is called twice in a row nearly as often as chance "
        "would have it, and the pause before a call does not tell which one comes.",
        choices=SET_RULES,
    )
    name: Optional[str] = documented("The name that stands for all of them (rule name).", max_length=253)
    members: int = documented("Members of the set.")
    flows: int = documented("Flows to this member that the rule looked at.")
    repeats: Optional[int] = documented("Of these, how many followed one to the same member (rule turns).")
