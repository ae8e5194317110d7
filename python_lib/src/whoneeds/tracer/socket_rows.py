# SPDX-License-Identifier: GPL-3.0-or-later
"""What a source tells of sockets: rows of a listing, and the lives of those that are no more."""

from typing import Any, Callable, Hashable, NamedTuple, Optional, Sequence, Tuple

from whoneeds.tracer.owners import Holders

#: A sample's view of one socket: key, state, inode, uid, sent_bytes, received_bytes, family. The key is equal for the
#: same socket with the same ends.
Row = Tuple[Hashable, int, int, Optional[int], Optional[int], Optional[int], int]


#: Namespace and protocol.
Where = Tuple[str, str]


class Ends(NamedTuple):
    """What of a socket does not change."""

    local_addr: str
    local_port: int
    remote_addr: Optional[str]
    remote_port: Optional[int]
    cookie: Optional[int]


class Batch(NamedTuple):
    """The sockets of one listing.

    Attributes
    ----------
    netns : str
    protocol : str
    source : str
        'table' or 'psutil'.
    rows : sequence of tuple
        Raw rows, tuples: equal from one sample to the next as long as nothing happened to their socket.
    decode : callable
        From family and key to `Ends`; called once for each new socket.
    read : callable
        From a raw row to `Row`.
    key : int
        Where in a raw row the key is.
    gone : sequence of hashable
        Keys of sockets that are not listed any more; told only where the listing is of changes.
    """

    netns: str
    protocol: str
    source: str
    rows: Sequence[Tuple[Any, ...]]
    decode: Callable[[int, Any], Ends]
    read: Callable[[Any], Row] = tuple
    key: int = 0
    gone: Sequence[Hashable] = ()


class Ended(NamedTuple):
    """What events tell of a socket that is no more.

    Attributes
    ----------
    begun_ns : int or None
        Time since boot; None if its begin was not seen.
    ended_ns : int
        Time since boot.
    initiated : bool or None
        Whether the local end began the connection.
    holders : tuple of Holder
        Processes that acted on it.
    unknown_holders : int
        Actions on it by processes that could not be told any more.
    end : str or None
        The word for how it ended; None if it was not seen.
    after_peer : bool
        Whether the peer had closed before: then the bytes received count its FIN.
    """

    begun_ns: Optional[int]
    ended_ns: int
    initiated: Optional[bool]
    holders: Holders
    unknown_holders: int
    end: Optional[str]
    after_peer: bool = False
