# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads are laid to the right process, also when it is gone before anybody can look."""

import os
import subprocess
import sys
import threading

import pytest

from whoneeds.tracer import clocks
from whoneeds.tracer.owners import Holder
from whoneeds.tracer.status import own_identity
from whoneeds.tracer.tasks import Tasks
from whoneeds.tracer.tracepoints import Executed, TaskBegan, TaskEnded

SECOND_NS = 10**9


@pytest.fixture
def tasks(tmp_path):
    """Tasks of a host on which nothing runs any more; 100 ticks a second."""
    return Tasks(str(tmp_path), ticks_per_s=100)


def test_a_process_that_is_gone_is_named_by_its_events(tasks):
    """Begin and execution are enough for identity and name."""
    tasks.take(TaskBegan(5 * SECOND_NS, 1, 500, "bash", False))
    tasks.take(Executed(5 * SECOND_NS + 1, 500, 500, "/opt/shop/feeder"))
    holder = tasks.find_holder(500, 6 * SECOND_NS)
    assert holder == Holder(500, 500)
    assert tasks.attributes_of(holder).name == "feeder"


def test_a_child_that_executes_nothing_is_what_its_parent_is(tasks):
    """A forked worker carries the program of the process that forked it, and its number as parent."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "bash", False))
    tasks.take(Executed(SECOND_NS, 500, 500, "/usr/sbin/exampled"))
    tasks.take(TaskBegan(2 * SECOND_NS, 500, 501, "exampled", False))
    holder = tasks.find_holder(501, 3 * SECOND_NS)
    assert (holder, tasks.attributes_of(holder).name, tasks.attributes_of(holder).ppid) == (
        Holder(501, 200), "exampled", 500,
    )  # fmt: skip


def test_a_thread_is_its_process(tasks):
    """What a thread does is done by its process, also when another thread made it."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "java", False))
    tasks.take(TaskBegan(SECOND_NS, 500, 501, "java", True))
    tasks.take(TaskBegan(SECOND_NS, 501, 502, "java", True))
    assert tasks.find_holder(502, 2 * SECOND_NS) == Holder(500, 100)


def test_a_number_that_is_used_again_is_another_process(tasks):
    """The second process with a number is not the first one, and has its own name."""
    for begin_s, path in ((1, "/bin/one"), (2, "/bin/two")):
        tasks.take(TaskBegan(begin_s * SECOND_NS, 1, 500, "sh", False))
        tasks.take(Executed(begin_s * SECOND_NS, 500, 500, path))
        holder = tasks.find_holder(500, begin_s * SECOND_NS)
        assert (holder.start_ticks, tasks.attributes_of(holder).name) == (100 * begin_s, path[5:])
        tasks.take(TaskEnded(begin_s * SECOND_NS, 500))


def test_a_process_still_counts_while_it_ends(tasks):
    """Files are closed after the end was told: for a moment the process is still the one that does it."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "sh", False))
    tasks.take(TaskEnded(2 * SECOND_NS, 500))
    tasks.drop_ended(2 * SECOND_NS)
    assert tasks.find_holder(500, 2 * SECOND_NS) == Holder(500, 100)
    tasks.drop_ended(9 * SECOND_NS)
    assert tasks.find_holder(500, 9 * SECOND_NS) is None


def test_a_name_belongs_to_a_time(tasks):
    """A process that executes another program goes by the new name from then on."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "sh", False))
    tasks.take(Executed(SECOND_NS, 500, 500, "/bin/one"))
    holder = tasks.find_holder(500, SECOND_NS)
    assert tasks.attributes_of(holder).name == "one"
    tasks.take(Executed(2 * SECOND_NS, 500, 500, "/bin/two"))
    assert tasks.attributes_of(tasks.find_holder(500, 3 * SECOND_NS)).name == "two"


