# SPDX-License-Identifier: GPL-3.0-or-later
"""The truth about a user's own fleet, made as Macroscope's authors made theirs (section 4.2).

Each application and service that was observed is labelled by the first of these that speaks of it:

1. ``answer``: the operator said so of this very application and service.
2. ``known``: one of the machines that were called, or the service anywhere, is on the list of known services.
3. ``probe``: somebody answers at one of the machines that were called, asked later than the connections were seen.
4. ``assumed``: none of these, so it is taken for transient, as the paper does. That is a guess, and is counted.

The paper asks the operators last. Here an answer comes first, for whoever speaks of one application knows more than a
list of servers does.
"""

import csv
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from whoneeds.model.errors import SettingsError

Key = tuple[str, str, int]
#: (protocol, address, port)
Place = tuple[str, str, int]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BY = ("answer", "known", "probe", "assumed")
_MOST_LINES = 100_000
_MOST_TEXT = 16 << 20
_ANSWERS = {"static": True, "transient": False}


@dataclass(frozen=True)
class Label:
    """What is taken for true of one application and service.

    Attributes
    ----------
    static : bool
    by : {"answer", "known", "probe", "assumed"}
    """

    static: bool
    by: str


class KnownServices:
    """Services that are looked after: anywhere, at an address, or in a network.

    Parameters
    ----------
    anywhere : iterable of (str, int)
        Protocol and port.
    at : iterable of (str, int, network)
        The same, and where.
    """

    def __init__(self, anywhere: Iterable[tuple[str, int]], at: Iterable[tuple[str, int, _Network]]) -> None:
        self._anywhere = frozenset(anywhere)
        self._at: dict[tuple[str, int], list[_Network]] = {}
        for protocol, port, network in at:
            self._at.setdefault((protocol, port), []).append(network)

    def __len__(self) -> int:
        """Entries of the list."""
        return len(self._anywhere) + sum(map(len, self._at.values()))

    def holds(self, place: Place) -> bool:
        """Whether a service instance is on the list; an address that is none is in no network."""
        protocol, address, port = place
        if (protocol, port) in self._anywhere:
            return True
        networks = self._at.get((protocol, port))
        if not networks:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in networks)


def read_known_services(text: str) -> KnownServices:
    """Read a list of known services: one a line, as ``tcp/443``, ``tcp/5432 10.0.0.5`` or ``udp/53 10.0.0.0/24``.

    Parameters
    ----------
    text : str
        Behind ``#`` stands a remark; empty lines are nothing.

    Raises
    ------
    SettingsError
        Naming the line that is wrong.

    Examples
    --------
    >>> read_known_services("tcp/5432 10.0.0.0/24  # databases").holds(("tcp", "10.0.0.5", 5432))
    True
    """
    anywhere: list[tuple[str, int]] = []
    at: list[tuple[str, int, _Network]] = []
    for number, line in _lines("known services", text):
        words = line.partition("#")[0].split()
        if not words:
            continue
        service = _read_service(words[0])
        network = _read_network(words[1]) if len(words) == 2 else None
        if service is None or len(words) > 2 or (len(words) == 2 and network is None):
            raise SettingsError(
                f"known services, line {number}",
                expected="protocol/port and, if only there, an address or network: tcp/5432 10.0.0.0/24",
                found=ascii(line)[:80],
            )
        if network is None:
            anywhere.append(service)
        else:
            at.append((*service, network))
    return KnownServices(anywhere, at)


def read_answers(text: str) -> dict[Key, bool]:
    """Read what the operator answered: CSV lines of application, protocol/port, and ``static`` or ``transient``.

    Parameters
    ----------
    text : str
        A first line ``application,service,answer`` is left out; so are lines whose answer is empty.

    Raises
    ------
    SettingsError
        Naming the line that is wrong, or that says the contrary of one before.

    Examples
    --------
    >>> read_answers("backup.exe,tcp/9102,static")
    {('backup.exe', 'tcp', 9102): True}
    """
    answers: dict[Key, bool] = {}
    for number, line in _lines("answers", text):
        if not line.strip() or (number == 1 and line.strip() == "application,service,answer"):
            continue
        cells = next(csv.reader([line]))
        if len(cells) == 3 and not cells[2].strip():
            continue
        service = _read_service(cells[1].strip()) if len(cells) == 3 else None
        answer = _ANSWERS.get(cells[2].strip()) if len(cells) == 3 else None
        if service is None or answer is None or not cells[0]:
            raise SettingsError(
                f"answers, line {number}",
                expected="application,protocol/port,static or transient",
                found=ascii(line)[:80],
            )
        key = (cells[0], *service)
        if answers.setdefault(key, answer) != answer:
            raise SettingsError(
                f"answers, line {number}", expected="one answer for each", found=f"both for {ascii(line)[:80]}"
            )
    return answers


def label(
    called: Mapping[Key, Iterable[Place]],
    known: KnownServices,
    reachable: frozenset[Place] = frozenset(),
    answers: Mapping[Key, bool] | None = None,
) -> dict[Key, Label]:
    """Label every application and service that was observed.

    Parameters
    ----------
    called : mapping
        Of each, the service instances that were called.
    known : KnownServices
    reachable : frozenset of (str, str, int)
        Where somebody answered a probe.
    answers : mapping, optional
    """
    made = {}
    for key, places in called.items():
        answer = (answers or {}).get(key)
        every = tuple(places)
        if answer is not None:
            made[key] = Label(answer, "answer")
        elif any(map(known.holds, every)):
            made[key] = Label(True, "known")
        elif any(place in reachable for place in every):
            made[key] = Label(True, "probe")
        else:
            made[key] = Label(False, "assumed")
    return made


def _lines(what: str, text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text that is not too long."""
    if len(text) > _MOST_TEXT or text.count("\n") > _MOST_LINES:
        raise SettingsError(
            what, expected=f"at most {_MOST_LINES} lines in {_MOST_TEXT >> 20} MiB",
            found=f"{text.count(chr(10))} lines, {len(text)} characters",
        )  # fmt: skip
    yield from enumerate(text.removeprefix("\ufeff").splitlines(), start=1)


def _read_service(text: str) -> tuple[str, int] | None:
    protocol, slash, port = text.partition("/")
    legal = bool(slash) and protocol in ("tcp", "udp") and port.isascii() and port.isdigit() and len(port) <= 5
    return (protocol, int(port)) if legal and 0 < int(port) < 65536 else None


def _read_network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None
