# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances are parts of one application. They are marked, not merged.

A process that runs the same program as its parent was forked by it: a pre-forking server and its workers have one
*leader*. A process of another program, begun by an application in the same container and the same session or service,
is a part *of* that application: a plug-in, a helper. The way up ends at programs that begin others for their living
(`STARTERS`): what a shell, a service manager or cron began is no part of it.

A bare interpreter does not say which script it runs, so two of them in a row are not taken for one program.
"""

from typing import Any

import ibis

from whoneeds.collector.sockets import Keep
from whoneeds.model.conclusions import ApplicationInstance
from whoneeds.model.schema import columns
from whoneeds.store.portable import at_highest, at_lowest

#: Programs that begin others: shells, service managers, logins, schedulers, container runtimes, wrappers.
STARTERS = (
    "systemd", "init", "launchd", "upstart", "runit", "runsv", "runsvdir", "s6-svscan", "s6-supervise", "supervise",
    "supervisord", "openrc", "openrc-run", "start-stop-daemon", "monit", "inetd", "xinetd", "cron", "crond", "anacron",
    "atd", "fcron", "sshd", "sshd-session", "login", "su", "sudo", "doas", "runuser", "pkexec", "agetty", "getty",
    "bash", "sh", "dash", "zsh", "ksh", "mksh", "ash", "fish", "csh", "tcsh", "busybox", "toybox", "tmux",
    "tmux: server", "screen", "dbus-daemon", "dbus-broker-launch", "dockerd", "containerd", "containerd-shim",
    "containerd-shim-runc-v2",
    "containerd-shim-runc-v1", "conmon", "podman", "crun", "runc", "crio", "kubelet", "lxc-start", "systemd-nspawn",
    "docker-init", "tini", "dumb-init", "catatonit", "pause", "kthreadd", "xargs", "env", "nohup", "setsid", "timeout",
    "nice", "ionice", "chrt", "unshare", "nsenter", "setpriv", "chroot", "systemd-run", "unknown",
)  # fmt: skip
#: Interpreters by their own name: which script they run is not known.
_BARE = r"^(python|pypy|perl|ruby|php|node|java|lua|tclsh|wish|guile|Rscript|R|beam\.smp|beam|erl|dotnet|mono)[0-9.]*$"
#: Rounds of doubling: each way up is followed over two to this power of generations.
_ROUNDS = 3


def find_applications(processes: ibis.Table, keep: Keep) -> ibis.Table:
    """What each process is a part of.

    Parameters
    ----------
    processes : ibis.Table
        ProcessRecord, with ``segment_id``.
    keep : callable
        See `whoneeds.collector.sockets.Keep`; a way up is followed through tables that the engine holds.

    Returns
    -------
    ibis.Table
        process_id, leader_id (the first process of the same program that it was forked from, itself if it was not; null
        if nothing is known of its parents), part_of and part_of_id (the application that began it, and that one's
        leader; null if none did), container.
    """
    known = processes.group_by("process_id").aggregate(
        name=at_highest(processes.name, processes.last_ns),
        exe=at_highest(processes.exe, processes.last_ns),
        unit=at_highest(processes.unit, processes.last_ns),
        session=at_highest(processes.session, processes.last_ns),
        container_id=processes.container.max(),
        container_name=processes.container_name.max(),
        parent_id=at_lowest(processes.parent_id, processes.first_ns),
    )
    known = keep(known.mutate(place=known.container_id.fill_null("")))
    parent = known.select(
        "name", "exe", "unit", "session", "place", to="process_id"
    ).rename("p_{name}").view()  # fmt: skip
    both = known.inner_join(parent, known.parent_id == parent.p_to)
    same_exe = (both.exe == both.p_exe).fill_null(True)
    same = (both.name == both.p_name) & same_exe & ~both.name.re_search(_BARE) & ~both.name.isin(STARTERS)
    service = (both.unit == both.p_unit).fill_null(False) & both.unit.endswith(".service").fill_null(False)
    together = (both.place == both.p_place) & (service | (both.session == both.p_session).fill_null(False))
    begun = together & ~both.p_name.isin(STARTERS) & (both.name != both.p_name)
    edges = keep(both.select(child="process_id", up="p_to", same=same, begun=begun & ~same))
    leaders = _climb(known, edges.filter(edges.same), keep)
    tops = _climb(known, edges.filter(edges.same | edges.begun), keep)
    names = known.select(top_id="process_id", part_of="name").view()
    made = known.select("process_id", "parent_id", "container_id", "container_name")
    made = made.join(leaders.rename(leader_id="top"), "process_id")
    made = made.join(tops.rename(top_id="top"), "process_id")
    made = made.join(names, "top_id")
    apart = made.top_id != made.leader_id
    return made.select(
        "process_id",
        leader_id=ibis.ifelse(made.parent_id.notnull(), made.leader_id, ibis.null("string")),
        part_of=ibis.ifelse(apart, made.part_of, ibis.null("string")),
        part_of_id=ibis.ifelse(apart, made.top_id, ibis.null("string")),
        container=made.container_name.coalesce(made.container_id),
    )


def _climb(known: ibis.Table, edges: ibis.Table, keep: Keep) -> ibis.Table:
    """process_id and ``top``: where the edges lead from each process."""
    here = known.select("process_id")
    edges = edges.select("up", process_id="child").view()
    ways = here.left_join(edges, "process_id")
    ways = keep(ways.select("process_id", top=ways.up.coalesce(ways.process_id)))
    for _round in range(_ROUNDS):
        further = ways.select(top="process_id", further="top").view()
        ways = keep(ways.join(further, "top").select("process_id", top="further"))
    return ways


def mark_parts(instances: ibis.Table, applications: ibis.Table) -> ibis.Table:
    """Instances with what they are parts of.

    Parameters
    ----------
    instances : ibis.Table
        From `whoneeds.collector.instances.find_instances`.
    applications : ibis.Table
        From `find_applications`.

    Returns
    -------
    ibis.Table
        ApplicationInstance.
    """
    marks = ("leader_id", "part_of", "part_of_id", "container")
    joined = instances.drop(*marks).left_join(applications, "process_id")
    made: dict[str, Any] = {column.name: joined[column.name] for column in columns(ApplicationInstance)}
    return joined.select(**made)
