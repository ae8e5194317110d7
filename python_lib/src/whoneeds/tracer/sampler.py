# SPDX-License-Identifier: GPL-3.0-or-later
"""Take one sample of the host: every namespace's sockets, their owners, and what those are."""

import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from whoneeds.model.errors import Denied, Gone, HostError, Unsupported
from whoneeds.tracer import sock_diag
from whoneeds.tracer.namespaces import NamespaceFinder, open_in_namespaces, own_namespace
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holder, Holders, OwnerMap, list_pids
from whoneeds.tracer.processes import Attributes, UserNames, open_process, read_attributes, read_stat
from whoneeds.tracer.socket_rows import Batch

_REASONS = ((Denied, "permission"), (Unsupported, "unsupported"), (Gone, "vanished"))


class Problem(NamedTuple):
    """Something that could not be seen in a sample; becomes a Gap."""

    source: str
    reason: str
    detail: str
    lost: Optional[int]


class Tally(NamedTuple):
    """What a sample came to: sockets listed, processes that hold them, processes that may not be looked into."""

    sockets: int
    processes: int
    denied: int


def gap_reason(error: HostError) -> str:
    """The word of the vocabulary for an error of the host."""
    return next((word for kind, word in _REASONS if isinstance(error, kind)), "failed")


class Sampler:
    """Takes samples; remembers between them what need not be asked again.

    Parameters
    ----------
    source : str
        'table' (the kernel's list of sockets) or 'psutil'.
    root : str
        Where the process file system lies.
    """

    def __init__(self, source: str = "table", root: str = "/proc") -> None:
        self.root = root
        self.source = source
        self._owners = OwnerMap(root)
        self._finder = NamespaceFinder(root)
        self._changed: Set[int] = set()
        self._users = UserNames()
        self._look_again: Set[Holder] = set()
        #: The tracer's own network namespace and the ways into the others, as of the last sample.
        self.own_namespace = own_namespace(root)
        self.doors: Dict[int, List[str]] = {}
        self._attributes: Dict[Holder, Attributes] = {}

    @property
    def owners(self) -> Mapping[int, Holders]:
        """Who held each socket in the last sample, by inode."""
        return self._owners.holders

    def sample(self, observation: Observation, at: Instant) -> Tally:
        """Take a sample and add it to an observation; what could not be seen is added as gaps.

        Raises
        ------
        Unsupported
            If this host has no source of sockets at all.
        """
        if self.source == "psutil":
            return self._sample_psutil(observation, at)
        pids = list_pids(self.root)
        batches, problems = self._list_sockets(pids)
        wanted: Set[int] = set().union(*(sock_diag.inodes_of(batch.rows) for batch in batches))
        ownership = self._owners.update(list_pids(self.root), wanted)
        self._changed = ownership.changed
        # the first process is always there: if it is not to be seen, /proc hides it, and who knows how many others
        hidden = 0 if os.path.exists(f"{self.root}/1") else 1
        observation.denied = max(observation.denied, ownership.denied, hidden)
        observation.add_sample(at, batches, ownership.holders, ownership.moved)
        for problem in problems:
            observation.add_gap(problem.source, problem.reason, problem.detail, at, at, problem.lost)
        self._name_processes(observation)
        return Tally(sum(len(batch.rows) for batch in batches), ownership.holding, ownership.denied)

    def _list_sockets(self, pids: List[int]) -> Tuple[List[Batch], List[Problem]]:
        """List the sockets of every namespace that can be entered."""
        problems: List[Problem] = []
        own = self.own_namespace
        sighting = self._finder.find(pids, self._changed)
        self.doors = doors = {inode: paths for inode, paths in sighting.doors.items() if inode != own}
        if sighting.denied:
            detail = "processes whose network namespace the tracer may not read"
            problems.append(Problem("namespaces", "permission", detail, None))
        channels, refused = open_in_namespaces(doors, sock_diag.open_channel)
        batches: List[Batch] = []
        try:
            channels[own] = sock_diag.open_channel()
            for inode, channel in channels.items():
                for protocol in (sock_diag.TCP, sock_diag.UDP):
                    try:
                        rows, whole = sock_diag.list_sockets(channel, protocol)
                    except HostError as error:
                        problems.append(Problem("sockets", gap_reason(error), str(error), None))
                        continue
                    if not whole:
                        problems.append(Problem("sockets", "truncated", "the kernel's list changed on the way", None))
                    name = sock_diag.PROTOCOL_NAMES[protocol]
                    batches.append(
                        Batch(
                            str(inode),
                            name,
                            "table",
                            rows,
                            sock_diag.decode_ends,
                            sock_diag.read_row,
                            sock_diag.IDENTITY,
                        )
                    )
        finally:
            for channel in channels.values():
                channel.close()
        problems += [
            Problem("namespaces", gap_reason(refusal), refusal.message, None)
            for refusal in refused.values()
            if not isinstance(refusal, Gone)
        ]
        if not batches:
            raise Unsupported(
                "the kernel lists no sockets",
                found=problems[0].detail if problems else None,
                remedy="load the kernel module inet_diag, or use --sources psutil",
            )
        return batches, problems

    def _name_processes(self, observation: Observation) -> None:
        """Read attributes of processes that are new in the segment, that were new in the last sample, or changed.

        A process that was caught between fork and exec has its parent's name still; so it is asked again.
        """
        unnamed = set(observation.unnamed())
        again = {holder for holder in self._look_again if holder not in unnamed}
        again |= {holder for holder in self._attributes if holder.pid in self._changed and holder not in unnamed}
        self._look_again = {holder for holder in unnamed if holder not in self._attributes}
        for holder in unnamed | again:
            attributes = self._read(holder)
            if attributes is not None:
                self._attributes[holder] = attributes
                observation.name(holder, attributes)
            elif holder in unnamed and holder in self._attributes:
                observation.name(holder, self._attributes[holder])

    def _read(self, holder: Holder) -> Optional[Attributes]:
        return ask_process(self.root, holder, self._users)

    def _sample_psutil(self, observation: Observation, at: Instant) -> Tally:
        from whoneeds.tracer import psutil_source

        batches, holders, attributes, denied = psutil_source.list_sockets()
        observation.denied = max(observation.denied, denied)
        observation.add_sample(at, batches, holders)
        for holder in set(observation.unnamed()):
            if holder in attributes:
                observation.name(holder, attributes[holder])
        detail = "of several processes that hold one socket psutil names the first only"
        observation.add_gap("psutil", "ambiguous", detail, at, at)
        return Tally(sum(len(batch.rows) for batch in batches), len(attributes), denied)

    def forget_gone(self) -> None:
        """Drop what is remembered of processes that are gone; called when a segment is closed."""
        alive = set(list_pids(self.root)) if self.source == "table" else set()
        self._attributes = {holder: known for holder, known in self._attributes.items() if holder.pid in alive}


