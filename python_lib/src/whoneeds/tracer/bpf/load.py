# SPDX-License-Identifier: GPL-3.0-or-later
"""Load the programs: the one part that needs the capabilities BPF and PERFMON, and for a moment only.

What comes out of it are descriptors. Whoever holds them can read what the programs tell, without any privilege; with
the last of them closed, the programs are gone from the kernel.
"""

import os
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from whoneeds.model.errors import HostError, Unsupported
from whoneeds.tracer.bpf import machine
from whoneeds.tracer.bpf.btf import FUNC, TYPEDEF, read_kernel_types
from whoneeds.tracer.bpf.datagram_programs import KEY_BYTES, on_datagram
from whoneeds.tracer.bpf.datagram_programs import TRACEPOINTS as DATAGRAMS
from whoneeds.tracer.bpf.layout import COUNTER_BYTES, OPEN_BYTES, Maps, Scope
from whoneeds.tracer.bpf.life_programs import LifePrograms
from whoneeds.tracer.bpf.listing_program import list_sockets
from whoneeds.tracer.bpf.task_programs import TaskWords, on_exec
from whoneeds.tracer.clocks import in_time_namespace

#: Kernel memory of the rings: three seconds of 10 000 ends of connections a second, and a thousand new processes.
LIVES_BYTES, TASKS_BYTES = 4 << 20, 1 << 20
#: Connections, and processes, that are remembered at once.
_MAX_OPEN, _MAX_KNOWN = 1 << 18, 1 << 14
_OUTERMOST_PID_NAMESPACE = 0xEFFFFFFC


class Loaded(NamedTuple):
    """Descriptors of what was loaded.

    Attributes
    ----------
    lives, tasks, counters : int
        Maps that the tracer reads.
    programs : tuple of int
        They say how often the kernel had to leave them out.
    links : tuple of int
        As long as these are open, the programs run.
    listing : int
        From it listings of all sockets are made.
    """

    lives: int
    tasks: int
    counters: int
    programs: Tuple[int, ...]
    links: Tuple[int, ...]
    listing: int

    def named(self) -> List[Tuple[str, int]]:
        """Every descriptor with a name, for `whoneeds.tracer.handover`."""
        return [
            (f"whoneeds-{name}", descriptor)
            for name, value in self._asdict().items()
            for descriptor in (value if isinstance(value, tuple) else (value,))
        ]

    def close(self) -> None:
        """Close all."""
        for descriptor in (self.lives, self.tasks, self.counters, *self.programs, *self.links, self.listing):
            os.close(descriptor)


def load(scope: Scope) -> Loaded:
    """Load the programs and let them run.

    Raises
    ------
    Denied, Unsupported, HostError
        Where this kernel, or this user, cannot: nothing is left in the kernel then.
    """
    made: List[int] = []

    def keep(descriptor: int) -> int:
        made.append(descriptor)
        return descriptor

    try:
        types = read_kernel_types()
        maps = Maps(
            lives=keep(machine.make_map(machine.RING, "whoneeds_lives", 0, 0, LIVES_BYTES)),
            tasks=keep(machine.make_map(machine.RING, "whoneeds_tasks", 0, 0, TASKS_BYTES)),
            counters=keep(machine.make_map(
                machine.ARRAY, "whoneeds_count", 4, COUNTER_BYTES, 1, machine.CAN_BE_MAPPED)),
            open=keep(machine.make_map(
                machine.HASH, "whoneeds_open", 8, OPEN_BYTES, _MAX_OPEN, machine.NO_PREALLOCATION)),
            known=keep(machine.make_map(machine.LRU_HASH, "whoneeds_known", 8, 8, _MAX_KNOWN)),
        )  # fmt: skip
        words = TaskWords(types, maps, scope)
        lives = LifePrograms(words)
        programs, links = [], []
        for name, code, tracepoint in (
            ("whoneeds_exec", on_exec(words), "sched_process_exec"),
            ("whoneeds_end", lives.on_destroy(), "tcp_destroy_sock"),
            ("whoneeds_state", lives.on_state(), "inet_sock_set_state"),
        ):
            type_id = types.find_id(TYPEDEF, f"btf_trace_{tracepoint}")
            programs.append(keep(machine.load_tracing(name, code, machine.ON_TRACEPOINT, type_id)))
            links.append(keep(machine.attach_tracepoint(programs[-1])))
        spoken = keep(machine.make_map(machine.LRU_HASH, "whoneeds_spoken", KEY_BYTES, 8, _MAX_KNOWN))
        for name, sends in DATAGRAMS:
            if not types.has_type(TYPEDEF, f"btf_trace_{name}"):
                continue  # a kernel before 6.3: samples and packets alone tell of UDP
            type_id = types.find_id(TYPEDEF, f"btf_trace_{name}")
            code = on_datagram(words, sends, spoken)
            programs.append(keep(machine.load_tracing(f"whoneeds_{name[5:9]}", code, machine.ON_TRACEPOINT, type_id)))
            links.append(keep(machine.attach_tracepoint(programs[-1])))
        walk = machine.load_tracing(
            "whoneeds_list", list_sockets(words), machine.ON_ITERATION, types.find_id(FUNC, "bpf_iter_task_file")
        )
        listing = keep(machine.attach_iteration(keep(walk)))
    except BaseException:
        for descriptor in made:
            os.close(descriptor)
        raise
    os.close(maps.open)
    os.close(maps.known)
    os.close(spoken)
    os.close(walk)
    return Loaded(maps.lives, maps.tasks, maps.counters, tuple(programs), tuple(links), listing)


def from_named(handed: Mapping[str, Sequence[int]]) -> Optional[Loaded]:
    """What `Loaded.named` named; None if a part of it is missing."""
    found: Any = {name: handed.get(f"whoneeds-{name}", ()) for name in Loaded._fields}
    several = ("programs", "links")
    if any(len(found[name]) != 1 for name in found if name not in several) or not all(found[name] for name in several):
        return None
    values: Any = {name: tuple(value) if name in several else value[0] for name, value in found.items()}
    return Loaded(**values)


def scope_here(root: str = "/proc") -> Scope:
    """What the programs may tell a tracer that stands here: all of the host, or of its own container.

    Raises
    ------
    Unsupported
        Where clocks are not the kernel's own (a time namespace).
    """
    if in_time_namespace(root):
        raise Unsupported("kernel programs", expected="the kernel's own time", found="a time namespace")
    try:
        pid_namespace = os.stat(f"{root}/self/ns/pid").st_ino
        netns = os.stat(f"{root}/self/ns/net").st_ino
    except OSError as error:
        raise HostError("namespaces", found=str(error.strerror)) from error
    if pid_namespace == _OUTERMOST_PID_NAMESPACE:
        return Scope()
    return Scope(netns=netns, pid_namespace=pid_namespace)