def test_living_processes_are_asked():
    """A process that ran before the events began is looked up, threads too, with what it says of itself."""
    tasks = Tasks()
    me = own_identity()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(tasks.find_holder(threading.get_native_id(), clocks.boot_ns()))
    )
    thread.start()
    thread.join()
    assert found == [Holder(me.pid, me.start_ticks)]
    assert tasks.attributes_of(found[0]).uid == os.geteuid()


def test_who_has_the_number_now_is_not_who_had_it_then():
    """A process that began after an event cannot have caused it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert Tasks().find_holder(process.pid, 10**9) is None
        assert Tasks().find_holder(process.pid, clocks.boot_ns()).pid == process.pid
        process.communicate(b"\n")


def test_memory_does_not_grow_with_processes_whose_end_was_lost(tmp_path):
    """Threads that no longer run are forgotten when a segment is closed."""
    tasks = Tasks(str(tmp_path), ticks_per_s=100, most=500)
    for tid in range(1, 1000):
        tasks.take(TaskBegan(SECOND_NS, 0, tid, "sh", False))
        tasks.find_holder(tid, SECOND_NS)
    tasks.forget_gone()
    assert not tasks._tasks
    assert not tasks._attributes


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/../../tmp/evil", "evil"), ("/proc/self/root/usr/bin/x", "x"), ("relative", "relative"),
        ("/usr/bin/no-such-program", "no-such-program"),
    ],
)  # fmt: skip
def test_only_the_system_s_own_links_are_followed(tasks, path, name, monkeypatch):
    """A path that leads out of the system's folders is not looked at: it could block, or lie."""
    looked = []
    monkeypatch.setattr(os, "readlink", lambda place: looked.append(place) or "../../tmp/further")
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "sh", False))
    tasks.take(Executed(SECOND_NS, 500, 500, path))
    holder = tasks.find_holder(500, SECOND_NS)
    assert all(place.rpartition("/")[0] == "/usr/bin" for place in looked)
    assert len(looked) == (path.startswith("/usr/bin/no"))
    assert tasks.attributes_of(holder).name in (name, "further")


def test_a_name_stays_known_while_a_program_changes(tasks):
    """A process that closes a connection and executes another program at once was the first one while it had it."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "sh", False))
    tasks.take(Executed(SECOND_NS, 500, 500, "/bin/one"))
    holder = tasks.find_holder(500, SECOND_NS)
    tasks.take(Executed(2 * SECOND_NS, 500, 500, "/bin/two"))
    assert tasks.attributes_of(holder).name == "one"


def test_a_thread_that_executes_becomes_the_process(tasks):
    """After a thread has executed a program, its process lives on, although its first thread was told to end."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "java", False))
    tasks.take(TaskBegan(SECOND_NS, 500, 501, "java", True))
    tasks.take(TaskEnded(2 * SECOND_NS, 500))
    tasks.take(Executed(2 * SECOND_NS, 500, 501, "/bin/other"))
    tasks.drop_ended(9 * SECOND_NS)
    holder = tasks.find_holder(500, 9 * SECOND_NS)
    assert (holder, tasks.attributes_of(holder).name) == (Holder(500, 100), "other")
    assert tasks.find_holder(501, 9 * SECOND_NS) is None


def test_a_program_that_was_executed_by_a_descriptor_has_no_name(tasks):
    """The number of a descriptor is not the name of a program."""
    tasks.take(TaskBegan(SECOND_NS, 1, 500, "sh", False))
    tasks.take(Executed(SECOND_NS, 500, 500, "/dev/fd/3"))
    assert tasks.attributes_of(tasks.find_holder(500, SECOND_NS)).name == "unknown"


def test_threads_of_the_kernel_hold_nothing():
    """A thread of the kernel that acts on a socket for somebody is not its holder."""
    kernel = next((pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(pid) == 2), None)  # noqa: PTH208
    if kernel is None:
        pytest.skip("no thread of the kernel is seen from here")
    assert Tasks().find_holder(kernel, clocks.boot_ns()) is None


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # noqa: PTH123
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return None
