# SPDX-License-Identifier: GPL-3.0-or-later
"""The incremental map of sockets to processes says the same as a walk of everything."""

import shutil
from pathlib import Path

import pytest
from actors import Actor
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.tracer.owners import Holder, OwnerMap, list_pids, walk_descriptors, walk_everything
from whoneeds.tracer.status import identity_of


@pytest.fixture
def stage():
    """Three actors that end with the test."""
    actors = [Actor() for _ in range(3)]
    yield actors
    for actor in actors:
        actor.end()


def agree(owners, wanted):
    """Bring the map up to date, and check it against the plain walk for the sockets in question."""
    before = dict(owners.holders)
    updated = owners.update(list_pids(), set(wanted))
    found = updated.holders
    assert {inode for inode in before.keys() | found.keys() if before.get(inode) != found.get(inode)} <= updated.moved
    truth = walk_everything()
    assert {inode: found.get(inode) for inode in wanted} == {inode: truth.get(inode) for inode in wanted}
    return found


STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "close", "swap", "hide", "fork", "reap", "pass"]), st.integers(0, 2)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=12, deadline=None)
@given(STEPS)
def test_the_map_equals_a_full_walk_under_churn(steps):
    """Whatever real processes open, close, exchange, inherit and pass on, every update equals a full walk."""
    actors = [Actor() for _ in range(3)]
    held = {actor: [] for actor in actors}
    children = dict.fromkeys(actors, 0)
    hidden = dict.fromkeys(actors, 4)
    owners = OwnerMap()
    try:
        for verb, number in steps:
            actor = actors[number]
            if verb == "open" or (verb == "hide" and hidden[actor]):
                held[actor].append(actor.act(verb))
                hidden[actor] -= verb == "hide"
            elif verb in ("close", "swap") and held[actor]:
                answer = actor.act(verb, held[actor].pop(0))
                held[actor] += [answer] if verb == "swap" else []
            elif verb == "fork":
                actor.act("fork")
                children[actor] += 1
            elif verb == "reap" and children[actor]:
                actor.act("reap")
                children[actor] -= 1
            elif verb == "pass" and held[actor]:
                other = actors[(number + 1) % 3]
                inode = held[actor][0]
                if inode not in held[other]:
                    actor.hand_over(inode, other, hidden=False)
                    held[other].append(inode)
            agree(owners, {inode for inodes in held.values() for inode in inodes})
    finally:
        for actor in actors:
            actor.end()


def test_a_hidden_handover_is_found_within_one_round(stage):
    """A socket passed to a process that closed a file for it is the one change that waits for its turn: one round."""
    giver, taker, _ = stage
    inode = giver.act("open")
    owners = OwnerMap()
    agree(owners, {inode})
    giver.hand_over(inode, taker, hidden=True)
    for _ in range(OwnerMap.ROUND):
        found = owners.update(list_pids(), {inode}).holders[inode]
    assert {holder.pid for holder in found} == {giver.pid, taker.pid}
    agree(owners, {inode})


def test_every_holder_of_a_shared_socket_is_told(stage):
    """A socket that several processes inherited has all of them as holders."""
    actor = stage[0]
    inode = actor.act("open")
    children = {actor.act("fork") for _ in range(3)}
    found = agree(OwnerMap(), {inode})
    assert {holder.pid for holder in found[inode]} == {actor.pid, *children}


def test_quiet_processes_are_not_walked_again(stage):
    """When nothing changed only the turn's share of processes is walked, not all of them."""
    inode = stage[0].act("open")
    owners = OwnerMap()
    first = owners.update(list_pids(), {inode}).walked
    quiet = min(owners.update(list_pids(), {inode}).walked for _ in range(6))
    assert quiet < first / 2


def test_a_socket_without_a_holder_is_looked_for_ever_more_seldom():
    """An inode that nobody holds costs a full search at first, and hardly any after a while."""
    owners = OwnerMap()
    nobodys = 2**31 - 1
    walked = [owners.update(list_pids(), {nobodys}).walked for _ in range(40)]
    searches = [count for count in walked[20:] if count > 0.8 * walked[0]]
    assert len(searches) <= 2
    assert nobodys not in owners.update(list_pids(), {nobodys}).holders


def test_a_reused_number_is_another_process(tmp_path, stage):
    """When a process number goes to another process, its sockets go with the old one."""
    root = tmp_path / "proc"
    for generation, (ticks, inode) in enumerate(((100, 11), (200, 22))):
        fake_process(root, 7, ticks, [inode], generation)
        if generation == 0:
            owners = OwnerMap(str(root))
            assert owners.update([7], {11}).holders == {11: (Holder(7, 100),)}
    assert owners.update([7], {22}).holders == {22: (Holder(7, 200),)}


def fake_process(root, pid, ticks, inodes, generation):
    """A folder that looks like a process."""
    place = root / str(pid)
    shutil.rmtree(place, ignore_errors=True)
    (root / f"keep-{generation}").mkdir(parents=True)  # so that the folder gets another inode number
    (place / "fd").mkdir(parents=True)
    (place / "stat").write_text(f"{pid} (x) S 1 " + "0 " * 17 + f"{ticks} 0\n")
    for number, inode in enumerate(inodes):
        (place / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
    (place / "fd" / "9").symlink_to("/dev/null")


def test_identity_is_number_and_start(stage):
    """A process is known by its number and when it began, as the kernel says it."""
    pid = stage[0].pid
    holder, _ = walk_descriptors("/proc", pid)
    assert holder == (pid, identity_of(pid).start_ticks)
    assert holder.start_ticks == int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def test_a_vanished_process_is_no_error(stage):
    """Processes that end between being listed and being looked at leave the map as if they had never been."""
    inode = stage[0].act("open")
    pids = [*list_pids(), stage[0].pid, 2**22 - 3]
    stage[0].end()
    stage[0].end = lambda: None
    assert inode not in OwnerMap().update(pids, {inode}).holders
    assert not Path(f"/proc/{stage[0].pid}").exists()
