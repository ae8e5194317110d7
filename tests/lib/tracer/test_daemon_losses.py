# SPDX-License-Identifier: GPL-3.0-or-later
"""What is lost when a tracer is killed, fails or is refused is told, and what was seen is kept."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from runs import read_all, rows, running, status, wait_for

from whoneeds.model.errors import HostError
from whoneeds.model.evidence import Gap, SocketRecord
from whoneeds.segment.spool import open_spool
from whoneeds.tracer import budget, clocks, daemon
from whoneeds.tracer.sampler import Sampler
from whoneeds.tracer.settings import make_settings
from whoneeds.tracer.status import STATUS_FILE, read_document, render


def test_a_second_tracer_is_refused(trace, folder):
    """A second tracer on one folder ends at once with exit code 1 and names the first; that one goes on."""
    with running(trace, folder, "--period", "0.2") as first:
        answer = subprocess.run(
            [*trace, "run", "--dir", folder, "--for", "1"], capture_output=True, text=True, check=False
        )
        assert answer.returncode == 1
        assert str(first.pid) in answer.stderr
        assert "another tracer writes into" in answer.stderr
        assert status(trace, folder)["pid"] == first.pid
        assert status(trace, folder)["state"] == "running"


def test_killed_it_is_called_failed_and_the_next_run_tells_of_the_gap(trace, folder):
    """After kill -9 committed segments are there, status says failed, and the next run says what is missing."""
    config = Path(folder) / "c.json"
    config.write_text(json.dumps({"schema": 1, "period_s": 0.1, "rotate_s": 1}))
    with running(trace, folder, "--config", str(config)) as process:
        wait_for(lambda: len(list((Path(folder) / "segments").glob("*.seg"))) >= 2)
        process.kill()
        process.wait()
    committed = read_all(folder)
    answer = status(trace, folder)
    assert answer["state"] == "failed"
    subprocess.run([*trace, "run", "--for", "0.2", "--dir", folder, "--config", str(config)], check=True, stderr=-1)
    after = read_all(folder)
    assert [segment.digest for segment in after[: len(committed)]] == [segment.digest for segment in committed]
    (gap,) = [gap for gap in after[-1].tables[Gap] if gap.source == "tracer"]
    assert gap.reason == "failed"
    assert abs(gap.first_ns - committed[-1].header.closed_ns) < 2e9
    assert gap.last_ns >= committed[-1].header.closed_ns


def test_killed_again_before_it_wrote_anything_the_first_loss_is_told_too(trace, folder):
    """A tracer that is killed before its first segment leaves the loss before it to be told by the next one."""
    with running(trace, folder, "--period", "0.2") as first:
        began_ns = json.loads((Path(folder) / "status.json").read_text())["since_ns"]
        first.kill()
        first.wait()
    with running(trace, folder, "--period", "0.2") as second:
        second.kill()
        second.wait()
    subprocess.run([*trace, "run", "--for", "0.2", "--dir", folder], check=True, stderr=-1)
    (gap,) = [gap for gap in rows(folder, Gap) if gap.source == "tracer"]
    assert gap.first_ns <= began_ns + 20_000_000


def test_a_state_file_with_an_impossible_time_is_shown(tmp_path):
    """Status answers although the state file names a time that no calendar has."""
    assert "since" not in " ".join(render({"state": "stopped", "since_ns": 10**40}))


@pytest.mark.parametrize(("state", "waiting"), [("failed", 0), ("stopped", 2)])
def test_an_end_that_could_not_write_is_a_loss(tmp_path, state, waiting):
    """After a tracer that failed, or stopped with segments that the disk did not take, the next tells of the loss."""
    ended_ns = time.time_ns() - 10_000_000_000
    document = {"schema": 1, "state": state, "waiting": waiting, "committed_ns": ended_ns, "pid": 1, "start_ticks": 0}
    (tmp_path / "status.json").write_text(json.dumps(document))
    settings = make_settings({"dir": str(tmp_path)}, {"for_s": 0.1})
    daemon.run(settings)
    (gap,) = [gap for gap in rows(tmp_path, Gap) if gap.source == "tracer"]
    assert abs(gap.first_ns - ended_ns) < 1e9


def test_what_was_seen_before_a_failure_is_written(tmp_path, monkeypatch):
    """A tracer that ends because samples fail commits what it saw before."""
    tracer_sample = Sampler.sample
    taken = []

    def sample(sampler, observation, at):
        taken.append(at)
        if len(taken) > 1:
            raise HostError("the kernel answers no more")
        return tracer_sample(sampler, observation, at)

    monkeypatch.setattr(Sampler, "sample", sample)
    config = {"dir": str(tmp_path), "period_s": 0.1, "sources": ("table",), "memory_bytes": 1 << 40}
    with pytest.raises(HostError, match="answers no more"):
        daemon.run(make_settings(config, {}))
    (segment,) = read_all(tmp_path)
    assert segment.tables[SocketRecord]
    assert [gap.lost for gap in segment.tables[Gap] if "answers no more" in gap.detail] == [4]


def test_a_run_that_costs_too_much_does_less_and_says_so(tmp_path, monkeypatch):
    """Beyond its budget the tracer samples less often, then without packets; each segment has one period."""
    monkeypatch.setattr(budget, "WINDOW_S", 0.0)
    config = {"dir": str(tmp_path), "period_s": 0.2, "cpu_share": 0.001, "memory_bytes": 1 << 40}
    spool = open_spool(str(tmp_path), 1 << 30)
    tracer = daemon.Tracer(make_settings(config, {}), spool)
    had_packets = tracer.observers.packets is not None
    try:
        for _step in range(budget.WITHOUT_PACKETS + 1):
            tracer.take_sample()
        assert tracer.period_s == 0.2 * 8
        assert tracer.observers.packets is None
        tracer.write_status("running")
        assert read_document(str(tmp_path), STATUS_FILE)["budget"] == "a sample every 1.6 s and no packets"
        tracer.close(clocks.now())
    finally:
        tracer.release()
        spool.close()
    found = read_all(tmp_path)
    assert [segment.header.period_s for segment in found] == [0.2, 0.4, 0.8, 1.6, 1.6]
    steps = [gap for segment in found for gap in segment.tables[Gap] if gap.source == "budget"]
    assert [gap.detail.split(":")[0] for gap in steps] == [
        "from now on a sample every 0.4 s",
        "from now on a sample every 0.8 s",
        "from now on a sample every 1.6 s",
        "from now on a sample every 1.6 s and no packets",
    ]
    left_out = [gap for gap in found[-1].tables[Gap] if gap.source == "packets" and gap.reason == "dropped"]
    assert len(left_out) == had_packets