def ask_process(root: str, holder: Holder, users: UserNames) -> Optional[Attributes]:
    """What a process says of itself; None if it is gone."""
    try:
        directory = open_process(root, holder.pid)
        try:
            if read_stat(directory).start_ticks != holder.start_ticks:
                return None
            return read_attributes(directory, holder.pid, users)
        finally:
            os.close(directory)
    except (HostError, OSError):
        return None


def choose_source(wanted: Sequence[str]) -> str:
    """The source of samples to use: 'table' where the kernel offers it, else 'psutil'.

    Parameters
    ----------
    wanted : sequence of str
        As in `whoneeds.tracer.settings.Settings.sources`.

    Raises
    ------
    Unsupported
        If neither is there.
    """
    if "psutil" in wanted:
        _need_psutil(None)
        return "psutil"
    try:
        channel: Any = sock_diag.open_channel()
        try:
            sock_diag.list_sockets(channel, sock_diag.UDP)
        except HostError:
            sock_diag.list_sockets(channel, sock_diag.TCP)
        finally:
            channel.close()
    except HostError as error:
        _need_psutil(error)
        return "psutil"
    return "table"


def _need_psutil(cause: Optional[HostError]) -> None:
    try:
        import psutil  # noqa: F401
    except ImportError as error:
        raise Unsupported(
            "no source of sockets",
            expected="the kernel's list of sockets (netlink) or the Python package psutil",
            found=str(cause) if cause else "no psutil",
            remedy="load the kernel module inet_diag, or install psutil for this Python",
        ) from error
