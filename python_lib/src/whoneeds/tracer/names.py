# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that were seen to stand for addresses: collected, checked, bounded.

A name comes from the network, so that nothing but letters, digits, hyphens and underscores in labels becomes part of
one; the rest is dropped and counted.
"""

from typing import Dict, List, Optional, Tuple

from whoneeds.model.identity import DOMAIN_NAME

DNS, MULTICAST_DNS, LLMNR = 53, 5353, 5355


def legal_name(raw: bytes) -> Optional[str]:
    """The name as text, in lower case and without the last dot; None if it is no legal one.

    Examples
    --------
    >>> legal_name(b"DB1.Example.org.")
    'db1.example.org'
    >>> legal_name(b"{{ lookup('pipe', 'id') }}") is None
    True
    """
    name = raw.decode("latin-1").lower()
    if name.endswith("."):
        name = name[:-1]
    return name if DOMAIN_NAME.match(name) else None


def belongs_to(port: int, name: str) -> bool:
    """Whether a name service on that port may speak for a name: multicast ones for local names only."""
    if port == MULTICAST_DNS:
        return name.endswith(".local")
    return "." not in name if port == LLMNR else True


class NameBook:
    """Names of one network namespace.

    Parameters
    ----------
    most : int
        Most different names that are held in one segment.

    Attributes
    ----------
    refused, left_out : int
        Names that are none, and names beyond what is held.
    """

    def __init__(self, most: int = 1 << 13) -> None:
        self._most = most
        self.refused = 0
        self.left_out = 0
        self._spans: Dict[Tuple[str, str, str], List[int]] = {}

    def add(self, raw: bytes, address: str, source: str, at_ns: int, port: int = DNS) -> None:
        """Take in a name.

        Parameters
        ----------
        raw : bytes
        address : str
        source : str
            'dns' or 'sni'.
        at_ns : int
            UTC.
        port : int
            Where a name service answered from.
        """
        name = legal_name(raw)
        if name is None or not belongs_to(port, name):
            self.refused += 1
            return
        span = self._spans.get((name, address, source))
        if span is None:
            if len(self._spans) >= self._most:
                self.left_out += 1
                return
            self._spans[name, address, source] = [at_ns, at_ns]
        elif at_ns > span[1]:
            span[1] = at_ns

    @property
    def rows(self) -> int:
        """Rows that this would give now."""
        return len(self._spans)

    def take(self) -> List[Tuple[str, str, str, int, int]]:
        """Name, address, source, first and last time of everything since the last time this was asked."""
        made = [(*key, *span) for key, span in sorted(self._spans.items())]
        self._spans = {}
        return made  # type: ignore[return-value]
