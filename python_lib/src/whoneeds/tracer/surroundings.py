# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at beside sockets, in one sample of several: translations, and connections over AF_UNIX."""

from itertools import product
from typing import Any, Dict, List, Mapping, Sequence

from whoneeds.model.errors import Denied, Gone, HostError
from whoneeds.tracer import sock_diag
from whoneeds.tracer.namespaces import NamespaceFinder, open_in_namespaces, own_namespace
from whoneeds.tracer.observation import Instant, Observation
from whoneeds.tracer.owners import Holders, list_pids
from whoneeds.tracer.processes import UserNames
from whoneeds.tracer.relations import UnixConnection
from whoneeds.tracer.sampler import ask_process, gap_reason
from whoneeds.tracer.translations import Translations
from whoneeds.tracer.unix_diag import UnixSocket, find_talks, list_unix_sockets

#: Connections over AF_UNIX are looked at in one sample of so many: daemons keep them open.
UNIX_EVERY = 6


class Surroundings:
    """Looks beside sockets.

    Parameters
    ----------
    root : str
        Where the process file system lies.
    handed : sequence of int
        As for `whoneeds.tracer.translations.Translations`.
    """

    def __init__(self, root: str = "/proc", handed: Sequence[int] = ()) -> None:
        self.root = root
        self._own = own_namespace(root)
        self._finder = NamespaceFinder(root)
        self._translations = Translations(root, handed=handed)
        self._users = UserNames()
        self._turn = 0

    def look(
        self, observation: Observation, at: Instant, doors: Dict[int, List[str]], owners: Mapping[int, Holders]
    ) -> None:
        """Take part in a sample; what may not be looked at is a gap.

        Parameters
        ----------
        observation : Observation
        at : Instant
        doors : dict of int to list of str
            Ways into other network namespaces, where they are known by now; else they are searched for.
        owners : mapping of int to tuple of Holder
            Who held each socket in this sample, by inode.
        """
        turn, self._turn = self._turn, self._turn + 1
        watched = self._translations.is_watching_others
        if watched or self._translations.is_due or turn % UNIX_EVERY == 0:
            doors = doors or self._find_doors()
        self._translations.look(observation, at, doors)
        if turn % UNIX_EVERY == 0:
            self._look_at_unix(observation, at, doors, owners)
        self._name_ancestors(observation, at)

    def _name_ancestors(self, observation: Observation, at: Instant) -> None:
        """Ask the ancestors of processes who they are, also those that hold no socket."""
        missing = observation.ancestors.missing
        while missing:
            for holder in missing:
                observation.name_ancestor(holder, ask_process(self.root, holder, self._users), at)
            missing = observation.ancestors.missing

    def prepare(self, observation: Observation, at: Instant) -> None:
        """Do what needs rights that may be given up afterwards."""
        self._translations.prepare(observation, at, self._find_doors())

    def _find_doors(self) -> Dict[int, List[str]]:
        found = self._finder.find(list_pids(self.root), set()).doors
        return {inode: paths for inode, paths in found.items() if inode != self._own}

    def _look_at_unix(
        self, observation: Observation, at: Instant, doors: Dict[int, List[str]], owners: Mapping[int, Holders]
    ) -> None:
        channels, refused = open_in_namespaces(doors, sock_diag.open_channel)
        problems = [error for error in refused.values() if not isinstance(error, (Denied, Gone))]
        closed = sum(isinstance(error, Denied) for error in refused.values())
        if closed:
            observation.add_gap("unix", "permission", "network namespaces that may not be entered", at, at, closed)
        sockets: List[UnixSocket] = []
        places: Dict[int, str] = {}
        try:
            channels[self._own] = sock_diag.open_channel()
            for inode, channel in channels.items():
                found = self._list(observation, at, channel, problems)
                places.update((socket.inode, str(inode)) for socket in found)
                sockets += found
        except HostError as error:
            problems.append(error)
        finally:
            for channel in channels.values():
                channel.close()
        for talk in find_talks(sockets):
            for client, server in product(owners.get(talk.client, ()), owners.get(talk.server, ())):
                if client != server:
                    made = UnixConnection(places[talk.client], talk.type, talk.path, client, server)
                    observation.relations.add_unix_connection(made, observation.instant_ns(at))
        observation.note_relations()
        for problem in problems:
            observation.add_gap("unix", gap_reason(problem), problem.message, at, at)

    @staticmethod
    def _list(observation: Observation, at: Instant, channel: Any, problems: List[HostError]) -> List[UnixSocket]:
        try:
            found, whole = list_unix_sockets(channel)
        except HostError as error:
            problems.append(error)
            return []
        if not whole:
            detail = "the kernel's list of AF_UNIX sockets changed on the way"
            observation.add_gap("unix", "truncated", detail, at, at)
        return found

    def read(self, observation: Observation, at: Instant) -> None:
        """Take in what events told since the last time, without waiting."""
        self._translations.read(observation, at)

    def close(self) -> None:
        """Close what is open."""
        self._translations.close()
